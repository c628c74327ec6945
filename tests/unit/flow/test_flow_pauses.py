"""Pauses end by themselves, or all at once when there is news."""

from __future__ import annotations

import asyncio

import pytest

from gateway.core.hold import Ending
from gateway.core.usage import Usage
from gateway.flow import settlements
from gateway.flow.pauses import Pauses
from gateway.ports.tasks import spawn
from tests.fakes.flow_rig import FlowRig, until

_NEVER_S = 3600.0


async def test_news_ends_every_pause_that_has_begun_and_no_later_one() -> None:
    pauses = Pauses()
    resting = [spawn(pauses.rest(_NEVER_S), "rest", awaited=True) for _ in range(3)]
    await asyncio.sleep(0)
    pauses.end()
    assert await asyncio.gather(*resting) == [True] * 3
    assert await pauses.rest(0.001) is False


async def test_settlements_are_sent_again_as_soon_as_the_store_is_back(
    rig: FlowRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settlements, "_FIRST_PAUSE_S", _NEVER_S)
    hold = (await rig.admission.admit(rig.call(await rig.user()))).hold
    rig.store.away = True
    before = rig.store.asked.count("settle")
    await rig.settlements.settle(hold, Ending(Usage(20, 0, 30, 0), "measured", "done", 200))
    await until(lambda: rig.store.asked.count("settle") >= before + 2)  # the second one rests
    rig.store.away = False
    rig.settlements.pauses.end()
    await rig.settled()
    (row,) = await rig.rows()
    assert (row.event_id, row.charged_tokens) == (hold.rid, 50)
