"""A model is found by its own name first, then as a snapshot, then by the longest pattern."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.core.models import Model, ModelTable, Weights, covers


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


@pytest.mark.parametrize(
    ("called", "entry"),
    [
        ("gpt-5.4-2026-03-05", "gpt-5.4"),
        ("gpt-5.4-mini-2026-03-17", None),  # not declared to have any
        ("gpt-5.4-2026-03-05-2026-03-05", None),
        *((name, None) for name in ("gpt-5.4-pro", "gpt-5.4-26-3-5", "gpt-5.4-2026-03-05\n")),
        *((name, None) for name in ("gpt-5.4-2026-03-0\u0665", "-2026-03-05", "2026-03-05")),
    ],
)
def test_a_date_behind_the_name_is_a_snapshot_where_that_is_declared(
    called: str, entry: str | None
) -> None:
    mini, model = (Model(name, "up", "c", 9, 3, 2, 1, Weights()) for name in ("gpt-5.4-mini", "o"))
    models = ModelTable((mini, replace(model, name="gpt-5.4", snapshots=True)))
    found = models.find(called)
    assert (found.name if found else None) == entry


def test_a_snapshot_is_its_model_s_even_where_a_pattern_matches_too() -> None:
    model = Model("gpt-5.4", "up", "chars", 9, 3, 2, 1, Weights(), snapshots=True)
    models = ModelTable((replace(model, name="gpt-5.4-*", snapshots=False), model))
    found = [models.find(name) for name in ("gpt-5.4-2026-03-05", "gpt-5.4-2026")]
    assert [entry.name for entry in found if entry] == ["gpt-5.4", "gpt-5.4-*"]


def test_only_a_star_at_the_end_makes_a_pattern() -> None:
    assert [model.is_pattern for model in table("gpt", "gpt-*", "*")] == [False, True, True]
    assert covers("*", "anything")
    assert covers("gpt-*", "gpt-*")
    assert covers("gpt", "gpt")
    assert not covers("gpt", "gpt-4")
    assert not covers("gpt-*", "gpt")
