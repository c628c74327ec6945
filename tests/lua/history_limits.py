"""What must be true of a shard after a step, and after a call was granted, whatever came before.

The limits are those that the call named; what a shard keeps is read from the server, so that the
rules are not believed about themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gateway.core.event import LedgerRow
from gateway.core.quota.endings import OpenHold
from gateway.core.quota.reserve import ReserveAsk
from gateway.core.quota.shard import Call, Name, Shard
from tests.lua.history_steps import TIER, Known


def assert_every_limit_kept(seen: Shard, ask: ReserveAsk, now_ms: int) -> None:
    """After a grant: what is used and held lies within each limit of the call."""
    limits, payer = ask.limits, seen.accounts[(ask.payer, None)]
    if limits.shadow:
        return  # its holds are made whatever the limits say
    caller = seen.accounts[(ask.payer, ask.member)]
    packs = sum(each.tokens for each in payer.packs.values() if each.ends_ms > now_ms)
    assert payer.held <= max(0, limits.tokens - payer.used) + packs
    if ask.member and limits.member_tokens is not None:
        assert caller.used + caller.held <= limits.member_tokens
    if limits.nano_gbp is not None:
        assert payer.spent_nano_gbp + payer.held_nano_gbp <= limits.nano_gbp
    if limits.concurrent is not None:
        assert caller.open_holds <= limits.concurrent
    if limits.requests_a_minute is not None:
        assert caller.requests.level <= limits.requests_a_minute * 60_000
    if limits.tokens_a_minute is not None:
        assert caller.tokens.level <= limits.tokens_a_minute * 60_000
    share = seen.tiers.get(TIER)
    if limits.tier_period_start_ms is not None and share and share.epoch == seen.epoch:
        assert share.settled + share.held <= share.share


def assert_held_is_the_sum_of_holds(seen: Shard, name: Name, known: Mapping[Call, Known]) -> None:
    """Of an account and of its open holds, in tokens, money and number; `known` by the gateways."""
    (payer, member), account = name, seen.accounts[name]
    holds = [
        kept
        for call, kept in seen.kept.items()
        if isinstance(kept, OpenHold) and not kept.is_orphan and call[0] == payer
        and known[call].held_epoch == seen.epoch
        and member in (None, known[call].ask.member)
    ]  # fmt: skip
    assert (account.held, account.held_nano_gbp, account.open_holds) == (
        sum(hold.tokens for hold in holds), sum(hold.nano_gbp for hold in holds), len(holds),
    )  # fmt: skip


def assert_tier_is_the_sum_of_events(seen: Shard, rows: Sequence[LedgerRow]) -> None:
    """A share has settled what calls of its period were charged: in its epoch, and in all before
    once it is whole. Before that it has nothing to give."""
    found = seen.share(TIER, 0)
    if found is None or TIER not in seen.tiers or found.epoch != seen.tiers[TIER].epoch:
        return
    counted = [row for row in rows if row.tier_period_start_ms == found.period_ms]
    if not found.is_whole:
        assert found.share == 0
        counted = [row for row in counted if row.epoch == seen.epoch]
    assert found.settled == sum(row.charged_tokens for row in counted)
