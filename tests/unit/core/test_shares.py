"""How a cap is split among shards: what is planned never comes to more than the cap."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given
from msgspec import structs

from gateway.core.quota.shares import (
    ShareCode,
    ShareReply,
    affordable,
    free_of,
    wanted,
)

amounts = st.integers(0, 2_000)
replies = st.builds(
    ShareReply, code=st.just(ShareCode.STANDS), epoch=st.just(1), share_tokens=amounts,
    settled_tokens=st.integers(-50, 2_000), held_tokens=amounts, stream_id=st.just("0-0"),
    now_ms=st.just(0),
)  # fmt: skip
shards = st.lists(replies, min_size=1, max_size=9).map(lambda each: dict(enumerate(each)))


def taken(stands: dict[int, ShareReply]) -> int:
    return sum(each.taken_tokens for each in stands.values())


def become(reply: ShareReply, tokens: int) -> ShareReply:
    """What the script makes of a wish."""
    return structs.replace(reply, share_tokens=max(tokens, reply.used_tokens))


@given(cap=st.integers(0, 9_000), stands=shards, number=st.integers(1, 99), data=st.data())
def test_a_round_never_brings_the_shares_beyond_the_cap(
    cap: int, stands: dict[int, ShareReply], number: int, data: st.DataObject
) -> None:
    before = taken(stands)
    plan = wanted(cap, stands, number)
    assert not plan.lowered.keys() & plan.raised.keys()
    for shard, tokens in plan.lowered.items():
        if data.draw(st.booleans()):  # it held more meanwhile, and gives up less
            stands[shard] = structs.replace(
                stands[shard], held_tokens=stands[shard].held_tokens + data.draw(amounts)
            )
            stands[shard] = structs.replace(stands[shard], share_tokens=stands[shard].taken_tokens)
            continue
        stands[shard] = become(stands[shard], tokens)
    lowered = taken(stands)
    for shard, tokens in affordable(plan.raised, cap, stands).items():
        stands[shard] = become(stands[shard], tokens)
    assert taken(stands) <= max(cap, lowered)
    assert all(each.share_tokens >= 0 for each in stands.values())
    assert free_of(cap, stands) >= 0 <= before


@given(number=st.integers(1, 99), settled=st.integers(0, 500))
def test_all_that_is_free_is_shared_out_and_one_shard_has_more_than_half(
    number: int, settled: int
) -> None:
    nothing = ShareReply(ShareCode.STANDS, 1, 0, settled, 0, "0-0", 0)
    stands = dict.fromkeys(range(4), nothing)
    raised = affordable(wanted(10_000, stands, number).raised, 10_000, stands)
    assert sum(raised.values()) == 10_000
    assert raised[number % 4] - settled > (10_000 - 4 * settled) // 2
