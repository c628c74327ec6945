"""One payer with an account, what it asks and how it ends, for the tests of the quota store.

And the same kept in plain sums, to hold the answers of many calls at once against.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import redis.asyncio

from gateway.adapters.redis_store.calls import Calls, open_connections
from gateway.adapters.redis_store.clients import open_client
from gateway.adapters.redis_store.cluster_calls import ClusterCalls
from gateway.adapters.redis_store.cluster_jobs import ClusterLeases, ClusterStreams, JobNodes
from gateway.adapters.redis_store.fast_calls import FastCalls
from gateway.adapters.redis_store.leases import RedisLeases
from gateway.adapters.redis_store.nodes import Nodes
from gateway.adapters.redis_store.plain_calls import PlainCalls
from gateway.adapters.redis_store.quota_store import RedisQuotaStore
from gateway.adapters.redis_store.scripts import Script, load_scripts, lua_folder
from gateway.adapters.redis_store.streams import RedisStreams
from gateway.adapters.redis_store.topology import Topology
from gateway.adapters.redis_store.urls import is_cluster, node_urls
from gateway.core.event import UsageEvent, encode_event
from gateway.core.identity import shard_of
from gateway.core.quota.entitle import FinishCode, LedgerSums
from gateway.core.quota.reserve import Limits, ReserveAsk, ReserveCode, ReserveReply
from gateway.core.quota.settle import Correction, Settlement
from gateway.ports.quota_store import QuotaStore

PAYER, SHARDS = "somebody", 2
SHARD = shard_of(PAYER, SHARDS)
STARTS_MS, ENDS_MS = 1, 2**49  # a period that any clock is in
MEMBERS = ("ann", "bob", "cy")  # of the payer, where it is a team
MINUTE_MS = 60_000
SCRIPTS: Mapping[str, Script] = load_scripts(lua_folder())


def rid_of(number: int) -> str:
    return f"01a0b1c2-d3e4-7f00-8000-{number:012d}"


def payer_in(shard: int, name: str) -> str:
    """A payer of this shard whose id opens with `name`."""
    return next(f"{name}{n}" for n in range(99) if shard_of(f"{name}{n}", SHARDS) == shard)


def ask(number: int = 1, **changes: Any) -> ReserveAsk:
    """A hold of 150 tokens (100 of prompt, 50 of output) and, once there are prices, of money."""
    wanted: dict[str, Any] = {
        "rid": rid_of(number), "payer": PAYER, "tier": "free", "rev": 0,
        "period_start_ms": STARTS_MS, "period_end_ms": ENDS_MS, "limits": Limits(1_000_000),
        "prompt_tokens": 100, "output_wanted": 50, "output_least": 10, "choices": 1,
        "lease_ms": 60_000, "tail": b'{"payer":"somebody"}',
    }  # fmt: skip
    return ReserveAsk(**{**wanted, **changes})


async def reserve_lapsed(store: QuotaStore, asked: ReserveAsk) -> None:
    """Make a hold whose lease is over at once."""
    await store.reserve(asked)
    await store.extend(asked.payer, asked.rid, 0, lease_ms=0)


def settlement(number: int = 1, **changes: Any) -> Settlement:
    """A charge of 120 tokens."""
    rid = rid_of(number)
    wanted: dict[str, Any] = {
        "rid": rid, "payer": PAYER, "kind": "settle", "epoch": 1, "period_start_ms": STARTS_MS,
        "charged_tokens": 120, "cost_nano_gbp": 3_000, "event_json": b"", "tier": "free",
        "limit_tokens": 1_000_000,
    }  # fmt: skip
    wanted |= changes
    if wanted["kind"] != "release":
        wanted["event_json"] = encode_event(
            UsageEvent(
                event_id=rid, payer=wanted["payer"], tier=wanted["tier"],
                user_id=wanted.get("member") or wanted["payer"], route="chat", model="m",
                price_id="p", charged_tokens=wanted["charged_tokens"],
                cost_nano_gbp=wanted["cost_nano_gbp"], quality="measured", outcome="done",
            )
        )  # fmt: skip
    return Settlement(**wanted)


def correction(number: int = 9, **changes: Any) -> Correction:
    """Takes back a charge of 120 tokens, counted by the event `1-0`."""
    wanted: dict[str, Any] = {
        "rid": rid_of(number), "payer": PAYER, "tier": "free", "member": None, "epoch": 1,
        "stream_id": "1-0", "period_start_ms": STARTS_MS, "tier_period_start_ms": None,
        "charged_tokens": 120, "cost_nano_gbp": 3_000, "pack_split": (),
    }  # fmt: skip
    return Correction(**{**wanted, **changes})


async def bring(
    store: QuotaStore, payer: str = PAYER, member: str | None = None, **sums: Any
) -> None:
    """Open the payer's shard and bring the account, with these sums in the ledger."""
    await store.open_shard(shard_of(payer, SHARDS), 1, "0-0", 0, ())
    starts_ms, ends_ms = sums.pop("starts_ms", STARTS_MS), sums.pop("ends_ms", ENDS_MS)
    hydration = await store.hydrate_begin(payer, member, starts_ms, ends_ms)
    assert hydration is not None
    finish = await store.hydrate_finish(payer, member, hydration, ledger_sums(**sums))
    assert finish is FinishCode.FINISHED


