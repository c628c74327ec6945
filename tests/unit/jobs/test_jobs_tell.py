"""Who finds news and deals it out: one gateway at a time, every second, searching every minute."""

from __future__ import annotations

from dataclasses import replace

from gateway.core.period import Calendar
from gateway.jobs.letters import ByMail
from gateway.jobs.tell import Tell
from gateway.ports.deliveries import Cap
from tests.fakes.clock import HandClock
from tests.fakes.deliveries import Listed
from tests.fakes.flow_rig import PLAN


async def test_news_are_dealt_each_second_and_looked_for_each_minute() -> None:
    listed, clock = Listed(), HandClock()
    tell = Tell(listed, [ByMail.way], PLAN, clock)
    assert (tell.leads, tell.lately_ms) == (False, None)
    for _ in range(3):
        clock.pass_s(await tell.step())
    assert (listed.found, listed.dealt) == (1, 3)
    assert tell.leads
    assert tell.lately_ms == clock.now_ms() - 1000
    clock.pass_s(60)
    await tell.step()
    assert listed.found == 2


async def test_caps_of_tiers_are_those_of_the_plans_period() -> None:
    capped = replace(PLAN.tiers["free"], tier_tokens=500)
    plan = replace(PLAN, tiers={**PLAN.tiers, "free": capped})
    listed, clock = Listed(), HandClock()
    await Tell(listed, [ByMail.way], plan, clock).step()
    period = Calendar(plan.anchor_day, plan.zone).period_at(clock.now_ms())
    assert listed.caps == [Cap("free", 500, period)]


async def test_who_has_not_the_lock_does_nothing() -> None:
    listed = Listed(leads=False)
    tell = Tell(listed, [ByMail.way], PLAN, HandClock())
    assert await tell.step() == 5.0
    assert (listed.found, listed.dealt, tell.leads, tell.lately_ms) == (0, 0, False, None)
