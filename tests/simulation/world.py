"""One run of a simulated world: its schedule played, its faults healed, its books judged.

Same seed, same run. After the schedule nothing fails any more; the world gets time to come to rest,
every user calls once through every gateway, and then the verdict is given.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import Any

from gateway.core.identity import Identity
from gateway.core.period import Calendar
from gateway.core.quota.shard import FIRST_ID, Shard, is_past
from gateway.core.refusal import Case, Refused
from gateway.flow.accounts import project
from gateway.ports.directory import Adjustment, PackCredit
from gateway.ports.ledger import LedgerUnavailable
from gateway.ports.quota_store import StoreUnavailable
from gateway.ports.tasks import spawn
from tests.fakes.flow_rig import PLAN
from tests.simulation.auditor import Auditor
from tests.simulation.calls import CallRecord, SimClient
from tests.simulation.loop import Process, StandsStill, VirtualLoop
from tests.simulation.network import DOUBLE_WITHIN_S, Air, Weather
from tests.simulation.processes import (
    Ground,
    Parts,
    SimClock,
    SimGateway,
    accounts_of,
    begin,
    live_jobs,
)
from tests.simulation.record import Record
from tests.simulation.schedule import ALONE, MEMBERS, USERS, CallPlan, Event, Schedule, schedule_of
from tests.simulation.server import SHARDS, SimServer
from tests.simulation.verdict import judge

_REST_S, _LOOK_S = 60.0, 0.5
_LAST_CALLS_S = 0.5
_THAW_S = 0.02  # in which a server that was frozen runs all that waited for it
_SOUND = Parts()


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `broken` is empty when every promise was kept; for `excused` see Auditor."""

    seed: int
    broken: list[str]
    excused: list[str]
    trace: list[tuple[Any, ...]]
    calls: int
    virtual_s: float

    def story(self) -> str:
        """The trace, a line for each thing that happened."""
        return "\n".join(
            f"{at_s:9.4f} " + " ".join(str(part) for part in what) for at_s, *what in self.trace
        )