def ledger_sums(**sums: Any) -> LedgerSums:
    """What the ledger says: nothing but what is named."""
    nothing: dict[str, Any] = {
        "settled_tokens": 0, "from_packs": 0, "adjusted_tokens": 0, "cost_nano_gbp": 0, "rev": 0
    }  # fmt: skip
    return LedgerSums(**{**nothing, **sums})


@dataclass(frozen=True)
class Opened:
    """A store and what it stands on. `seen` has the name of each script that was answered."""

    store: RedisQuotaStore
    calls: Calls
    seen: list[str]


KINDS: Mapping[str, type[FastCalls] | type[PlainCalls]] = {"fast": FastCalls, "plain": PlainCalls}


@asynccontextmanager
async def open_store(
    url: str, deadline_s: float = 10.0, client: str = "fast"
) -> AsyncIterator[Opened]:
    """The product's own store on a real server or cluster. The deadline is long unless it is
    tested."""
    seen: list[str] = []

    def calls_to(node: str) -> Calls:
        connections = open_connections(node, deadline_s)
        return KINDS[client](connections, deadline_s, lambda script, seconds: seen.append(script))

    async with AsyncExitStack() as stack:
        if is_cluster(url):
            topology = Topology(url, SHARDS)
            stack.push_async_callback(topology.aclose)
            await topology.refresh()
            nodes: Nodes[Calls] = Nodes(topology, calls_to, lambda each: each.aclose())
            calls: Calls = ClusterCalls(nodes, lambda each: each, deadline_s)
        else:
            calls = calls_to(url)
        stack.push_async_callback(calls.aclose)
        yield Opened(RedisQuotaStore(calls, SCRIPTS, SHARDS), calls, seen)


@dataclass(frozen=True)
class Jobs:
    """What the jobs read, and redis-py's client for what tests look at themselves."""

    client: Any
    streams: RedisStreams | ClusterStreams
    leases: RedisLeases | ClusterLeases


@asynccontextmanager
async def open_jobs(url: str, shards: int = SHARDS) -> AsyncIterator[Jobs]:
    """The jobs' side of a real server or cluster."""
    if not is_cluster(url):
        client = open_client(url)
        yield Jobs(client, RedisStreams(client, shards), RedisLeases(client, shards))
        await client.aclose()
        return
    topology = Topology(url, shards)
    await topology.refresh()
    nodes = JobNodes(topology, shards)
    async with redis.asyncio.RedisCluster.from_url(node_urls(url)[0]) as whole:
        yield Jobs(whole, ClusterStreams(nodes, shards), ClusterLeases(nodes, shards))
    await nodes.aclose()
    await topology.aclose()


