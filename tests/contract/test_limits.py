"""Every limit under concurrency: three gateways, each with connections of its own, one server.

A limit is never exceeded, and nothing is refused that still fits: of many calls at once exactly as
many are admitted as there is room for, and once some have ended, exactly so many more. The limits
of a minute depend on the server's clock, which every reply tells: so they are held against a plain
bucket that is filled at the same times, however fast or slow the machine is.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis

from gateway.adapters.redis_store.keys import account_keys, member_keys, tier_key
from gateway.adapters.redis_store.quota_store import RedisQuotaStore
from gateway.core.quota.entitle import Pack
from gateway.core.quota.reserve import Limits, ReserveAsk, ReserveCode, ReserveReply
from gateway.core.quota.settle import SettleReply
from tests.contract.quota_samples import (
    ENDS_MS,
    MEMBERS,
    PAYER,
    SHARD,
    SHARDS,
    STARTS_MS,
    Book,
    Bucket,
    ask,
    bring,
    open_store,
    payer_in,
    settlement,
)

GATEWAYS, CALLS, HOLD, HOLD_NANO_GBP = 3, 60, 150, 2_000
NEIGHBOUR = payer_in(SHARD, "neighbour")
PLENTY = 10**9


@dataclass
class Stand:
    """Three stores on one server; calls are numbered as they come."""

    stores: Sequence[RedisQuotaStore]
    client: redis.Redis
    asked: int = 0
    asks: dict[str, ReserveAsk] = field(default_factory=dict)

    def next_asks(self, wanted: Sequence[dict[str, Any]]) -> list[ReserveAsk]:
        """Calls of 150 tokens and 2,000 nano-GBP that take no less, but for what is wanted."""
        made = []
        for changes in wanted:
            self.asked += 1
            usual = {"output_least": 50, "prompt_nano_gbp": 1_000, "output_nano_gbp": 20}
            made.append(ask(self.asked, **{**usual, **changes}))
        self.asks |= {each.rid: each for each in made}
        return made

    async def reserve(self, asks: Sequence[ReserveAsk]) -> list[ReserveReply]:
        """All at once, by turns over the three gateways."""
        return await asyncio.gather(
            *(self.stores[n % GATEWAYS].reserve(each) for n, each in enumerate(asks))
        )

    async def end(self, asked: ReserveAsk, tokens: int | None, nano_gbp: int = 0) -> SettleReply:
        """Settle for these tokens; None releases."""
        ending = settlement(
            rid=asked.rid, payer=asked.payer, member=asked.member, tier=asked.tier,
            kind="release" if tokens is None else "settle", charged_tokens=tokens or 0,
            cost_nano_gbp=nano_gbp, limit_tokens=asked.limits.tokens,
            tier_period_start_ms=asked.limits.tier_period_start_ms,
        )  # fmt: skip
        return await (await self.stores[self.asked % GATEWAYS].settle(ending))

    def share(self, tokens: int, tier: str = "free") -> None:
        """Hand out a share of a capped tier, as the jobs do."""
        fields: dict[Any, Any] = {"e": 1, "p": STARTS_MS, "s": 0, "h": 0, "c": tokens, "r": 1}
        self.client.hset(tier_key(tier, SHARD), mapping=fields)

    def of_tier(self, tier: str = "free") -> list[int]:
        """What is settled and held of the tier here."""
        found: Any = self.client.hmget(tier_key(tier, SHARD), "s", "h")
        return [int(each) for each in found]


@pytest.fixture
async def stand(redis_url: str) -> AsyncIterator[Stand]:
    async with AsyncExitStack() as opened:
        stores = [
            (await opened.enter_async_context(open_store(redis_url))).store for _ in range(GATEWAYS)
        ]
        client = opened.enter_context(redis.Redis.from_url(redis_url))
        yield Stand(stores, client)


@dataclass(frozen=True)
class Case:
    """A limit with room for `fits` holds and some change, and what refuses the others.

    Once the first hold was released and two settled for 60 tokens and 900 nano-GBP each (where
    there are so many), `more` fit.
    """

    name: str
    limits: Limits
    fits: int
    more: int
    refusal: ReserveCode
    members: tuple[str, ...] = ()
    payers: tuple[str, ...] = (PAYER,)
    packs: tuple[Pack, ...] = ()
    share: int | None = None


# Each settled call gives 90 tokens of its hold back, or 1,100 nano-GBP.
CASES = (
    Case("month", Limits(17 * HOLD + 149), 17, 3, ReserveCode.IN_FLIGHT),
    Case("month without change", Limits(17 * HOLD), 17, 2, ReserveCode.IN_FLIGHT),
    Case("the last token", Limits(HOLD), 1, 1, ReserveCode.IN_FLIGHT),
    Case(
        *("month and packs", Limits(10 * HOLD + 1), 15, 2, ReserveCode.IN_FLIGHT),
        packs=(Pack("one", 2 * HOLD, ENDS_MS), Pack("two", 3 * HOLD + 30, ENDS_MS)),
    ),
    Case(
        *("packs alone", Limits(0), 5, 2, ReserveCode.IN_FLIGHT),
        packs=(Pack("one", 80, ENDS_MS), Pack("two", 5 * HOLD - 80, ENDS_MS)),
    ),
    Case(
        *("packs that have ended", Limits(4 * HOLD), 4, 2, ReserveCode.IN_FLIGHT),
        packs=(Pack("over", 1_000_000, 2),),
    ),
    Case(
        *("member", Limits(PLENTY, member_tokens=7 * HOLD + 10), 7, 2, ReserveCode.IN_FLIGHT),
        members=("ann",),
    ),
    Case(
        *("team pool", Limits(16 * HOLD, member_tokens=12 * HOLD), 16, 2, ReserveCode.IN_FLIGHT),
        members=MEMBERS,
    ),
    Case(
        *("tier", Limits(PLENTY, tier_period_start_ms=STARTS_MS), 11, 2, ReserveCode.IN_FLIGHT),
        payers=(PAYER, NEIGHBOUR),
        share=11 * HOLD + 29,
    ),
    Case(
        *("budget", Limits(PLENTY, nano_gbp=13 * HOLD_NANO_GBP + 1_800), 13, 3),
        ReserveCode.IN_FLIGHT,
    ),
    Case("concurrent", Limits(PLENTY, concurrent=9), 9, 3, ReserveCode.CONCURRENT),
    Case(
        *("concurrent calls of a member", Limits(PLENTY, concurrent=9), 9, 3),
        ReserveCode.CONCURRENT,
        members=("ann",),
    ),
)


async def bring_all(stand: Stand, case: Case) -> list[dict[str, Any]]:
    """Bring the accounts; who calls, by turns."""
    for payer in case.payers:
        await bring(stand.stores[0], payer, packs=case.packs)
        for member in case.members:
            await bring(stand.stores[0], payer, member)
    if case.share is not None:
        stand.share(case.share)
    members = case.members or (None,)
    pairs = [(payer, member) for payer in case.payers for member in members]
    turns = [pairs[n % len(pairs)] for n in range(CALLS)]
    return [{"payer": payer, "member": member, "limits": case.limits} for payer, member in turns]


def admitted(asks: Sequence[ReserveAsk], replies: Sequence[ReserveReply]) -> list[ReserveAsk]:
    pairs = zip(asks, replies, strict=True)
    return [each for each, reply in pairs if reply.code is ReserveCode.HELD]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_of_many_at_once_exactly_those_that_fit_are_admitted(
    stand: Stand, case: Case
) -> None:
    calls = await bring_all(stand, case)
    asks = stand.next_asks(calls)
    replies = await stand.reserve(asks)
    codes = Counter(reply.code for reply in replies)
    assert codes == {ReserveCode.HELD: case.fits, case.refusal: CALLS - case.fits}

    first, *others = held = admitted(asks, replies)
    await stand.end(first, None)
    await asyncio.gather(*(stand.end(each, 60, 900) for each in others[:2]))
    asks = stand.next_asks(calls)
    more = admitted(asks, await stand.reserve(asks))
    assert len(more) == case.more

    await asyncio.gather(*(stand.end(each, None) for each in (*held[3:], *more)))
    for payer in case.payers:
        for member in (None, *case.members):
            seen = await stand.stores[0].snapshot(payer, member)
            assert seen is not None
            assert (seen.held_tokens, seen.open_holds) == (0, 0)
    if case.share is not None:
        assert stand.of_tier() == [60 * len(others[:2]), 0]


async def test_no_member_takes_of_what_another_may(stand: Stand) -> None:
    limits = Limits(PLENTY, member_tokens=7 * HOLD)
    case = Case("", limits, 21, 0, ReserveCode.MEMBER, members=MEMBERS)
    asks = stand.next_asks(await bring_all(stand, case))
    held = admitted(asks, await stand.reserve(asks))
    assert Counter(each.member for each in held) == dict.fromkeys(MEMBERS, 7)
    await asyncio.gather(*(stand.end(each, HOLD) for each in held))
    (reply,) = await stand.reserve(stand.next_asks([{"member": "bob", "limits": limits}]))
    assert reply.code is ReserveCode.MEMBER
    assert (reply.used_tokens, reply.held_tokens, reply.limit_tokens) == (7 * HOLD, 0, 7 * HOLD)


async def test_a_call_that_was_sent_through_all_gateways_holds_once(stand: Stand) -> None:
    await bring(stand.stores[0])
    asks = stand.next_asks([{"limits": Limits(4 * HOLD)}] * 20)
    replies = await stand.reserve([each for each in asks for _ in range(GATEWAYS)])
    codes = Counter(reply.code for reply in replies)
    assert codes[ReserveCode.HELD] == 4
    assert codes[ReserveCode.HELD_BEFORE] == 4 * (GATEWAYS - 1)


@pytest.mark.parametrize(
    ("limits", "refusal"),
    [
        (Limits(HOLD), ReserveCode.MONTH),
        (Limits(PLENTY, member_tokens=HOLD), ReserveCode.MEMBER),
        (Limits(PLENTY, tier_period_start_ms=STARTS_MS), ReserveCode.TIER),
        (Limits(PLENTY, nano_gbp=HOLD_NANO_GBP), ReserveCode.BUDGET),
    ],
)
async def test_what_is_used_up_is_called_by_its_name(
    stand: Stand, limits: Limits, refusal: ReserveCode
) -> None:
    case = Case("", limits, 1, 0, refusal, members=("ann",), share=HOLD)
    asks = stand.next_asks(await bring_all(stand, case))
    (held,) = admitted(asks, await stand.reserve(asks))
    await stand.end(held, 1, 1)  # a call that takes no less than all fits no more
    asks = stand.next_asks([{"member": "ann", "limits": limits}] * CALLS)
    replies = await stand.reserve(asks)
    assert {reply.code for reply in replies} == {refusal}
    assert all(reply.wait_ms == reply.period_end_ms - reply.now_ms for reply in replies)


async def test_a_capped_tier_without_a_share_here_has_nothing(stand: Stand) -> None:
    limits = Limits(PLENTY, tier_period_start_ms=STARTS_MS)
    case = Case("", limits, 0, 0, ReserveCode.TIER)
    asks = stand.next_asks(await bring_all(stand, case))
    stand.share(PLENTY, tier="another")
    assert {reply.code for reply in await stand.reserve(asks)} == {ReserveCode.TIER}


# --- the limits of a minute ---------------------------------------------------------------------


@dataclass(frozen=True)
class Minute:
    """A limit of ten calls a minute, and the field of its bucket."""

    limits: Limits
    field: str
    units: int
    limit: int
    refusal: ReserveCode


MINUTES = (
    Minute(Limits(PLENTY, requests_a_minute=10), "mr", 1, 10, ReserveCode.REQUESTS),
    Minute(Limits(PLENTY, tokens_a_minute=1_500), "mt", HOLD, 1_500, ReserveCode.TOKENS),
)


def rightly_admitted(bucket: Bucket, replies: Sequence[ReserveReply], units: int) -> int:
    """Equal calls, answered at these times: how many were admitted, all of them rightly."""
    total = 0
    for now_ms in sorted({reply.now_ms for reply in replies}):
        then = [reply for reply in replies if reply.now_ms == now_ms]
        held = [reply for reply in then if reply.code is ReserveCode.HELD]
        for _ in held:
            assert bucket.wait_ms(units, now_ms) == 0
            bucket.pour(units, now_ms)
        for reply in then:
            assert reply in held or reply.wait_ms == bucket.wait_ms(units, now_ms) > 0
        total += len(held)
    return total


@pytest.mark.parametrize("member", [None, "ann"])
@pytest.mark.parametrize("minute", MINUTES, ids=lambda minute: minute.field)
async def test_a_minute_s_limit_admits_exactly_what_a_plain_bucket_does(
    stand: Stand, minute: Minute, member: str | None
) -> None:
    members = (member,) if member else ()
    case = Case("", minute.limits, 10, 0, minute.refusal, members=members)
    calls, bucket = await bring_all(stand, case), Bucket(minute.limit)
    keys = member_keys(PAYER, member, SHARDS) if member else account_keys(PAYER, SHARDS)
    begun_ms, total = 0, 0
    for passed_ms in (0, 18_000, 6_000 - 1, 3_600_000):  # what a minute's bucket is told has passed
        if passed_ms:
            found: Any = stand.client.hget(keys.account, minute.field)
            level, at_ms = found.split()
            assert (int(level), int(at_ms)) == (bucket.level, bucket.at_ms)
            bucket.at_ms -= passed_ms
            stand.client.hset(keys.account, minute.field, f"{bucket.level} {bucket.at_ms}")
        asks = stand.next_asks(calls)
        replies = await stand.reserve(asks)
        begun_ms = begun_ms or min(reply.now_ms for reply in replies)
        begun_ms -= passed_ms
        total += rightly_admitted(bucket, replies, minute.units)
        seconds = (max(reply.now_ms for reply in replies) - begun_ms) / 1_000
        assert total <= 10 + 10 * seconds / 60
        codes = {reply.code for reply in replies}
        assert codes <= {ReserveCode.HELD, minute.refusal}
        held = admitted(asks, replies)
        await asyncio.gather(*(stand.end(each, 0) for each in held))  # which gives nothing back
    assert total >= 10 + 3 + 0 + 10


async def test_a_cap_is_lowered_to_what_a_minute_can_ever_take(stand: Stand) -> None:
    await bring(stand.stores[0])
    limits = Limits(PLENTY, tokens_a_minute=165)
    changes = {"limits": limits, "output_wanted": 1_000, "output_least": 20, "choices": 3}
    (asked,) = stand.next_asks([changes])
    (reply,) = await stand.reserve([asked])
    assert (reply.code, reply.output_tokens, reply.hold_tokens) == (ReserveCode.HELD, 21, 163)


# --- all limits at once -------------------------------------------------------------------------


Answered = tuple[ReserveAsk, ReserveReply]


def check_round(book: Book, answered: Sequence[Answered]) -> list[Answered]:
    """Each answer of a round is right at its place in the order that the replies tell.

    Grants are ordered by what the team holds after them; a refusal tells what it held then, but
    for MEMBER, which depends on nothing that changes within a round.
    """
    refused: dict[int, list[Answered]] = {}
    for asked, reply in answered:
        if reply.code is not ReserveCode.HELD:
            of_member = reply.code is ReserveCode.MEMBER
            held_then = book.team.held if of_member else reply.held_tokens
            refused.setdefault(held_then, []).append((asked, reply))
    grants = [each for each in answered if each[1].code is ReserveCode.HELD]
    grants.sort(key=lambda each: each[1].held_tokens)
    check_refusals(book, refused.pop(book.team.held, []))
    for asked, reply in grants:
        expected = (ReserveCode.HELD, reply.output_tokens, 0)
        assert book.judge(asked, reply.now_ms) == expected
        hold = asked.prompt_tokens + reply.output_tokens * asked.choices
        assert reply.hold_tokens == hold == reply.held_tokens - book.team.held
        book.hold(asked, reply)
        check_refusals(book, refused.pop(book.team.held, []))
    assert not refused
    return grants


def check_refusals(book: Book, refused: Sequence[Answered]) -> None:
    for asked, reply in refused:
        code, _, wait_ms = book.judge(asked, reply.now_ms)
        assert reply.code is code
        assert wait_ms in (0, reply.wait_ms)


def any_call(chance: random.Random, limits: Limits) -> dict[str, Any]:
    wanted = chance.randint(0, 300)
    return {
        "member": chance.choice(MEMBERS), "limits": limits, "choices": chance.randint(1, 3),
        "prompt_tokens": chance.randint(1, 200), "output_wanted": wanted,
        "output_least": chance.randint(0, min(wanted, 40)),
        "prompt_nano_gbp": chance.randint(0, 4_000), "output_nano_gbp": chance.randint(1, 40),
    }  # fmt: skip


# Limits that are met soon, and what they are called then; others are wide enough for some rounds.
TIGHT: dict[str, tuple[range, ReserveCode]] = {
    "tokens": (range(500, 2_000), ReserveCode.MONTH),
    "member_tokens": (range(300, 1_000), ReserveCode.MEMBER),
    "share": (range(500, 2_000), ReserveCode.TIER),
    "nano_gbp": (range(5_000, 25_000), ReserveCode.BUDGET),
    "concurrent": (range(1, 4), ReserveCode.CONCURRENT),
    "requests_a_minute": (range(3, 8), ReserveCode.REQUESTS),
    "tokens_a_minute": (range(800, 2_500), ReserveCode.TOKENS),
}
WIDE = {
    "tokens": range(15_000, 40_000), "member_tokens": range(5_000, 20_000),
    "share": range(15_000, 40_000), "nano_gbp": range(200_000, 600_000),
    "concurrent": range(8, 30), "requests_a_minute": range(40, 100),
    "tokens_a_minute": range(10_000, 30_000),
}  # fmt: skip


def any_limits(chance: random.Random, tight: str) -> tuple[Limits, int]:
    """Every limit, one of them tight; and the tier's share."""
    ranges = WIDE | {tight: TIGHT[tight][0]}
    found: dict[str, Any] = {name: chance.choice(choices) for name, choices in ranges.items()}
    share = found.pop("share")
    return Limits(**found, tier_period_start_ms=STARTS_MS), share


