"""The scripts, called as they are, with every argument under its name.

The clock is the tests' own: each shard opened here says `clock = test` in its meta hash, which is
the only place where a script takes the time from its caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import redis

from gateway.adapters.redis_store.keys import AccountKeys, answer_key, member_keys, tier_key
from gateway.adapters.redis_store.scripts import load_scripts, lua_folder
from gateway.core.event import LedgerRow, UsageEvent, encode_event, ledger_row
from tests.lua.account_fields import fields_of, with_changes

DAY_MS = 86_400_000
NOW_MS = 1_800_000_000_000
STARTS_MS, ENDS_MS = NOW_MS - DAY_MS, NOW_MS + 29 * DAY_MS
FAR_MS = 10**15 - 1  # later than anything
LEASE_MS, GRACE_MS = 60_000, 10_000
TAIL = '{"payer":"somebody","note":"with spaces"}'

ANSWER_KEY = answer_key("somebody", "once", 1)
RID = "01a0b1c2-d3e4-7f00-8000-000000000001"

Value = str | bytes | int | float


class Reserved(NamedTuple):
    """What reserve answers."""

    code: int
    rid: str
    output: int
    hold: int
    hold_cost: int
    used: int
    held: int
    limit: int
    packs: int
    spent: int
    starts: int
    ends: int
    now: int
    wait: int
    rev: int
    caller_rev: int
    epoch: int
    spared: int = 0


class Settled(NamedTuple):
    """What settle answers."""

    code: int
    rid: str
    used: int
    held: int
    limit: int
    crossed: int
    from_allowance: int
    from_packs: int
    overdraft: int
    stream_id: str
    epoch: int


class Hydrated(NamedTuple):
    """What hydrate answers."""

    code: int
    token: str
    stream_id: str
    epoch: int
    starts: int


class Seen(NamedTuple):
    """What snapshot answers of an account in force."""

    code: int
    settled: int
    from_packs: int
    adjusted: int
    held: int
    open: int
    cost: int
    starts: int
    ends: int
    rev: int
    epoch: int
    stream_id: str
    packs: str


# Each script's arguments in their order, with values that pass. `lease_member` follows the rid.
ARGUMENTS: Mapping[str, Mapping[str, Value]] = {
    "reserve": {
        "rid": RID, "lease_member": "", "rev": 0, "caller_rev": 0, "starts": STARTS_MS,
        "ends": ENDS_MS, "prompt": 100, "wanted": 50, "least": 10, "choices": 1,
        "prompt_cost": 0, "output_cost": 0, "lease": LEASE_MS, "limit": 100_000,
        "member_limit": "", "tier_starts": "", "budget": "", "concurrent": "", "requests": "",
        "tokens": "", "shadow": "", "tail": TAIL, "now": NOW_MS,
    },
    "settle": {
        "rid": RID, "lease_member": "", "kind": "settle", "epoch": 1, "period": STARTS_MS,
        "charge": 120, "cost": 3_000, "grace": GRACE_MS, "limit": 100_000, "ends": 0,
        "tier_starts": "", "thresholds": "", "event": "", "now": NOW_MS,
    },
    "reassert": {
        "rid": RID, "lease_member": "", "epoch": 1, "period": STARTS_MS, "output": 50, "hold": 150,
        "cost": 0, "progress": 0, "lease": LEASE_MS, "tier_starts": "", "tail": TAIL, "now": NOW_MS,
    },
    "keep": {"rid": RID, "mark": "", "instead": "", "lives": 9_000},
    "correct": {
        "rid": "back", "lease_member": "", "epoch": 1, "stream_id": "0-0", "period": STARTS_MS,
        "charge": 120, "cost": 3_000, "tier_starts": "", "split": "-", "now": NOW_MS,
    },
    "extend": {"rid": RID, "lease_member": "", "progress": 0, "lease": LEASE_MS},
    "hydrate": {
        "step": "begin", "starts": STARTS_MS, "ends": ENDS_MS, "token": "", "settled": 0,
        "from_packs": 0, "adjusted": 0, "cost": 0, "rev": 0, "packs": "", "now": NOW_MS,
    },
    "entitle": {
        "rev": 1, "starts": STARTS_MS, "ends": ENDS_MS, "adjusted": 0, "packs": "", "now": NOW_MS,
    },
    "forget": {"now": NOW_MS},
    "open": {
        "epoch": 1, "shards": 1, "schema": 3, "cursor": "0-0", "quiet": 0, "awaited": "",
        "now": "",
    },
    "caught_up": {"epoch": 1, "gateway": "g1"},
    "snapshot": {},
    "share": {
        "round": 1, "starts": STARTS_MS, "epoch": "", "earlier": "", "wanted": "", "free": "",
        "now": NOW_MS,
    },
}  # fmt: skip


# Arguments that travel as one text, with single spaces between them: their first and their last.
_JOINED = {
    "reserve": (("rev", "limit"), ("member_limit", "shadow")),
    "settle": (("epoch", "ends"),),
    "reassert": (("epoch", "lease"),),
}


def _sent(name: str, args: Mapping[str, Value]) -> list[Value]:
    """The arguments in their order, those joined that travel together."""
    names, sent = list(ARGUMENTS[name]), [args[each] for each in ARGUMENTS[name]]
    for first, last in reversed(_JOINED.get(name, ())):
        begin, end = names.index(first), names.index(last) + 1
        sent[begin:end] = [" ".join(str(value) for value in sent[begin:end])]
    return sent


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
    """One shard and one account on the server; each script is a method.

    With `member` the calls are those of a member, who has an account beside the payer's.
    """

    def __init__(
        self, client: redis.Redis, keys: AccountKeys, member: AccountKeys | None = None
    ) -> None:
        self.client: Any = client  # redis-py types each reply as one of sync and async
        self.keys = keys
        shard = keys.of_shard
        meta, account, holds, packs = shard.meta, keys.account, keys.holds, keys.packs
        self.tier = tier_key("free", keys.shard)
        by = () if member is None else (member.account,)
        self._script_keys = {
            "reserve": (meta, account, holds, shard.leases, packs, self.tier, *by),
            "settle": (
                *(meta, account, holds, shard.leases, shard.outbox, shard.endings, packs),
                *(self.tier, *by),
            ),
            "reassert": (meta, account, holds, shard.leases, self.tier, *by),
            "correct": (meta, account, holds, shard.endings, packs, self.tier, *by),
            "extend": (holds, shard.leases),
            "hydrate": (meta, account, packs, shard.outbox, holds),
            "entitle": (meta, account, packs),
            "forget": (meta, account, packs),
            "open": (meta, shard.outbox),
            "caught_up": (meta,),
            "snapshot": (meta, account, packs, shard.outbox),
            "keep": (ANSWER_KEY,),
            "share": (meta, self.tier, shard.outbox),
        }
        self._shas = {
            name: self.client.script_load(script.source)
            for name, script in load_scripts(lua_folder()).items()
        }

    def by(self, member: str) -> Lua:
        """The same account, called by this member of it."""
        return Lua(self.client, self.keys, member_keys("somebody", member, 1))

    def of(self, member: str) -> Lua:
        """The account of this member, which holds nothing itself."""
        of_member = Lua(self.client, member_keys("somebody", member, 1))
        of_member._script_keys["hydrate"] = of_member._script_keys["hydrate"][:4]
        return of_member

    def keys_of(self, name: str) -> tuple[str, ...]:
        return self._script_keys[name]

    def run(self, name: str, **changes: Value) -> list[Any]:
        """Run a script with its usual arguments but for `changes`."""
        args = {**ARGUMENTS[name], **changes}
        assert args.keys() == ARGUMENTS[name].keys(), f"{name} has no such argument: {changes}"
        if "lease_member" in args:
            args["lease_member"] = self.keys.member(str(args["rid"]))
        keys = self._script_keys[name]
        reply = self.client.evalsha(self._shas[name], len(keys), *keys, *_sent(name, args))
        return [item.decode() if isinstance(item, bytes) else item for item in reply]

    def reserve(self, rid: Value = RID, **changes: Value) -> Reserved:
        return Reserved(*self.run("reserve", rid=rid, **changes))

    def reassert(self, rid: Value = RID, **changes: Value) -> int:
        code, echo, now = self.run("reassert", rid=rid, **changes)
        assert (echo, now) == (str(rid), int(changes.get("now", NOW_MS)))
        return int(code)

    def settle(self, rid: Value = RID, **changes: Value) -> Settled:
        args = {**ARGUMENTS["settle"], **changes}
        if "event" not in changes:
            changes["event"] = event_of(str(rid), int(args["charge"]), int(args["cost"]))
        return Settled(*self.run("settle", rid=rid, **changes))

    def correct(self, rid: Value = "back", **changes: Value) -> int:
        code, echo = self.run("correct", rid=rid, **changes)
        assert echo == str(rid)
        return int(code)

    def extend(self, rid: Value = RID, **changes: Value) -> list[Any]:
        return self.run("extend", rid=rid, **changes)

    def hydrate(self, step: str, **changes: Value) -> Hydrated:
        return Hydrated(*self.run("hydrate", step=step, **changes))

    def entitle(self, **changes: Value) -> tuple[int, int]:
        """Code and revision; the time is the tests' own."""
        code, rev, now = self.run("entitle", **changes)
        assert now == int(changes.get("now", NOW_MS))
        return int(code), int(rev)

    def forget(self, now: Value = NOW_MS) -> int:
        return int(self.run("forget", now=now)[0])

    def keep(self, mark: Value, instead: Value, lives: Value = 9_000) -> int:
        """What `RID` has under its idempotency key becomes `instead`."""
        code, echo = self.run("keep", mark=mark, instead=instead, lives=lives)
        assert echo == RID
        return int(code)

    def snapshot(self) -> Seen:
        return Seen(*self.run("snapshot"))

    # What a test sets up, and what it looks at.

    def open(self, epoch: int = 1) -> None:
        """A shard that takes the tests' clock."""
        self.client.hset(
            self.keys.of_shard.meta, mapping={"e": epoch, "n": 1, "v": 3, "clock": "test"}
        )

    def bring(self, **sums: Value) -> None:
        """The account, hydrated with these sums."""
        token = self.hydrate("begin", starts=sums.get("starts", STARTS_MS),
                             ends=sums.get("ends", ENDS_MS)).token  # fmt: skip
        assert self.hydrate("finish", token=token, **sums).code == 3

    def share(self, tokens: int, epoch: int = 1) -> None:
        """What this shard may give of the tier's cap."""
        self.client.hset(self.tier, mapping={"e": epoch, "c": tokens, "r": 1})

    def account(self, *fields: str) -> list[int]:
        """These fields of the account, as numbers; one that is missing is 0."""
        found = fields_of(self.client.hgetall(self.keys.account))
        return [int(found.get(field, 0)) for field in fields]

    def put(self, **fields: Value) -> None:
        """Change these fields of the account, whatever a script would say to it."""
        stored = self.client.hgetall(self.keys.account)
        self.client.hset(self.keys.account, mapping=with_changes(stored, fields))

    def token(self) -> str:
        """The token of an account that is being hydrated."""
        return fields_of(self.client.hgetall(self.keys.account)).get("y", b"gone").decode()

    def last_period(self) -> tuple[int, ...]:
        """The period before: its start, used, allowance."""
        found = self.client.hget(self.keys.account, "l") or b"0 0 0"
        return tuple(int(part) for part in found.split(b" "))

    def tier_sums(self, *fields: str) -> list[int]:
        return [int(value or 0) for value in self.client.hmget(self.tier, fields)]

    def packs(self) -> dict[str, int]:
        """What is left of each pack."""
        found = self.client.hgetall(self.keys.packs)
        return {name.decode(): int(value.split(b" ")[0]) for name, value in found.items()}

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

    def spoil(self, name: str, place: int) -> None:
        """Put a text where the script's key number `place` (from 0) is."""
        self.client.delete(self._script_keys[name][place])
        self.client.set(self._script_keys[name][place], "text")

    def everything(self) -> dict[bytes, bytes]:
        """All that is on the server, to compare byte for byte."""
        return {key: self.client.dump(key) for key in self.client.scan_iter()}
