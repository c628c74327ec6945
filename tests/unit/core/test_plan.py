"""The values of the plan: what a tier allows, and what tokens weigh unless it is said.

Whether names and numbers are right is the configuration's business and tested there.
"""

from __future__ import annotations

from gateway.core.models import Weights
from gateway.core.plan import Tier


def tier(*models: str) -> Tier:
    return Tier(name="free", tokens=100, upgrade=None, shadow=False, packs=None, models=models)


def test_star_allows_every_model() -> None:
    assert tier("*").allows("gpt-4o")
    assert tier("gpt-4.1", "*").allows("never heard of")


def test_a_list_allows_only_what_it_names() -> None:
    assert tier("gpt-4o", "gpt-4.1").allows("gpt-4.1")
    assert not tier("gpt-4o").allows("gpt-4o-mini")
    assert not tier().allows("gpt-4o")


def test_a_pattern_stands_for_entries_whose_names_begin_so() -> None:
    assert tier("gpt-4*").allows("gpt-4o")
    assert tier("gpt-4*").allows("gpt-4*")
    assert not tier("gpt-4*").allows("gpt-*"), "an entry that allows more than the tier may"
    assert not tier("gpt-4o").allows("gpt-4o-*")


def test_tokens_count_fully_unless_weighted() -> None:
    assert Weights() == Weights(cached_per_mille=1000, reasoning_per_mille=1000)
