"""The newest confirmed settlements are kept, no more than so many, each at its latest place."""

from __future__ import annotations

from gateway.core.quota.settle import Settlement
from gateway.flow.recent import RecentSettlements
from gateway.ports.quota_store import ShardState


def settlement(number: int) -> Settlement:
    return Settlement(f"rid-{number}", "ada", "settle", 1, 0, 50, 0, b"{}", "free")


def at(stream_id: str, epoch: int = 1) -> ShardState:
    return ShardState(epoch, stream_id)


def lost(
    recent: RecentSettlements, shard: int = 0, epoch: int = 2, raised_at: str = "0-0"
) -> list[str]:
    return [each.rid for each in recent.lost(shard, epoch, raised_at)]


def test_the_oldest_go_first_and_never_more_than_the_bound_are_kept() -> None:
    recent = RecentSettlements(recent_max=3)
    for number in range(5):
        recent.keep(settlement(number), 0, at(f"{number + 1}-0"))
    assert lost(recent) == ["rid-2", "rid-3", "rid-4"]


def test_the_bound_is_over_all_shards() -> None:
    recent = RecentSettlements(recent_max=3)
    for number in range(4):
        recent.keep(settlement(number), number % 2, at(f"{number + 1}-0"))
    assert (lost(recent, 0), lost(recent, 1)) == (["rid-2"], ["rid-1", "rid-3"])


def test_one_that_is_kept_again_has_its_new_place_and_is_the_newest() -> None:
    recent = RecentSettlements(recent_max=2)
    for number, stream_id in ((0, "1-0"), (1, "2-0"), (0, "9-0"), (2, "3-0")):
        recent.keep(settlement(number), 0, at(stream_id))
    assert lost(recent) == ["rid-0", "rid-2"]
    assert lost(recent, raised_at="3-0") == ["rid-0"]


def test_what_the_ledger_had_when_the_epoch_began_is_not_lost_in_the_order_of_streams() -> None:
    recent = RecentSettlements()
    for number, stream_id in enumerate(("9-0", "10-0", "10-2", "10-10")):
        recent.keep(settlement(number), 0, at(stream_id))
    assert lost(recent, raised_at="9-0") == ["rid-1", "rid-2", "rid-3"]
    assert lost(recent, raised_at="10-2") == ["rid-3"]
    assert lost(recent, raised_at="10-10") == []


def test_what_was_confirmed_in_the_running_epoch_is_not_lost() -> None:
    recent = RecentSettlements()
    recent.keep(settlement(0), 0, at("5-0", epoch=2))
    assert lost(recent, epoch=2) == []
    assert lost(recent, epoch=3) == ["rid-0"]


def test_of_epochs_before_the_last_nobody_can_tell_so_they_are_among_the_lost() -> None:
    recent = RecentSettlements()
    recent.keep(settlement(0), 0, at("5-0"))
    assert lost(recent, epoch=2, raised_at="9-0") == []
    assert lost(recent, epoch=3, raised_at="9-0") == ["rid-0"]


def test_another_shard_s_are_not_told() -> None:
    recent = RecentSettlements()
    recent.keep(settlement(0), 0, at("5-0"))
    assert lost(recent, shard=1) == []
