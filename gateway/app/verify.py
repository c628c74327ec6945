"""`ledger verify`: do Redis, the ledger and (with the stand-in) the upstream agree, user by user?

Redis and ledger are compared at one moment of the account (`flow.agreement`); what is left of packs
is compared once all is booked. The upstream is compared call by call: what it reported must be what
was booked. Calls that nobody could measure (a client that left, a gateway that died) are counted
apart, with what they differ by.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from gateway.adapters.postgres.reports import Charge
from gateway.app.stores import Stores
from gateway.ports.quota_store import StoreUnavailable

_POLL_S, _BOOKED_WITHIN_S = 0.05, 10.0
_CHARGES_ROWS = 5000
_NOBODY = "anonymous"  # what the stand-in calls the user of a request that names none


@dataclass(slots=True)
class UserLine:
    """One user's figures, in tokens. `redis_off`, `packs_off` (what is left of packs) and
    `upstream_off` are differences that must be 0; `unmeasured_off` is upstream minus ledger over
    calls nobody could measure."""

    user: str
    tier: str
    ledger_tokens: int = 0
    redis_off: int = 0
    packs_off: int = 0
    upstream_tokens: int = 0
    upstream_off: int = 0
    unmeasured_calls: int = 0
    unmeasured_off: int = 0


@dataclass(slots=True)
class Verdict:
    """The whole comparison. `unbooked_calls`: the upstream served them, no row has them.
    `pack_faults`: where packs, refunds and entries of the ledger contradict each other."""

    lines: list[UserLine] = field(default_factory=list)
    open_holds: int = 0
    unbooked_calls: int = 0
    pack_faults: list[str] = field(default_factory=list)
    compared_upstream: bool = False

    @property
    def agrees(self) -> bool:
        """True when nothing differs that must not."""
        return (
            not self.unbooked_calls
            and not self.pack_faults
            and all(
                line.redis_off == 0 and line.packs_off == 0 and line.upstream_off == 0
                for line in self.lines
            )
        )


async def verify(stores: Stores, upstream: str | None, wait_s: float) -> Verdict:
    """Compare now, or as soon as no hold is open, at most `wait_s` later.

    StoreUnavailable when the ledger does not catch up with the outbox in that time.
    """
    loop = asyncio.get_running_loop()
    until_s = loop.time() + wait_s
    verdict = Verdict()
    while True:
        verdict.open_holds = await _count_holds(stores)
        if not verdict.open_holds or loop.time() >= until_s:
            break
        await asyncio.sleep(_POLL_S)
    for identity in await stores.directory.users():
        line = UserLine(identity.user_id, identity.tier)
        line.redis_off, line.packs_off = await _redis_off(stores, identity.payer, until_s)
        verdict.lines.append(line)
    verdict.pack_faults = list(await stores.reports.pack_faults())
    served = await _served(upstream) if upstream else None
    verdict.compared_upstream = served is not None
    await _compare_calls(stores, verdict, served or {})
    return verdict


async def _count_holds(stores: Stores) -> int:
    total = 0
    for shard in range(stores.leases.shards):
        total += await stores.leases.count(shard)
    return total


async def _redis_off(stores: Stores, payer: str, until_s: float) -> tuple[int, int]:
    """How much Redis and the ledger differ about one account: its tokens at the snapshot's moment,
    and what is left of its packs, once what was spent of them is booked. What a job is about to
    project is waited for."""
    loop = asyncio.get_running_loop()
    while True:
        off = await stores.agreement.difference(payer, until_s + _BOOKED_WITHIN_S)
        if off is None:
            raise StoreUnavailable(
                "the ledger has not caught up with the outbox: is the jobs process running?"
            )
        if not (off.used_tokens or off.packs_tokens) or loop.time() >= until_s:
            return off.used_tokens, off.packs_tokens
        await asyncio.sleep(_POLL_S)


async def _served(upstream: str) -> dict[str, dict[str, Any]]:
    """What the stand-in says it served, by request id."""
    url = upstream.rstrip("/").removesuffix("/v1") + "/stand-in/served"
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            calls = (await response.json())["calls"]
    except (aiohttp.ClientError, OSError, KeyError, ValueError) as error:
        raise StoreUnavailable(
            f"{url} does not answer as the stand-in does ({type(error).__name__})"
        ) from error
    return dict(calls)


async def _compare_calls(
    stores: Stores, verdict: Verdict, served: Mapping[str, Mapping[str, Any]]
) -> None:
    lines = {line.user: line for line in verdict.lines}
    booked: dict[str, _Booked] = {}
    after: str | None = None
    while charges := await stores.reports.charges(after, _CHARGES_ROWS):
        after = charges[-1].event_id
        for charge in charges:
            lines.setdefault(charge.user_id, UserLine(charge.user_id, "?"))
            lines[charge.user_id].ledger_tokens += charge.charged_tokens
            booked.setdefault(charge.rid, _Booked(charge.user_id)).add(charge)
    for rid, call in served.items():
        tokens, known = int(call["prompt_tokens"]) + int(call["completion_tokens"]), booked.get(rid)
        if known is None:
            verdict.unbooked_calls += tokens > 0
        else:
            _compare(lines[known.user], known, tokens, str(call["user"]))
    verdict.lines = sorted(lines.values(), key=lambda line: line.user)


@dataclass(slots=True)
class _Booked:
    """The rows of one call. A measured correction makes an estimate exact."""

    user: str
    tokens: int = 0
    measured: bool = False

    def add(self, charge: Charge) -> None:
        self.tokens += charge.charged_tokens
        self.measured = self.measured or charge.quality == "measured"


def _compare(line: UserLine, booked: _Booked, tokens: int, served_user: str) -> None:
    line.upstream_tokens += tokens
    if served_user not in (_NOBODY, line.user):  # served on behalf of one, booked on another
        line.upstream_off += tokens
    elif booked.measured:
        line.upstream_off += tokens - booked.tokens
    else:
        line.unmeasured_calls += 1
        line.unmeasured_off += tokens - booked.tokens
