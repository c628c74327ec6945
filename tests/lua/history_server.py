"""A real server for histories: the store's own calls at the test's clock, and all that it keeps.

Calls go through the product's store, so that its arguments are told too; only the clock and the
connection are the test's. What the server keeps is read into the classes of the model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

import redis

from gateway.adapters.redis_store.calls import Args, Keys, Read, T, check_echo
from gateway.adapters.redis_store.keys import account_keys, member_keys, shard_keys, tier_key
from gateway.adapters.redis_store.plain_calls import PlainCalls
from gateway.adapters.redis_store.quota_store import RedisQuotaStore
from gateway.adapters.redis_store.scripts import Script, load_scripts
from gateway.adapters.redis_store.tier_shares import RedisTierShares
from gateway.core.event import LedgerRow, ledger_row, parse_script_part, parse_split
from gateway.core.quota.account import NOTHING_BEFORE, Account, PeriodBefore
from gateway.core.quota.endings import Expired, Kept, Mark, OpenHold
from gateway.core.quota.entitle import Pack
from gateway.core.quota.limits import TierShare
from gateway.core.quota.minute import EMPTY, Bucket
from gateway.core.quota.shard import Call, Event, Name, Shard
from tests.lua.account_fields import fields_of

SHARD, SHARDS = 0, 1
_NO_LOOP = asyncio.new_event_loop()  # a future wants one, also where nothing waits
_NO_LOOP.close()
_WITHOUT_CLOCK = ("caught_up", "extend", "snapshot")


def at_once(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")


class ClockCalls(PlainCalls):
    """The store's calls over one plain connection; each takes the test's clock."""

    def __init__(self, client: Any, now_ms: Callable[[], int]) -> None:
        self._client = client
        self._now_ms = now_ms

    async def run(
        self,
        script: Script,
        keys: Keys,
        args: Args,
        rid: str = "",
        read: Read[Any] | None = None,
    ) -> Any:
        if script.name not in _WITHOUT_CLOCK:
            args = [*args[:-1], self._now_ms()]
        reply = self._client.evalsha(script.sha, len(keys), *keys, *args)
        check_echo(reply, rid.encode())
        return read(reply) if read else reply

    async def send(
        self, script: Script, keys: Keys, args: Args, rid: str, read: Read[T]
    ) -> asyncio.Future[T]:
        reply = asyncio.Future[T](loop=_NO_LOOP)
        reply.set_result(await self.run(script, keys, args, rid, read))
        return reply


class HistoryServer:
    """One shard on a server of its own, whose scripts are read from `folder`."""

    def __init__(self, client: redis.Redis, folder: Path, names: Sequence[Name]) -> None:
        self.client: Any = client  # redis-py types each reply as one of sync and async
        self.now_ms = 0
        scripts = load_scripts(folder)
        for script in scripts.values():
            self.client.script_load(script.source)
        calls = ClockCalls(client, lambda: self.now_ms)
        self.store = RedisQuotaStore(calls, scripts, SHARDS)
        self.shares = RedisTierShares(calls, scripts["share"])
        self._keys = {
            name: account_keys(name[0], SHARDS) if name[1] is None
            else member_keys(name[0], name[1], SHARDS)
            for name in names
        }  # fmt: skip
        self._payers = {self._keys[name].name: name[0] for name in names}
        self._shard_keys = shard_keys(SHARD)

    def lose_everything(self) -> None:
        """An emptied server that takes the test's clock. Scripts stay known."""
        self.client.flushdb()
        self.client.hset(self._shard_keys.meta, "clock", "test")

    def extend(self, call: Call, progress_tokens: int, lease_ms: int) -> bool:
        """Its script knows only the server's clock: the lease is checked by that, and then moved
        to the test's."""
        before_ms = self._server_ms()
        done = at_once(self.store.extend(*call, progress_tokens, lease_ms))
        if done:
            leases, member = self._shard_keys.leases, self._keys[(call[0], None)].member(call[1])
            deadline_ms = self.client.zscore(leases, member)
            assert before_ms + lease_ms <= deadline_ms <= self._server_ms() + lease_ms
            self.client.zadd(leases, {member: self.now_ms + lease_ms})
        return bool(done)

    def forget_endings(self) -> None:
        """What the sweeper does with endings whose time is over."""
        endings = self._shard_keys.endings
        for member in self.client.zrangebyscore(endings, 0, self.now_ms):
            payer, rid = self._call(member)
            self.client.hdel(self._keys[(payer, None)].holds, rid)
            self.client.zrem(endings, member)

    def rows_past(self, cursor: str) -> list[LedgerRow]:
        """The outbox as the drain reads it."""
        found = self.client.xrange(self._shard_keys.outbox, f"({cursor}")
        return [ledger_row(SHARD, i.decode(), fields[b"e"], fields[b"b"]) for i, fields in found]

    def read(self, tiers: Sequence[str]) -> Shard:
        """All that the server keeps, in one step, in the words of the model."""
        keys, pipe = self._shard_keys, self.client.pipeline()
        pipe.hgetall(keys.meta)
        pipe.zrange(keys.leases, 0, -1, withscores=True)
        pipe.zrange(keys.endings, 0, -1, withscores=True)
        pipe.xrange(keys.outbox)
        for tier in tiers:
            pipe.hgetall(tier_key(tier, SHARD))
        for each in self._keys.values():
            pipe.hgetall(each.account)
            pipe.hgetall(each.packs)
            pipe.hgetall(each.holds)
        meta, leases, endings, outbox, *rest = pipe.execute()
        shard = Shard(int(meta.get(b"e", 0)), int(meta.get(b"u", 0)))
        shard.awaited = tuple(meta.get(b"w", b"").decode().split())
        shard.leases = {self._call(member): int(score) for member, score in leases}
        shard.forget_at = {self._call(member): int(score) for member, score in endings}
        shard.events = [
            Event(i.decode(), fields[b"e"], parse_script_part(fields[b"b"])) for i, fields in outbox
        ]
        shares, rest = rest[: len(tiers)], rest[len(tiers) :]
        shard.tiers = {tier: _share(text) for tier, text in zip(tiers, shares, strict=True) if text}
        for place, name in enumerate(self._keys):
            account, packs, holds = rest[3 * place : 3 * place + 3]
            if account:
                shard.accounts[name] = _account(account, packs)
            else:
                assert not packs, f"packs of {name} without an account"
            for rid, text in holds.items():
                shard.kept[(name[0], rid.decode())] = _kept(text)
        return shard

    def digest(self, name: Name) -> str:
        """How the server names an account."""
        return self._keys[name].name

    def _call(self, member: bytes) -> Call:
        account, rid = member.decode().split(" ", 1)
        return self._payers[account], rid

    def _server_ms(self) -> int:
        seconds, micros = self.client.time()
        return int(seconds * 1000 + micros // 1000)


def _share(found: Mapping[bytes, bytes]) -> TierShare:
    epoch, period, share, settled, held, is_whole = (
        int(found[key]) for key in (b"e", b"p", b"c", b"s", b"h", b"r")
    )
    round_number = int(found.get(b"t", 0))
    free = int(found.get(b"f", 0))
    return TierShare(epoch, period, share, settled, held, is_whole == 1, round_number, free)


def _account(stored: Mapping[bytes, bytes], packs: Mapping[bytes, bytes]) -> Account:
    found = fields_of(stored)

    def number(field: str) -> int:
        return int(found.get(field, 0))

    assert number("k") == len(packs)
    token = found.get("y")
    before = tuple(int(part) for part in found.get("l", b"").split())
    return Account(
        epoch=number("e"),
        starts_ms=number("ps"),
        ends_ms=number("pe"),
        since_id=found["b"].decode(),
        token=token.decode() if token is not None else None,
        rev=number("r"),
        settled=number("s"),
        from_packs=number("f"),
        adjusted=number("adj"),
        spent_nano_gbp=number("g"),
        held=number("h"),
        held_nano_gbp=number("gh"),
        open_holds=number("n"),
        events=number("q"),
        allowance=number("al"),
        warned_percent=number("w"),
        before=PeriodBefore(*before) if before else NOTHING_BEFORE,
        packs={key.decode(): _pack(key.decode(), text) for key, text in packs.items()},
        requests=_bucket(found.get("mr")),
        tokens=_bucket(found.get("mt")),
    )


def _bucket(text: bytes | None) -> Bucket:
    return EMPTY if text is None else Bucket(*(int(part) for part in text.split()))


def _pack(pack_id: str, text: bytes) -> Pack:
    left, ends_ms = text.split()
    return Pack(pack_id, int(left), int(ends_ms))


def _kept(text: bytes) -> Kept:
    state, *parts = text.split(b" ", 7)
    if state in (b"v", b"d"):
        return Mark(state.decode())
    if state == b"x":
        tokens, nano_gbp, hold, since = (int(part) for part in parts[:4])
        return Expired(tokens, nano_gbp, hold, since, parse_split(parts[4].decode()))
    output, hold, nano_gbp, period, since, progress = (int(part) for part in parts[:6])
    return OpenHold(
        output, hold, nano_gbp, period, since, parts[6], progress, is_orphan=state == b"o"
    )
