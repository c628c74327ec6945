"""What becomes of a delivery: sent, tried again, given up, or dropped because it is no news."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from gateway.core.identity import Identity
from gateway.core.period import Calendar
from gateway.jobs.letters import Letters, LetterTerms
from gateway.jobs.tell import Tell
from gateway.ports.deliveries import Delivery, Ending
from gateway.ports.mail import Letter, MailUnavailable, NotNow, Undeliverable
from tests.fakes.clock import DAY_MS, HandClock
from tests.fakes.flow_rig import PLAN
from tests.fakes.metrics import SeenMetrics

HOUR_MS = DAY_MS // 24
LONDON = Calendar(1, "Europe/London")
ADA = Identity("ada", "ada", "full", 1, LONDON)
START_MS = LONDON.period_at(1_782_000_000_000).start_ms  # June 2026
NOW_MS = START_MS + 10 * DAY_MS
CROSSING = Delivery(
    notification_id=7,
    channel="email",
    address="ada@example.org",
    attempts=1,
    kind="crossing",
    threshold=80,
    at_ms=NOW_MS - 1000,
    period_ms=START_MS,
    now_ms=NOW_MS,
    identity=ADA,
    facts={"tier": "full"},
    used_tokens=13_000,
    pack_tokens=320,
    is_wanted=True,
)
PACK = {"tokens": 320, "left_tokens": 60, "ends_ms": NOW_MS + DAY_MS}


class Listed:
    """Fulfils ports.deliveries.Deliveries with a list, and notes what became of each."""

    def __init__(self, *due: Delivery, leads: bool = True) -> None:
        self.due, self.leads = list(due), leads
        self.ended: list[tuple[int, Ending, str | None]] = []
        self.later: list[tuple[int, int]] = []
        self.found = self.dealt = 0

    async def lock(self) -> bool:
        return self.leads

    def unlock(self) -> None: ...

    async def find(self) -> None:
        self.found += 1

    async def deal(self, notices_max: int) -> None:
        self.dealt += 1

    async def take(self, for_s: int) -> Delivery | None:
        return self.due.pop(0) if self.due else None

    async def end(self, delivery: Delivery, state: Ending, error: str | None) -> None:
        self.ended.append((delivery.notification_id, state, error))

    async def put_off(self, delivery: Delivery, for_s: int, error: str) -> None:
        self.later.append((delivery.notification_id, for_s))


class Carrier:
    """Fulfils ports.mail.Mail; raises what `trouble` has for an address."""

    def __init__(self, **trouble: Exception) -> None:
        self.trouble, self.sent, self.rests = trouble, list[Letter](), 0

    async def send(self, letter: Letter) -> None:
        if error := self.trouble.get(letter.address.partition("@")[0]):
            raise error
        self.sent.append(letter)

    async def rest(self) -> None:
        self.rests += 1


def letters() -> Letters:
    def link(user_id: str, kind: str) -> str:
        return f"https://quota.example/{kind}/{user_id}"

    return Letters(LetterTerms(PLAN, "https://up.example", "https://top.example", link))


async def told(listed: Listed, carrier: Carrier) -> tuple[float, SeenMetrics]:
    metrics = SeenMetrics()
    rest_s = await Tell(listed, carrier, letters(), metrics, HandClock()).step()
    return rest_s, metrics


async def test_what_is_due_is_sent_with_its_figures() -> None:
    listed, carrier = Listed(CROSSING), Carrier()
    _, metrics = await told(listed, carrier)
    (letter,) = carrier.sent
    assert letter.figures["used"] == "13,000"
    assert letter.figures["limit"] == "16,020"
    assert letter.figures["left"] == "3,340"  # with what is left of packs
    assert letter.figures["reset"] == "1 July 2026 at 00:00 (Europe/London)"
    assert letter.ways_on == (("Buy 320 tokens for £2.00", "https://top.example"),)
    assert letter.unsubscribe_url == "https://quota.example/crossing/ada"
    assert listed.ended == [(7, "sent", None)]
    assert metrics.of("notified") == [("crossing", "sent")]
    assert (listed.found, listed.dealt, carrier.rests) == (1, 1, 1)


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
    listed, carrier = Listed(replace(CROSSING, **changes)), Carrier()
    _, metrics = await told(listed, carrier)
    assert [ended[1] for ended in listed.ended] == [state]
    assert [each[1] for each in metrics.of("notified")] == [state]
    assert len(carrier.sent) == (state == "sent")


@pytest.mark.parametrize("trouble", [NotNow, MailUnavailable])
async def test_what_fails_is_tried_at_growing_distances_for_48_hours(
    trouble: Callable[[str], Exception],
) -> None:
    pauses = []
    for attempts in (1, 2, 3, 8, 9, 60):
        listed = Listed(replace(CROSSING, attempts=attempts))
        await told(listed, Carrier(ada=trouble("away")))
        pauses += [pause_s for _, pause_s in listed.later]
    assert pauses == [5, 10, 20, 640, 900, 900]
    last = Listed(replace(CROSSING, at_ms=NOW_MS - 48 * HOUR_MS))
    await told(last, Carrier(ada=trouble("away")))
    assert last.ended == [(7, "dead", "away")]


async def test_a_refused_address_holds_up_nobody() -> None:
    bob = replace(CROSSING, notification_id=8, address="bob@example.org")
    eve = replace(CROSSING, notification_id=9, address="eve@example.org")
    listed = Listed(CROSSING, bob, eve)
    await told(listed, Carrier(ada=Undeliverable("550 nobody"), bob=NotNow("450 busy")))
    assert listed.ended == [(7, "dead", "550 nobody"), (9, "sent", None)]
    assert listed.later == [(8, 5)]


async def test_while_nothing_can_be_sent_one_is_tried_and_the_rest_waits() -> None:
    listed = Listed(CROSSING, replace(CROSSING, notification_id=8))
    carrier = Carrier(ada=MailUnavailable("refused"))
    rest_s, _ = await told(listed, carrier)
    assert rest_s == 5.0
    assert len(listed.due) == 1
    assert carrier.rests == 1


async def test_who_has_not_the_lock_does_nothing() -> None:
    listed, carrier = Listed(CROSSING, leads=False), Carrier()
    await told(listed, carrier)
    assert (listed.found, listed.dealt, carrier.sent, len(listed.due)) == (0, 0, [], 1)
