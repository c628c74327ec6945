"""A model is found by its own name first, then by the pattern that says most."""

from __future__ import annotations

import pytest

from gateway.core.models import Model, ModelTable, Weights


def table(*names: str) -> ModelTable:
    return ModelTable(Model(name, "up", "chars", 100, 40, 10, 1, Weights()) for name in names)


@pytest.mark.parametrize(
    ("called", "entry"),
    [
        ("gpt-4o", "gpt-4o"),
        ("gpt-4o-mini", "gpt-4o-mini"),
        ("gpt-4o-mini-2024-07-18", "gpt-4o-mini-*"),
        ("gpt-4o-2024-08-06", "gpt-4o-*"),
        ("gpt-4o-mini-", "gpt-4o-mini-*"),
        ("gpt-4", None),
        ("GPT-4o", None),
        ("", None),
    ],
)
def test_a_name_finds_the_entry_that_says_most(called: str, entry: str | None) -> None:
    models = table("gpt-4o-*", "gpt-4o-mini-*", "gpt-4o", "gpt-4o-mini")
    found = models.find(called)
    assert (found.name if found else None) == entry


def test_a_lone_star_is_the_default_for_names_that_nothing_else_matches() -> None:
    models = table("*", "gpt-4o")
    named = [models.find(name) for name in ("gpt-4o", "llama-5", "")]
    assert [model.name for model in named if model] == ["gpt-4o", "*", "*"]
