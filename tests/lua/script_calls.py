"""The scripts, called as they are, with every argument under its name.

The clock is the tests' own: each shard opened here says `clock = test` in its meta hash, which is
the only place where a script takes the time from its caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import redis

from gateway.adapters.redis_store.keys import AccountKeys
from gateway.adapters.redis_store.scripts import load_scripts, lua_folder
from gateway.core.event import LedgerRow, UsageEvent, encode_event, ledger_row

DAY_MS = 86_400_000
NOW_MS = 1_800_000_000_000
STARTS_MS, ENDS_MS = NOW_MS - DAY_MS, NOW_MS + 29 * DAY_MS
LEASE_MS, GRACE_MS = 60_000, 10_000
TAIL = '{"payer":"somebody","note":"with spaces"}'

RID = "01a0b1c2-d3e4-7f00-8000-000000000001"

Value = str | bytes | int | float


class Reserved(NamedTuple):
    """What reserve answers."""

    code: int
    rid: str
    output: int
    hold: int
    used: int
    held: int
    limit: int
    packs: int
    starts: int
    ends: int
    now: int
    rev: int
    epoch: int


class Settled(NamedTuple):
    """What settle answers."""

    code: int
    rid: str
    used: int
    held: int
    limit: int
    overdraft: int
    stream_id: str


class Hydrated(NamedTuple):
    """What hydrate answers."""

    code: int
    token: str
    stream_id: str
    epoch: int
    starts: int


# Each script's arguments in their order, with values that pass.
ARGUMENTS: Mapping[str, Mapping[str, Value]] = {
    "reserve": {
        "rid": RID, "member": "", "rev": 0, "starts": STARTS_MS, "ends": ENDS_MS,
        "limit": 100_000, "prompt": 100, "wanted": 50, "least": 10, "choices": 1,
        "lease": LEASE_MS, "tail": TAIL, "now": NOW_MS,
    },
    "settle": {
        "rid": RID, "member": "", "kind": "settle", "epoch": 1, "period": STARTS_MS,
        "charge": 120, "cost": 3_000, "grace": GRACE_MS, "event": "", "now": NOW_MS,
    },
    "extend": {"rid": RID, "member": "", "progress": 0, "lease": LEASE_MS},
    "hydrate": {
        "step": "begin", "starts": STARTS_MS, "ends": ENDS_MS, "token": "",
        "settled": 0, "adjusted": 0, "cost": 0, "rev": 0, "now": NOW_MS,
    },
    "entitle": {"rev": 1, "starts": STARTS_MS, "ends": ENDS_MS, "adjusted": 0},
    "open": {"epoch": 1, "shards": 1, "schema": 1, "cursor": "0-0"},
    "snapshot": {},
}  # fmt: skip


def event_of(rid: str, charge: int, cost: int) -> bytes:
    """The event a gateway sends along with a charge."""
    return encode_event(
        UsageEvent(
            event_id=rid, payer="somebody", user_id="somebody", tier="free", route="chat",
            model="m", price_id="p", charged_tokens=charge, cost_nano_gbp=cost,
            quality="measured", outcome="done",
        )
    )  # fmt: skip


class Lua:
    """One shard and one account on the server; each script is a method."""

    def __init__(self, client: redis.Redis, keys: AccountKeys) -> None:
        self.client: Any = client  # redis-py types each reply as one of sync and async
        self.keys = keys
        shard = keys.of_shard
        meta, account, holds = shard.meta, keys.account, keys.holds
        self._script_keys = {
            "reserve": (meta, account, holds, shard.leases),
            "settle": (meta, account, holds, shard.leases, shard.outbox, shard.endings),
            "extend": (holds, shard.leases),
            "hydrate": (meta, account, holds, shard.outbox),
            "entitle": (meta, account),
            "open": (meta, shard.outbox),
            "snapshot": (meta, account, shard.outbox),
        }
        self._shas = {
            name: self.client.script_load(script.source)
            for name, script in load_scripts(lua_folder()).items()
        }

    def keys_of(self, name: str) -> tuple[str, ...]:
        return self._script_keys[name]

    def run(self, name: str, **changes: Value) -> list[Any]:
        """Run a script with its usual arguments but for `changes`."""
        args = {**ARGUMENTS[name], **changes}
        assert args.keys() == ARGUMENTS[name].keys(), f"{name} has no such argument: {changes}"
        if "member" in args:
            args["member"] = self.keys.member(str(args["rid"]))
        keys = self._script_keys[name]
        reply = self.client.evalsha(self._shas[name], len(keys), *keys, *args.values())
        return [item.decode() if isinstance(item, bytes) else item for item in reply]

    def reserve(self, rid: Value = RID, **changes: Value) -> Reserved:
        return Reserved(*self.run("reserve", rid=rid, **changes))

    def settle(self, rid: Value = RID, **changes: Value) -> Settled:
        args = {**ARGUMENTS["settle"], **changes}
        if args["kind"] != "release" and "event" not in changes:
            changes["event"] = event_of(str(rid), int(args["charge"]), int(args["cost"]))
        return Settled(*self.run("settle", rid=rid, **changes))

    def extend(self, rid: Value = RID, **changes: Value) -> list[Any]:
        return self.run("extend", rid=rid, **changes)

    def hydrate(self, step: str, **changes: Value) -> Hydrated:
        return Hydrated(*self.run("hydrate", step=step, **changes))

    def entitle(self, **changes: Value) -> list[Any]:
        return self.run("entitle", **changes)

    # What a test sets up, and what it looks at.

    def open(self, epoch: int = 1) -> None:
        """A shard that takes the tests' clock."""
        self.client.hset(self.keys.of_shard.meta, mapping={"e": epoch, "n": 1, "v": 1})
        self.client.hset(self.keys.of_shard.meta, "clock", "test")

    def bring(self, **sums: Value) -> None:
        """The account, hydrated with these sums."""
        token = self.hydrate("begin", starts=sums.get("starts", STARTS_MS),
                             ends=sums.get("ends", ENDS_MS)).token  # fmt: skip
        assert self.hydrate("finish", token=token, **sums).code == 3

    def account(self, *fields: str) -> list[int]:
        """These fields of the account, as numbers."""
        return [int(value) for value in self.client.hmget(self.keys.account, fields)]

    def hold(self, rid: str = RID) -> str | None:
        value = self.client.hget(self.keys.holds, rid)
        return None if value is None else str(value.decode())

    def lease(self, rid: str = RID) -> float | None:
        score = self.client.zscore(self.keys.of_shard.leases, self.keys.member(rid))
        return None if score is None else float(score)

    def kept_until(self, rid: str = RID) -> float | None:
        score = self.client.zscore(self.keys.of_shard.endings, self.keys.member(rid))
        return None if score is None else float(score)

    def rows(self) -> list[LedgerRow]:
        """The outbox as the drain reads it."""
        return [
            ledger_row(0, stream_id.decode(), fields[b"e"], fields[b"b"])
            for stream_id, fields in self.client.xrange(self.keys.of_shard.outbox)
        ]

    def everything(self) -> dict[bytes, bytes]:
        """All that is on the server, to compare byte for byte."""
        return {key: self.client.dump(key) for key in self.client.scan_iter()}
