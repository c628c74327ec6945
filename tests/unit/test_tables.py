"""What the command line makes of values, for people."""

from __future__ import annotations

import pytest

from gateway.cli.asking import as_text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        ("", "-"),
        ({}, "-"),
        ({"rpm": 60, "gbp": None}, "rpm 60, gbp no limit"),
        ({"models": ["a", "b*"]}, "models a b*"),
        (True, "yes"),
        (1_602_000, "1,602,000"),
        (0, "0"),
        ("ann", "ann"),
    ],
)
def test_values_are_readable(value: object, text: str) -> None:
    assert as_text(value) == text
