"""Borders of periods under load: each token belongs to the period in which its hold was made.

Two payers whose billing day is the 31st, in two zones, and a capped tier with the plan's calendar;
three gateways whose clocks are wrong by seconds. The server's clock is the test's, so a border is
met to the millisecond, with calls open on both sides of it.
"""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime

import pytest
import redis

from gateway.adapters.redis_store.scripts import lua_folder
from gateway.core.event import LedgerRow
from gateway.core.period import Calendar
from gateway.core.quota.entitle import LedgerSums
from gateway.core.quota.reserve import Limits, ReserveAsk, ReserveCode
from gateway.core.quota.settle import Settlement
from gateway.core.quota.shares import ShareAsk
from tests.lua.history_server import HistoryServer, at_once
from tests.lua.history_steps import TIER, Known, event_json

CALENDARS = {"york": Calendar(31, "America/New_York"), "tokyo": Calendar(31, "Asia/Tokyo")}
OF_TIER = Calendar(1, "UTC")
SKEWS_MS = (-1_500, 0, 1_500)
PLENTY = 10**9


def ms(year: int, month: int, day: int, hour: int = 0) -> int:
    return int(datetime(year, month, day, hour, tzinfo=UTC).timestamp() * 1000)


class Load:
    """Calls of both payers, through gateways whose clocks differ."""

    def __init__(self, server: HistoryServer, chance: random.Random) -> None:
        self.server, self.chance = server, chance
        self.open: list[Known] = []
        self.right: dict[str, tuple[int, int]] = {}  # rid -> period of payer, of tier
        self.asked = 0

    def reserve(self) -> None:
        """Asked by a wrong clock at first, then by what the server said, as gateways do."""
        payer = self.chance.choice(list(CALENDARS))
        now_ms = self.server.now_ms + self.chance.choice(SKEWS_MS)
        self.asked += 1
        rid = f"01a0b1c2-d3e4-7f00-8000-{self.asked:012d}"
        for _ in range(2):
            period, of_tier = CALENDARS[payer].period_at(now_ms), OF_TIER.period_at(now_ms)
            asked = ReserveAsk(
                rid=rid, payer=payer, tier=TIER, rev=0, period_start_ms=period.start_ms,
                period_end_ms=period.end_ms,
                limits=Limits(PLENTY, tier_period_start_ms=of_tier.start_ms),
                prompt_tokens=self.chance.randint(1, 50), output_wanted=0, output_least=0,
                choices=1, lease_ms=60_000, tail=b"{}",
            )  # fmt: skip
            reply = at_once(self.server.store.reserve(asked))
            if reply.code is not ReserveCode.PERIOD:
                break
            now_ms = reply.now_ms
        assert reply.code is ReserveCode.HELD
        self.open.append(Known(asked, reply.epoch, reply.period_start_ms))
        here_ms = self.server.now_ms
        self.right[rid] = (
            CALENDARS[payer].period_at(here_ms).start_ms,
            OF_TIER.period_at(here_ms).start_ms,
        )

    def settle(self) -> None:
        if not self.open:
            return
        known = self.open.pop(self.chance.randrange(len(self.open)))
        charge = self.chance.randint(0, known.ask.prompt_tokens)
        ending = Settlement(
            rid=known.ask.rid, payer=known.ask.payer, kind="settle", epoch=1,
            period_start_ms=known.period_ms, charged_tokens=charge, cost_nano_gbp=0,
            event_json=event_json(known, charge), tier=TIER, limit_tokens=PLENTY,
            tier_period_start_ms=known.ask.limits.tier_period_start_ms,
        )  # fmt: skip
        assert at_once(self.server.store.settle(ending)).result().stream_id

    def rows(self) -> list[LedgerRow]:
        return self.server.rows_past("0-0")


BORDERS = [
    pytest.param(ms(2026, 10, 31, 4), id="31 October in New York"),
    pytest.param(ms(2026, 11, 29, 15), id="30 November in Tokyo, which has no 31st"),
    pytest.param(ms(2026, 3, 1), id="of the tier"),
    pytest.param(ms(2027, 2, 28, 5), id="28 February in New York"),
]


@pytest.mark.parametrize("border_ms", BORDERS)
def test_no_token_is_charged_to_another_period_than_its_own(redis_url: str, border_ms: int) -> None:
    chance = random.Random(border_ms)
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        server = HistoryServer(client, lua_folder(), [(payer, None) for payer in CALENDARS])
        server.now_ms = border_ms - 4_000
        server.lose_everything()
        at_once(server.store.open_shard(0, 1, "0-0", 0, []))
        for payer, calendar in CALENDARS.items():
            period = calendar.period_at(server.now_ms)
            found = at_once(server.store.hydrate_begin(payer, None, period.start_ms, period.end_ms))
            at_once(server.store.hydrate_finish(payer, None, found, LedgerSums(0, 0, 0, 0, 0)))
        look = ShareAsk(TIER, 0, 1, OF_TIER.period_at(server.now_ms).start_ms, 1, 0, PLENTY)
        at_once(server.shares.share(look))
        load = Load(server, chance)
        while server.now_ms < border_ms + 4_000:
            for _ in range(chance.randint(1, 3)):
                chance.choice([load.reserve, load.reserve, load.settle])()
            server.now_ms += chance.choice([0, 1, 7, 40])
            if border_ms - 50 < server.now_ms < border_ms:
                server.now_ms += chance.choice([0, border_ms - server.now_ms])
        while load.open:
            load.settle()
        rows = load.rows()
        both = {(row.period_ms, row.tier_period_start_ms) for row in rows}
        assert len(both) > 2  # it was met with calls of both payers on both sides
        for row in rows:
            assert (row.period_ms, row.tier_period_start_ms) == load.right[row.event_id]
        _assert_figures_are_of_their_periods(server, rows)


def _assert_figures_are_of_their_periods(server: HistoryServer, rows: list[LedgerRow]) -> None:
    charged: Counter[tuple[str, int]] = Counter()
    of_tier: Counter[int] = Counter()
    for row in rows:
        charged[(row.event.payer, row.period_ms)] += row.charged_tokens
        of_tier[row.tier_period_start_ms or 0] += row.charged_tokens
    seen = server.read([TIER])
    for payer in CALENDARS:
        account = seen.accounts[(payer, None)]
        assert account.settled == charged[(payer, account.starts_ms)]
        if account.before.starts_ms:
            assert account.before.used_tokens == charged[(payer, account.before.starts_ms)]
        assert account.held == account.open_holds == 0
    share = seen.tiers[TIER]
    assert (share.settled, share.held) == (of_tier[share.period_ms], 0)
