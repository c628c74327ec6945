"""A refusal for quota is noted once in a process, for whoever's quota it was; nothing else is."""

from __future__ import annotations

import asyncio

import pytest
from msgspec import structs

from gateway.core.hold import Caller, Hold
from gateway.core.identity import Identity
from gateway.core.models import Weights
from gateway.core.period import Calendar
from gateway.core.pricing import Price
from gateway.core.quota.reserve import ReserveCode, ReserveReply
from gateway.core.refusal import Refused
from gateway.flow.first_refusals import FirstRefusals
from gateway.flow.quota_refusal import quota_refusal
from tests.fakes.answer import RecordedAnswer
from tests.fakes.flow_rig import TERMS, flow_rig, until
from tests.fakes.notices import SeenNotices

ADA = Identity("ada", "crew", "free", 7, Calendar(1, "UTC"), member_rev=3)
REPLY = ReserveReply(ReserveCode.MONTH, 0, 0, 0, 992, 0, 1000, 0, 0, 5, 9, 6, 3, 7, 3, 1)


async def test_who_is_refused_at_99_2_percent_is_noted_once_with_the_figures() -> None:
    async with flow_rig() as rig:
        key = await rig.user()
        await rig.accounts.set_used("ada", 992, "set up", "tests")
        for _ in range(3):
            with pytest.raises(Refused):
                await rig.exchange.run(rig.call(key), RecordedAnswer())
        await until(lambda: rig.notices.seen)
        (told,) = rig.notices.seen
        assert (told.user_id, told.payer) == ("ada", "ada")
        assert told.period_start_ms == rig.period.start_ms
        assert told.facts["used_tokens"] == 992
        assert told.facts["limit_tokens"] == 1000


async def test_a_call_that_no_quota_could_take_is_no_news() -> None:
    async with flow_rig() as rig:
        key = await rig.user()
        call = rig.call(key, messages=[{"role": "user", "content": "x" * 1001}])
        with pytest.raises(Refused):
            await rig.exchange.run(call, RecordedAnswer())
        await asyncio.sleep(0)
        assert rig.notices.seen == []


def refusal(code: ReserveCode) -> Refused:
    caller = Caller("ada", "crew", "free", Calendar(1, "UTC"))
    hold = Hold("rid", caller, "chat", "m", False, Price("p", 0, 0, 0), Weights(), 12, 100, 1)
    return quota_refusal(structs.replace(REPLY, code=code), hold, 16, TERMS)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (ReserveCode.MONTH, ["crew"]),
        (ReserveCode.MEMBER, ["ada"]),
        (ReserveCode.IN_FLIGHT, []),
        (ReserveCode.TIER, []),
        (ReserveCode.CONCURRENT, []),
    ],
)
async def test_whose_quota_it_was_is_told(code: ReserveCode, told: list[str]) -> None:
    notices = SeenNotices()
    FirstRefusals(notices).note(refusal(code), ADA, REPLY)
    for _ in range(3):
        await asyncio.sleep(0)
    assert [each.user_id for each in notices.seen] == told


async def test_another_revision_is_noted_anew() -> None:
    notices = SeenNotices()
    refusals = FirstRefusals(notices)
    for rev in (3, 3, 4):
        refusals.note(refusal(ReserveCode.MONTH), ADA, structs.replace(REPLY, rev=rev))
    await until(lambda: len(notices.seen) == 2)


async def test_what_the_ledger_could_not_take_is_noted_when_it_is_back() -> None:
    notices = SeenNotices()
    notices.away = 2
    FirstRefusals(notices).note(refusal(ReserveCode.MONTH), ADA, REPLY)
    await until(lambda: notices.seen)
    assert len(notices.seen) == 1
