"""One run: a world, its clients, a schedule of faults; then healing, waiting, and the auditor.

Clocks decide nothing here: waits for what must come are generous, and what does not come in them is
a finding of its own. A run that finds something keeps all logs and says how to repeat it.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from gateway.adapters.prometheus_metrics import ProxyMetrics
from gateway.app.ledger_schema import prepare_ledger
from gateway.app.secrets_of_state import pepper_of
from gateway.app.stores import open_stores
from gateway.ports.tasks import spawn
from tests.chaos.auditor import audit
from tests.chaos.clients import Clients, User
from tests.chaos.findings import Verdict
from tests.chaos.gateways import DEADLINE_MS, DRAIN_S, GRACE_MS, LARGE, LARGE_TOKENS, SMALL
from tests.chaos.outside import Outside
from tests.chaos.records import ClientCall, Evidence, Terms
from tests.chaos.schedule import GATEWAYS, Fault, drawn
from tests.chaos.world import PRODUCT, World

SMALL_USERS, LARGE_USERS = 5, 5
# Tokens of a small allowance for each second of faults: it is used up before they end.
_SMALL_TOKENS_A_SECOND = 150
_LIVENESS_S = 120.0
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Order:
    """What to run. `keep`: the logs stay although nothing is found."""

    seed: int
    length_s: float
    entry: Sequence[str] = PRODUCT
    keep: bool = False


@dataclass(slots=True)
class Report:
    """What came of a run."""

    order: Order
    schedule: Sequence[Fault]
    verdict: Verdict = field(default_factory=Verdict)
    calls: Sequence[ClientCall] = ()
    served: int = 0
    rows: int = 0
    faults: int = 0
    silences: int = 0
    healed_s: float = 0.0
    logs: str = ""

    def summary(self) -> str:
        """In a few lines, good or bad."""
        answers = Counter(_answer(call) for call in self.calls)
        told = ", ".join(f"{count} x {what}" for what, count in answers.most_common() if count)
        delivered = sum(call.output_tokens for call in self.calls)
        lines = [
            f"seed {self.order.seed}: {len(self.verdict.findings)} findings; {self.faults} faults "
            f"in {self.order.length_s:g} s, all at rest {self.healed_s:.1f} s later",
            f"  {len(self.calls)} calls ({told})",
            f"  {delivered} tokens delivered, {self.served} calls served, {self.rows} entries",
            f"  nearest to the bound: {_named(self.verdict)}",
        ]
        if self.silences:
            lines.append(
                f"  a busy machine: without a fault Redis was silent {self.silences} times"
            )
        lines += [f"  excused: {count} x {name}" for name, count in self.verdict.excused.items()]
        return "\n".join(lines)

    def failure(self) -> str:
        """What was found, the schedule, where the logs are, and how to see it again."""
        minutes = f"{self.order.length_s / 60:.6g}"
        return "\n".join(
            [
                self.summary(),
                "findings:",
                *(f"  {finding}" for finding in self.verdict.findings),
                "schedule:",
                *(f"  {fault}" for fault in self.schedule),
                f"logs of all processes: {self.logs}",
                f"again: make chaos MINUTES={minutes} SEED={self.order.seed}",
            ]
        )


def run(order: Order) -> Report:
    """Run one seed, to be called from the main thread. Its directory stays when it is needed."""
    place = Path(tempfile.mkdtemp(prefix="qg-chaos-"))
    report = Report(order, drawn(order.seed, order.length_s), logs=str(place))
    try:
        asyncio.run(_run(report, place))
    except BaseException as error:
        error.add_note(report.failure())
        raise
    if not (report.verdict.findings or order.keep):
        shutil.rmtree(place, ignore_errors=True)
    return report


async def _run(report: Report, place: Path) -> None:
    order = report.order
    small_tokens = int(order.length_s * _SMALL_TOKENS_A_SECOND)
    world = World(place, small_tokens, order.entry)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(world.close)
        await world.start_stores()
        small, large = await _new_users(world)
        await world.start_gateways()
        outside = Outside(world)
        stack.push_async_callback(outside.close)
        watching = spawn(outside.watch(), "watch leases")
        stack.callback(watching.cancel)
        clients = Clients(world.gateways, [*small, *large], order.seed)
        stack.push_async_callback(clients.close)
        await clients.start()
        await _break(world, report)
        began_s = time.monotonic()
        clients.stop()
        stuck = await world.heal()
        await clients.ended()
        stuck += await clients.each_is_answered(_LIVENESS_S)
        await _all_at_rest(outside, world)
        report.healed_s = time.monotonic() - began_s
        limits = {user.user_id: small_tokens for user in small}
        limits |= {user.user_id: LARGE_TOKENS for user in large}
        evidence = await _evidence(outside, world, clients, limits)
        evidence.stuck = stuck
    clients.count()
    report.calls, report.served = clients.calls, len(evidence.served)
    report.rows, report.faults = len(evidence.rows), len(world.applied)
    report.silences = len(evidence.applied) - report.faults
    report.verdict = audit(evidence)
    _keep(evidence, place)


async def _new_users(world: World) -> tuple[list[User], list[User]]:
    settings = world.direct.settings
    await prepare_ledger(settings)
    async with open_stores(settings, ProxyMetrics(settings.models), "bench") as stores:
        accounts = stores.accounts(settings)

        async def made(user_id: str, tier: str) -> User:
            await accounts.create_user(user_id, tier)
            return User(user_id, (await accounts.create_key(user_id, pepper_of(settings))).key)

        return (
            [await made(f"small-{number}", SMALL) for number in range(SMALL_USERS)],
            [await made(f"large-{number}", LARGE) for number in range(LARGE_USERS)],
        )


async def _break(world: World, report: Report) -> None:
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    for fault in report.schedule:
        await asyncio.sleep(max(0.0, began_s + fault.at_s - loop.time()))
        world.befall(fault)
    await asyncio.sleep(max(0.0, began_s + report.order.length_s - loop.time()))


async def _all_at_rest(outside: Outside, world: World) -> None:
    """Returns once nothing waits on a disk, no hold is open and all is booked; what is left after
    long is a finding."""
    deadline_s = time.monotonic() + _LIVENESS_S
    while time.monotonic() < deadline_s:
        open_holds, undrained = await outside.open_holds(), await outside.undrained()
        if not (world.spilled() or open_holds or undrained):
            return
        await asyncio.sleep(_POLL_S)


async def _evidence(
    outside: Outside, world: World, clients: Clients, limits: dict[str, int]
) -> Evidence:
    redis = world.direct.settings.redis
    outage_tokens = 0 if redis.mode == "closed" else redis.outage_tokens
    return Evidence(
        terms=Terms(limits, GATEWAYS, outage_tokens, GRACE_MS / 1000, DEADLINE_MS / 1000, DRAIN_S),
        calls=clients.calls,
        served=await outside.served(),
        rows=await outside.rows(),
        accounts=await outside.accounts(list(limits)),
        applied=[*world.applied, *outside.silences],
        leases_s=outside.leases_s,
        gone_s=outside.gone_s,
        open_holds=await outside.open_holds(),
        undrained_shards=await outside.undrained(),
        dead_rows=await outside.dead_rows(),
        spilled=world.spilled(),
        verify=await outside.verify(),
    )


def _keep(evidence: Evidence, place: Path) -> None:
    """What was seen, beside the logs, for whoever looks for the cause."""
    with (place / "evidence.txt").open("w") as kept:
        for name in ("applied", "calls", "rows", "accounts"):
            kept.writelines(f"{each}\n" for each in getattr(evidence, name))
        kept.writelines(f"{rid} {served}\n" for rid, served in evidence.served.items())
        for seen in (evidence.leases_s, evidence.gone_s):
            kept.write(f"{json.dumps(seen)}\n")


def _answer(call: ClientCall) -> str:
    return f"{call.status} {call.code or call.decision}" if call.status else "no answer"


def _named(verdict: Verdict) -> str:
    return f"{verdict.nearest.user}, {verdict.nearest}" if verdict.nearest else "nobody"
