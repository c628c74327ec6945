"""What applications and operators are told, to the byte."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from gateway.core.identity import Identity
from gateway.core.notices import KINDS, OPERATORS_KINDS
from gateway.core.webhook_signature import signed_headers
from gateway.jobs.alarms import ByChat
from gateway.jobs.news import News, NewsTerms
from gateway.jobs.webhooks import ByWebhook
from gateway.ports.deliveries import OPERATORS, Delivery
from tests.fakes.clock import DAY_MS, HandClock
from tests.fakes.deliveries import CROSSING, LONDON, NOW_MS
from tests.fakes.flow_rig import PLAN

NEWS = News(NewsTerms(PLAN, "https://quota.example", "https://up.example", "https://top.example"))
KEY = b"k" * 32
PACK = {"tokens": 320, "left_tokens": 60, "ends_ms": NOW_MS + DAY_MS}


class SeenHook:
    """Fulfils ports.hook.Hook."""

    name = "hooks.example#01234567"

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], Any]] = []
        self.raw = b""

    async def post(self, headers: Mapping[str, str], body: bytes) -> None:
        self.raw = body
        self.got.append((dict(headers), json.loads(body)))

    async def rest(self) -> None: ...


async def event(delivery: Delivery) -> Any:
    hook = SeenHook()
    await ByWebhook(hook, KEY, KINDS, NEWS, HandClock()).send(delivery)
    return hook.got[0][1]


async def test_an_application_is_told_who_what_and_where_to_go_on() -> None:
    told = await event(CROSSING)
    assert len(told.pop("id")) == 32
    assert told == {
        "kind": "crossing",
        "at": "2026-06-10T22:59:59Z",
        "user": "ada",
        "payer": "ada",
        "tier": "full",
        "period": {"start": "2026-05-31T23:00:00Z", "end": "2026-06-30T23:00:00Z"},
        "facts": {
            "used_tokens": 13_000,
            "limit_tokens": 16_020,
            "left_tokens": 3340,
            "packs_left_tokens": 320,
            "threshold_percent": 80,
        },
        "links": {
            "status": "https://quota.example/quota/",
            "upgrade": None,
            "topup": "https://top.example",
        },
    }


async def test_of_a_pack_its_own_figures_are_told_and_no_period() -> None:
    told = await event(replace(CROSSING, kind="pack_low", threshold=0, facts=PACK))
    assert told["period"] is None
    assert told["facts"]["pack_tokens"] == 320
    assert told["facts"]["pack_left_tokens"] == 60
    assert told["facts"]["pack_ends_at"] == "2026-06-11T23:00:00Z"
    assert "threshold_percent" not in told["facts"]


async def test_a_member_of_a_team_is_named_beside_who_pays() -> None:
    eve = Identity("eve", "crew", "full", 1, LONDON, member_rev=1)
    told = await event(replace(CROSSING, identity=eve))
    assert (told["user"], told["payer"]) == ("eve", "crew")


async def test_a_repetition_has_the_same_id_and_a_signature_of_its_own_time() -> None:
    hook, clock = SeenHook(), HandClock()
    by = ByWebhook(hook, KEY, KINDS, NEWS, clock)
    for _ in range(2):
        await by.send(CROSSING)
        headers, told = hook.got[-1]
        assert headers.pop("content-type") == "application/json"
        assert headers == signed_headers(KEY, told["id"], clock.now_ms() // 1000, hook.raw)
        clock.pass_s(90)
    (first, told), (second, again) = hook.got
    assert told == again
    assert int(second["webhook-timestamp"]) - int(first["webhook-timestamp"]) == 90
    assert by.way.address == hook.name


@pytest.mark.parametrize(
    ("kind", "facts", "said"),
    [
        (
            "tier_cap_near",
            {"used_tokens": 801, "limit_tokens": 1000, "ends_ms": NOW_MS},
            "the tier free has used 80 % of what all its users may use together: 801 of 1,000 ",
        ),
        ("dead_rows", {"rows": 3}, "3 event(s) could not be booked today"),
        ("dead_deliveries", {"deliveries": 2}, "2 message(s) failed for good today"),
        (
            "canary_failed",
            {"why": "<@all> & 9 tokens too few"},
            "&lt;@all&gt; &amp; 9 tokens too few",
        ),
    ],
)
async def test_operators_read_what_happened_in_one_line(
    kind: str, facts: dict[str, int | str], said: str
) -> None:
    hook = SeenHook()
    about = "free" if kind == "tier_cap_near" else ""
    news = replace(CROSSING, identity=OPERATORS, kind=kind, facts=facts, about=about)
    by = ByChat(hook, "https://quota.example")
    await by.send(news)
    await by.send(replace(news, facts={}))  # noted by another release
    (_, told), _ = hook.got
    assert told.keys() == {"text"}
    assert told["text"].startswith("quota-gateway (https://quota.example): ")
    assert said in told["text"]
    assert "\n" not in told["text"]


def test_every_kind_of_operators_goes_to_them_and_no_kind_of_users() -> None:
    kinds = ByChat(SeenHook(), "here").way.kinds
    assert set(kinds) == set(OPERATORS_KINDS)
    assert not set(kinds) & set(KINDS)
