"""One payer with an account, what it asks and how it ends, for the tests of the quota store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from gateway.adapters.redis_store.calls import Calls, open_connections
from gateway.adapters.redis_store.quota_store import RedisQuotaStore
from gateway.adapters.redis_store.scripts import Script, load_scripts, lua_folder
from gateway.core.event import UsageEvent, encode_event
from gateway.core.identity import shard_of
from gateway.ports.quota_store import LedgerSums, QuotaStore, ReserveAsk, Settlement

PAYER, SHARDS = "somebody", 2
SHARD = shard_of(PAYER, SHARDS)
STARTS_MS, ENDS_MS = 1, 2**52  # a period that any clock is in
SCRIPTS: Mapping[str, Script] = load_scripts(lua_folder())


def rid_of(number: int) -> str:
    return f"01a0b1c2-d3e4-7f00-8000-{number:012d}"


def ask(number: int = 1, **changes: Any) -> ReserveAsk:
    """A hold of 150 tokens: 100 of prompt, 50 of output."""
    wanted: dict[str, Any] = {
        "rid": rid_of(number), "payer": PAYER, "rev": 0, "period_start_ms": STARTS_MS,
        "period_end_ms": ENDS_MS, "limit_tokens": 1_000_000, "prompt_tokens": 100,
        "output_wanted": 50, "output_least": 10, "multiplier": 1, "lease_ms": 60_000,
        "tail": b'{"payer":"somebody"}',
    }  # fmt: skip
    return ReserveAsk(**{**wanted, **changes})


def settlement(number: int = 1, **changes: Any) -> Settlement:
    """A charge of 120 tokens."""
    rid = rid_of(number)
    wanted: dict[str, Any] = {
        "rid": rid, "payer": PAYER, "kind": "settle", "epoch": 1, "period_start_ms": STARTS_MS,
        "charged_tokens": 120, "cost_nano_gbp": 3_000, "event_json": b"",
    }  # fmt: skip
    wanted |= changes
    if wanted["kind"] != "release":
        wanted["event_json"] = encode_event(
            UsageEvent(
                event_id=rid, payer=PAYER, user_id=PAYER, tier="free", route="chat", model="m",
                price_id="p", charged_tokens=wanted["charged_tokens"],
                cost_nano_gbp=wanted["cost_nano_gbp"], quality="measured", outcome="done",
            )
        )  # fmt: skip
    return Settlement(**wanted)


async def bring(store: QuotaStore, payer: str = PAYER, **sums: int) -> None:
    """Open the payer's shard and bring its account, with these sums in the ledger."""
    await store.open_shard(shard_of(payer, SHARDS), 1, "0-0")
    starts_ms, ends_ms = sums.pop("starts_ms", STARTS_MS), sums.pop("ends_ms", ENDS_MS)
    hydration = await store.hydrate_begin(payer, starts_ms, ends_ms)
    assert hydration is not None
    assert await store.hydrate_finish(payer, hydration, ledger_sums(**sums))


def ledger_sums(**sums: int) -> LedgerSums:
    """What the ledger says: nothing but what is named."""
    nothing = {"settled_tokens": 0, "adjusted_tokens": 0, "cost_nano_gbp": 0, "rev": 0}
    return LedgerSums(**{**nothing, **sums})


@dataclass(frozen=True)
class Opened:
    """A store and what it stands on. `seen` has the name of each script that was answered."""

    store: RedisQuotaStore
    calls: Calls
    seen: list[str]


@asynccontextmanager
async def open_store(url: str, deadline_s: float = 10.0) -> AsyncIterator[Opened]:
    """The product's own store on a real server. The deadline is long unless it is tested."""
    connections = open_connections(url, deadline_s)
    seen: list[str] = []
    calls = Calls(connections, deadline_s, lambda script, seconds: seen.append(script))
    yield Opened(RedisQuotaStore(calls, SCRIPTS, SHARDS), calls, seen)
    await connections.disconnect()
