"""What becomes of a delivery: sent, tried again, given up, or dropped because it is no news."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import groupby
from typing import Any

import pytest

from gateway.core.identity import Identity
from gateway.jobs.letters import ByMail, Letters
from gateway.jobs.news import News, NewsTerms
from gateway.jobs.send import Send, Sent
from gateway.ports.carrying import CarrierAway, NotNow, Undeliverable
from gateway.ports.deliveries import Ending
from gateway.ports.mail import Letter
from tests.fakes.clock import DAY_MS, HandClock
from tests.fakes.deliveries import CROSSING, LONDON, NOW_MS, START_MS, Listed
from tests.fakes.flow_rig import PLAN
from tests.fakes.metrics import SeenMetrics

HOUR_MS = DAY_MS // 24
NEWS = News(NewsTerms(PLAN, "https://quota.example", "https://up.example", "https://top.example"))
PACK = {"tokens": 320, "left_tokens": 60, "ends_ms": NOW_MS + DAY_MS}


class MailSeen:
    """Fulfils ports.mail.Mail; raises what `trouble` has for an address."""

    def __init__(self, **trouble: Exception) -> None:
        self.trouble, self.sent, self.rests = trouble, list[Letter](), 0

    async def send(self, letter: Letter) -> str:
        if error := self.trouble.get(letter.address.partition("@")[0]):
            raise error
        self.sent.append(letter)
        return "OK"

    async def rest(self) -> None:
        self.rests += 1


def letters() -> Letters:
    def link(user_id: str, kind: str) -> str:
        return f"https://quota.example/{kind}/{user_id}"

    return Letters(NEWS, link)


def sender(listed: Listed, mail: MailSeen, metrics: SeenMetrics, leads: bool = True) -> Send:
    carrier = ByMail(mail, letters())
    return Send(listed, carrier, metrics, HandClock(), lambda: leads)


async def told(listed: Listed, mail: MailSeen) -> tuple[float, SeenMetrics]:
    metrics = SeenMetrics()
    rest_s = await sender(listed, mail, metrics).step()
    return rest_s, metrics


async def test_what_is_due_is_sent_with_its_figures() -> None:
    listed, mail = Listed(CROSSING), MailSeen()
    _, metrics = await told(listed, mail)
    (letter,) = mail.sent
    assert letter.figures["used"] == "13,000"
    assert letter.figures["limit"] == "16,020"
    assert letter.figures["left"] == "3,340"  # with what is left of packs
    assert letter.figures["reset"] == "1 July 2026 at 00:00 (Europe/London)"
    assert letter.ways_on == (("Buy 320 tokens for £2.00", "https://top.example"),)
    assert letter.unsubscribe_url == "https://quota.example/crossing/ada"
    assert listed.ended == [(7, "sent", None)]
    assert metrics.of("notified") == [("crossing", "sent")]
    assert mail.rests == 1


def test_the_key_of_a_letter_is_that_of_its_repetition_and_no_other() -> None:
    again = replace(CROSSING, attempts=4, now_ms=NOW_MS + 5000, used_tokens=14_000)
    others = [
        replace(CROSSING, notification_id=8),
        replace(CROSSING, address="other@example.org"),
        replace(CROSSING, at_ms=CROSSING.at_ms + 1),  # of another database
    ]
    made = letters()
    assert made.of(again).key == made.of(CROSSING).key
    assert len({made.of(each).key for each in (CROSSING, *others)}) == 4


def test_the_links_fit_the_tier_and_a_member_has_none() -> None:
    made = letters()
    free = replace(CROSSING, identity=Identity("bob", "bob", "free", 1, LONDON))
    assert made.of(free).ways_on == (("Upgrade to lite", "https://up.example"),)
    member = replace(CROSSING, identity=Identity("eve", "crew", "full", 1, LONDON, member_rev=1))
    assert made.of(member).ways_on == ()
    gone = replace(CROSSING, identity=Identity("eve", "eve", "no such tier", 1, LONDON))
    assert made.of(gone).ways_on == ()


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"is_wanted": False}, "dropped"),
        ({"period_ms": START_MS - DAY_MS}, "dropped"),
        ({"at_ms": NOW_MS - 73 * HOUR_MS}, "dropped"),
        ({"kind": "pack_ends", "facts": PACK | {"ends_ms": NOW_MS}}, "dropped"),
        ({"kind": "pack_ends", "facts": PACK, "period_ms": START_MS - 90 * DAY_MS}, "sent"),
        ({"at_ms": NOW_MS - 47 * HOUR_MS}, "sent"),
    ],
)
async def test_what_is_no_news_is_dropped(changes: dict[str, Any], state: Ending) -> None:
    listed, mail = Listed(replace(CROSSING, **changes)), MailSeen()
    _, metrics = await told(listed, mail)
    assert [ended[1] for ended in listed.ended] == [state]
    assert [each[1] for each in metrics.of("notified")] == [state]
    assert len(mail.sent) == (state == "sent")


@pytest.mark.parametrize("trouble", [NotNow, CarrierAway])
async def test_what_fails_is_tried_at_growing_distances_for_48_hours(
    trouble: Callable[[str], Exception],
) -> None:
    pauses = []
    for attempts in (1, 2, 3, 8, 9, 60):
        listed = Listed(replace(CROSSING, attempts=attempts))
        await told(listed, MailSeen(ada=trouble("away")))
        pauses += [pause_s for _, pause_s in listed.later]
    assert pauses == [5, 10, 20, 640, 900, 900]
    last = Listed(replace(CROSSING, at_ms=NOW_MS - 48 * HOUR_MS))
    await told(last, MailSeen(ada=trouble("away")))
    assert last.ended == [(7, "dead", "away")]


async def test_a_refused_address_holds_up_nobody() -> None:
    bob = replace(CROSSING, notification_id=8, address="bob@example.org")
    eve = replace(CROSSING, notification_id=9, address="eve@example.org")
    listed = Listed(CROSSING, bob, eve)
    await told(listed, MailSeen(ada=Undeliverable("550 nobody"), bob=NotNow("450 busy")))
    assert listed.ended == [(7, "dead", "550 nobody"), (9, "sent", None)]
    assert listed.later == [(8, 5)]


async def test_while_nothing_can_be_sent_one_is_tried_and_the_rest_waits() -> None:
    listed = Listed(CROSSING, replace(CROSSING, notification_id=8))
    mail = MailSeen(ada=CarrierAway("refused"))
    rest_s, _ = await told(listed, mail)
    assert rest_s == 5.0
    assert len(listed.due) == 1
    assert mail.rests == 1


async def test_who_does_not_lead_sends_nothing_and_does_not_know_whether_it_could() -> None:
    listed, mail, metrics = Listed(CROSSING), MailSeen(), SeenMetrics()
    await sender(listed, mail, metrics, leads=False).step()
    assert (mail.sent, len(listed.due)) == ([], 1)
    assert set(metrics.of("way_away")) == {("mail", "", False)}


async def test_what_was_sent_last_and_whether_anything_can_be_sent_is_shown() -> None:
    listed, metrics = Listed(CROSSING), SeenMetrics()
    mail = MailSeen(ada=CarrierAway("connection refused"))
    send = sender(listed, mail, metrics)
    assert (send.last, send.away) == (None, None)
    await send.step()
    assert (send.last, send.away) == (None, "connection refused")
    listed.due, mail.trouble = [CROSSING], {}
    await send.step()
    assert send.last is not None
    assert send.last == Sent("crossing", send.last.at_ms)
    assert send.away is None
    shown = [is_away for _, _, is_away in metrics.of("way_away")]
    assert [is_away for is_away, _ in groupby(shown)] == [False, True, False]