@dataclass
class Bucket:
    """What a caller had within the last minute, in 60,000ths of a unit; None: no limit."""

    limit: int | None
    level: int = 0
    at_ms: int = 0

    def wait_ms(self, units: int, now_ms: int) -> int:
        """How long until so many units fit; 0 when they do."""
        if self.limit is None:
            return 0
        over = self._level_at(now_ms) + (units - self.limit) * MINUTE_MS
        return max(0, -(-over // self.limit))

    def pour(self, units: int, now_ms: int) -> None:
        self.level = self._level_at(now_ms) + units * MINUTE_MS
        self.at_ms = now_ms

    def _level_at(self, now_ms: int) -> int:
        return max(0, self.level - (self.limit or 0) * (now_ms - self.at_ms))


@dataclass
class Sums:
    """What one account has settled and holds."""

    settled: int = 0
    held: int = 0
    nano_gbp: int = 0
    held_nano_gbp: int = 0
    open: int = 0

    def hold(self, tokens: int, nano_gbp: int, open_holds: int) -> None:
        self.held += tokens
        self.held_nano_gbp += nano_gbp
        self.open += open_holds

    def charge(self, tokens: int, nano_gbp: int) -> None:
        self.settled += tokens
        self.nano_gbp += nano_gbp


class Book:
    """A team under every limit at once, kept in plain sums."""

    def __init__(self, limits: Limits, packs: int, share: int) -> None:
        self.limits, self.packs, self.share = limits, packs, share
        self.team = Sums()
        self.members = {member: Sums() for member in MEMBERS}
        self.requests = {member: Bucket(limits.requests_a_minute) for member in MEMBERS}
        self.tokens = {member: Bucket(limits.tokens_a_minute) for member in MEMBERS}

    def judge(self, asked: ReserveAsk, now_ms: int) -> tuple[ReserveCode, int, int]:
        """What the answer must be: code, output granted, and wait for a minute's limits."""
        limits, team, member = self.limits, self.team, self.members[asked.member or ""]
        of_tokens = (asked.prompt_tokens, asked.choices)
        of_money = (asked.prompt_nano_gbp, asked.choices * asked.output_nano_gbp)
        within_team = max(0, limits.tokens + self.packs - team.settled)
        rows = [
            (ReserveCode.MONTH, within_team, team.held, *of_tokens),
            (
                *(ReserveCode.MEMBER, (limits.member_tokens or 0) - member.settled, member.held),
                *of_tokens,
            ),
            (ReserveCode.TIER, self.share - team.settled, team.held, *of_tokens),
            (
                *(ReserveCode.BUDGET, (limits.nano_gbp or 0) - team.nano_gbp, team.held_nano_gbp),
                *of_money,
            ),
        ]
        for code, left, _, prompt, each in rows:
            if prompt + asked.output_least * each > left:
                return code, 0, 0
        fitting = [(left - held - prompt) // each for _, left, held, prompt, each in rows]
        if min(fitting) < asked.output_least:
            return ReserveCode.IN_FLIGHT, 0, 0
        if member.open >= (limits.concurrent or 0):
            return ReserveCode.CONCURRENT, 0, 0
        return self._judge_minute(asked, min(asked.output_wanted, *fitting), now_ms)

    def _judge_minute(
        self, asked: ReserveAsk, output: int, now_ms: int
    ) -> tuple[ReserveCode, int, int]:
        most = ((self.limits.tokens_a_minute or 0) - asked.prompt_tokens) // asked.choices
        output = min(output, max(most, asked.output_least))
        member = asked.member or ""
        if wait_ms := self.requests[member].wait_ms(1, now_ms):
            return ReserveCode.REQUESTS, 0, wait_ms
        tokens = asked.prompt_tokens + output * asked.choices
        if wait_ms := self.tokens[member].wait_ms(tokens, now_ms):
            return ReserveCode.TOKENS, 0, wait_ms
        return ReserveCode.HELD, output, 0

    def hold(self, asked: ReserveAsk, reply: ReserveReply) -> None:
        member = asked.member or ""
        for sums in (self.team, self.members[member]):
            sums.hold(reply.hold_tokens, reply.hold_nano_gbp, 1)
        self.requests[member].pour(1, reply.now_ms)
        self.tokens[member].pour(reply.hold_tokens, reply.now_ms)

    def end(self, asked: ReserveAsk, reply: ReserveReply, tokens: int, nano_gbp: int) -> None:
        for sums in (self.team, self.members[asked.member or ""]):
            sums.hold(-reply.hold_tokens, -reply.hold_nano_gbp, -1)
            sums.charge(tokens, nano_gbp)