async def end_some(
    stand: Stand, book: Book, held: list[Answered], chance: random.Random
) -> list[Answered]:
    """End most of the holds at once, some for more than they held; those that are left."""
    chance.shuffle(held)
    ended, left = held[len(held) // 4 :], held[: len(held) // 4]
    endings = []
    for asked, reply in ended:
        some = chance.randint(0, reply.hold_tokens * 5 // 4)
        tokens = chance.choice([None, some, some, some])
        nano_gbp = chance.randint(0, 3_000) if tokens else 0
        book.end(asked, reply, tokens or 0, nano_gbp)
        endings.append(stand.end(asked, tokens, nano_gbp))
    await asyncio.gather(*endings)
    return left


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("tight", TIGHT)
async def test_under_all_limits_at_once_every_answer_is_that_of_plain_sums(
    stand: Stand, tight: str, seed: int
) -> None:
    chance = random.Random(f"{tight} {seed}")
    limits, share = any_limits(chance, tight)
    packs = tuple(Pack(f"p{n}", chance.randint(0, 500), ENDS_MS - n) for n in range(3))
    case = Case("", limits, 0, 0, TIGHT[tight][1], members=MEMBERS, packs=packs, share=share)
    await bring_all(stand, case)
    granted = sum(pack.tokens for pack in packs)
    book, held, met = Book(limits, granted, share), list[Answered](), Counter[ReserveCode]()
    for rounds in range(1, 100):
        asks = stand.next_asks([any_call(chance, limits) for _ in range(CALLS // 2)])
        answered = list(zip(asks, await stand.reserve(asks), strict=True))
        met.update(reply.code for _, reply in answered)
        held = await end_some(stand, book, held + check_round(book, answered), chance)
        if rounds >= 6 and met[case.refusal]:
            break
    assert met[case.refusal]
    assert met[ReserveCode.HELD]
    for member, sums in ((None, book.team), *book.members.items()):
        seen = await stand.stores[0].snapshot(PAYER, member)
        assert seen is not None
        assert (seen.settled_tokens, seen.cost_nano_gbp) == (sums.settled, sums.nano_gbp)
        assert (seen.held_tokens, seen.open_holds) == (sums.held, sums.open)
        paid = 0 if member else min(granted, max(0, sums.settled - limits.tokens))
        assert seen.from_packs == paid
    assert stand.of_tier() == [book.team.settled, book.team.held]
