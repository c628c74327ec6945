"""Histories that chance finds seldom: told to the scripts and to the model step by step.

Each has been a difference between the two, or a fault planted in a script that random histories of
the usual number did not show.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from gateway.adapters.redis_store.scripts import lua_folder
from gateway.core.quota.reserve import Limits
from tests.lua.history_server import HistoryServer
from tests.lua.history_steps import NAMES, Amounts
from tests.lua.test_histories import Histories

ANN = NAMES[0]
WANTS = Amounts(prompt=5, outputs=(5, 5), choices=1, prices=(0, 0))


@pytest.fixture
def history(redis_url: str) -> Iterator[Histories]:
    """Everybody has an account; ann has a pack of 6 tokens and one of 30 that ends later."""
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        history = Histories(HistoryServer(client, lua_folder(), NAMES))
        history.all_is_there()
        yield history
        history.the_server_keeps_what_the_model_keeps()


def test_after_a_loss_the_period_before_is_paid_by_its_allowance(history: Histories) -> None:
    """A hold of a lost epoch ends in the next month: nothing was granted in its own month since
    the account was brought back, and packs would pay what the allowance covers."""
    history.reserves(ANN, WANTS, Limits(500), "")
    history.opens([])
    history.brings(NAMES)
    history.a_month_ends(early_ms=0, months=0)
    history.reserves(ANN, WANTS, Limits(500), "")
    history.ends(1, "settle", 7, "")
    assert history.shard.events[-1].part.from_allowance == 7


@pytest.mark.parametrize("name", [ANN, ("team", "mia")])
def test_a_charge_in_an_outage_at_the_border_of_a_month_counts_in_its_own(
    history: Histories, name: tuple[str, str | None]
) -> None:
    history.reserves(name, WANTS, Limits(500), "")
    history.ends(0, "settle", 7, "")
    history.a_month_ends(early_ms=0, months=0)
    history.ends_unheld(0, 9, 2)
    for account in (history.shard.accounts[name], history.shard.accounts[name[0], None]):
        assert (account.settled, account.before.used_tokens) == (9, 7)


def test_a_charge_in_an_outage_does_not_move_an_account_that_is_coming_back(
    history: Histories,
) -> None:
    history.reserves(ANN, WANTS, Limits(500), "")
    history.opens([])
    history.begins(ANN)
    starts_ms = history.shard.accounts[ANN].starts_ms
    history.a_month_ends(early_ms=0, months=0)
    history.ends_unheld(0, 9, 1)
    assert history.shard.accounts[ANN].starts_ms == starts_ms


def test_what_an_account_never_counted_is_not_taken_back(history: Histories) -> None:
    """The second event comes before the account is brought back by the sums with the first."""
    history.reserves(ANN, WANTS, Limits(500), "")
    history.ends(0, "settle", 7, "")
    history.opens([])
    history.ends(0, "settle", 7, "")
    history.brings(NAMES)
    assert [was_done for _, was_done in history.doubles] == [False]
    assert history.shard.accounts[ANN].settled == 7


def test_what_two_packs_paid_goes_back_to_the_later_first(history: Histories) -> None:
    history.reserves(ANN, WANTS, Limits(0), "")
    history.lapses(0, 10)
    history.ends(0, "settle", 8, "")
    splits = [event.part.pack_split for event in history.shard.events]
    assert splits == [(("p-0", 6), ("p-1", 4)), (("p-1", -2),)]