class _Errors(logging.Handler):
    """Errors that the product logs: a task that failed, a settlement that was rejected."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


def run_world(seed: int, parts: Parts = _SOUND) -> Outcome:
    """The whole life of the world of this seed."""
    schedule = schedule_of(seed)
    loop = VirtualLoop(Random(f"order {seed}") if schedule.shuffle else None)
    logger, errors = logging.getLogger("gateway"), _Errors()
    level = logger.level
    logger.setLevel(logging.ERROR)
    logger.addHandler(errors)
    propagate, logger.propagate = logger.propagate, False
    try:
        world = _World(loop, seed, schedule, parts)
        broken = world.auditor.broken
        try:
            loop.run_until_complete(world.play())
            judge(world.auditor, world.calls)
        except StandsStill as error:
            broken.append(f"I12: the world stands still: {error}")
        broken += [f"logged: {said}" for said in errors.said]
        broken += [f"untaken: {said}" for said in loop.complaints]
        trace, virtual_s = list(world.air.trace), loop.time()
        loop.run_until_complete(_bury(world.air))
        loop.close()
    finally:
        logger.removeHandler(errors)
        logger.setLevel(level)
        logger.propagate = propagate
    return Outcome(seed, broken, world.auditor.excused, trace, len(world.calls), virtual_s)


class _World:
    def __init__(self, loop: VirtualLoop, seed: int, schedule: Schedule, parts: Parts) -> None:
        self._schedule = schedule
        self._chance = Random(f"air {seed}")
        self.air = Air(loop, self._chance)
        self._loop = loop
        self.server = SimServer(lambda: schedule.begin_ms + int(loop.time() * 1000))
        self.record = Record()
        self.auditor = Auditor(self.server, self.record, self.air.note)
        self.calls: dict[str, CallRecord] = {}
        self._ground = Ground(
            self.air, self.server, self.record, self.auditor, parts, self.calls, schedule.begin_ms
        )
        self._gateways: list[SimGateway] = []
        self._jobs = Process("jobs.0")
        self._lives = 0
        self._saved = self.server.saved()
        self._running: list[asyncio.Task[None]] = []
        self._make_users()

    def _make_users(self) -> None:
        directory, calendar = self.record.directory, Calendar(PLAN.anchor_day, PLAN.zone)
        for user, payer, tier in [
            *((user, user, tier) for user, tier in USERS.items()),
            *((user, payer, USERS[payer]) for user, payer in MEMBERS.items()),
        ]:
            directory.people[user] = Identity(user, payer, tier, 1, calendar)
            directory.keys[user.encode()] = user

    async def play(self) -> None:
        """The schedule, the healing, the rest, and a last call of everybody."""
        for number in range(self._schedule.gateways):
            self._gateways.append(self._begin_gateway(number))
        self._begin_jobs()
        happenings: list[tuple[float, CallPlan | Event]] = [
            *((call.at_s, call) for call in self._schedule.calls),
            *((event.at_s, event) for event in self._schedule.events),
        ]
        for at_s, what in sorted(happenings, key=lambda each: each[0]):
            await asyncio.sleep(at_s - self._loop.time())
            if isinstance(what, CallPlan):
                self._call(what)
            else:
                self._befall(what)
        await asyncio.sleep(self._schedule.heal_s - self._loop.time())
        self._heal()
        await self._rest()
        last = []
        for number, user in enumerate((*USERS, *MEMBERS)):
            plan = CallPlan(0, user, number % len(self._gateways), "whole", 40, 1, (1,), 0.01, 0)
            last.append((self._call(plan), user))
        await asyncio.sleep(_LAST_CALLS_S + DOUBLE_WITHIN_S)
        await self._rest()
        for record, user in last:
            self._was_served(record, user)

    # --- who lives ------------------------------------------------------------------------------

    def _begin_gateway(self, number: int) -> SimGateway:
        self._lives += 1
        process = Process(f"g{number}.{self._lives}")
        gateway = SimGateway(self._ground, process, self._schedule.skews_ms[number])
        begin(process, lambda: spawn(gateway.live(), f"life of {process.name}"))
        return gateway

    def _begin_jobs(self) -> None:
        self._lives += 1
        self._jobs = Process(f"jobs.{self._lives}")
        begin(self._jobs, lambda: spawn(live_jobs(self._ground), f"life of {self._jobs.name}"))

    def _call(self, plan: CallPlan) -> CallRecord | None:
        gateway = self._gateways[plan.gateway]
        if gateway.process.dead or not gateway.is_ready:
            return None  # nobody listens
        record = CallRecord(gateway.next_rid(), plan, gateway.process)
        self.calls[record.rid] = record
        self.air.note(gateway.process.name, "call", record.rid, plan)
        begin(gateway.process, lambda: spawn(self._exchange(gateway, record), "call"))
        return record

    async def _exchange(self, gateway: SimGateway, record: CallRecord) -> None:
        exchange, call = gateway.call_for(record)
        try:
            await exchange.run(call, SimClient(record))
        except Refused as refused:
            record.refused = refused
        record.has_ended = True
        self.air.note(gateway.process.name, "ended", record.rid, record.refused)

    def _was_served(self, record: CallRecord | None, user: str) -> None:
        """With everything in order, only the quota may refuse."""
        if record is None:
            self.auditor.breach(f"I12: nobody listens to {user} in health")
        elif record.refused and record.refused.case is Case.QUOTA_BACKEND_UNAVAILABLE:
            self.auditor.breach(f"I12: {record.rid} is refused in health: {record.refused.message}")

    # --- what befalls it ------------------------------------------------------------------------

    def _befall(self, event: Event) -> None:
        self.air.note("fate", event.what, event.number, event.weather)
        server = self.server
        match event.what:
            case "redis weather":
                server.weather = event.weather or Weather()
            case "postgres weather":
                self.record.weather = event.weather or Weather()
            case "freeze":
                server.frozen = True
            case "thaw":
                self._thaw()
            case "save":
                self._saved = server.saved()
            case "restart" | "go back" | "empty":
                saved = {"restart": None, "go back": self._saved}.get(
                    event.what, [Shard() for _ in range(SHARDS)]
                )
                before = [model.shard for model in server.models]
                server.restart(saved, event.number)
                self.auditor.restarted(before)
            case "kill":
                self._gateways[event.number].process.dead = True
            case "start":
                self._gateways[event.number] = self._begin_gateway(event.number)
            case "kill jobs":
                self._jobs.dead = True
            case "start jobs":
                self._begin_jobs()
            case _:
                begin(Process("operator"), lambda: spawn(self._operate(event), event.what))

    def _thaw(self) -> None:
        self.server.frozen = False
        waiting, self.server.waiting = self.server.waiting, []
        for command in waiting:
            self._loop.befall(self._chance.random() * _THAW_S, command.happen)

    async def _operate(self, event: Event) -> None:
        accounts, stores = accounts_of(self._ground)
        clock = SimClock(self._ground, 0)
        user = self._chance.choice(ALONE)
        period = Calendar(PLAN.anchor_day, PLAN.zone).period_at(self.server.now_ms())
        name = f"op-{event.what}-{event.number}"
        try:
            if event.what == "tier":
                await accounts.set_tier(user, self._chance.choice(tuple(PLAN.tiers)))
            elif event.what == "pack":
                credit = PackCredit(name, user, name, 320, 2**52, name, "op")
                identity = await stores.directory.credit_pack(credit)
                await project(identity, stores.directory, stores.store, clock)
            else:
                tokens = self._chance.randrange(-200, 200)
                adjustment = Adjustment(name, user, period.start_ms, tokens, "", "op")
                identity = await stores.directory.adjust(adjustment)
                await project(identity, stores.directory, stores.store, clock)
        except (StoreUnavailable, LedgerUnavailable):
            pass  # the job will project it

    # --- the end --------------------------------------------------------------------------------

    def _heal(self) -> None:
        self.air.note("fate", "heals")
        self.server.weather = Weather()
        self.record.weather = Weather()
        self._thaw()

    async def _rest(self) -> None:
        """Until nothing is open, unconfirmed or unbooked; a breach when that does not come."""
        until_s = self._loop.time() + _REST_S
        while restless := list(self._restless()):
            if self._loop.time() > until_s:
                self.auditor.breach(f"I12: no rest after {_REST_S:.0f} s: {'; '.join(restless)}")
                return
            await asyncio.sleep(_LOOK_S)

    def _restless(self) -> Iterable[str]:
        for gateway in self._gateways:
            if not gateway.is_ready:
                yield f"{gateway.process.name} is not up"
            if gateway.is_comparing:  # whoever calls then waits for it
                yield f"{gateway.process.name} compares the server"
            if gateway.unconfirmed:
                yield f"{gateway.process.name} has {gateway.unconfirmed} settlements unconfirmed"
        for call in self.calls.values():
            if not call.has_ended and not call.gateway.dead:
                yield f"{call.rid} runs"
        for number, model in enumerate(self.server.models):
            if model.shard.leases:
                yield f"shard {number} has leases"
            if model.shard.quiet_until_ms > self.server.now_ms():
                yield f"shard {number} waits for a gateway that died"
            cursor = self.record.cursors.get(number)
            reached = cursor.stream_id if cursor else FIRST_ID
            if model.shard.events and is_past(model.shard.events[-1].stream_id, reached):
                yield f"shard {number} is not drained"


async def _bury(air: Air) -> None:
    """End what is left: the killed, and those who would go on for ever. A task that is collected
    while it waits has its coroutine closed in disorder; so each is cancelled, in an air in which
    nothing happens any more."""
    air.loop.revive()
    air.over = True
    me = asyncio.current_task()
    while left := [task for task in asyncio.all_tasks() if task is not me]:
        for task in left:
            task.cancel()
        await asyncio.wait(left)
