"""The answer of `GET /quota/v1/status`: a standing as JSON, for a page about somebody's quota.

Instants are RFC 3339 in UTC; `reset_local` and days are in the user's own zone. Money is text, in
pounds. Every day of the period up to today is there, so that a chart needs no arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

import msgspec

from gateway.core.elsewhere import STATED
from gateway.core.period import Calendar
from gateway.core.refusal import QuotaView
from gateway.core.refusal import TopUp as TopUpOffer
from gateway.core.refusal import Upgrade as UpgradeOffer
from gateway.flow.standing import Standing
from gateway.ports.history import PeriodHistory
from gateway.web.quota_bodies import Quota, TopUp, Upgrade
from gateway.web.quota_headers import reset_at
from gateway.web.words import instant, pounds

Offers = tuple[UpgradeOffer | None, TopUpOffer | None]


class PeriodShown(msgspec.Struct):
    """The running period; `reset_local` is its end in `zone`."""

    start: str
    reset_at: str
    reset_local: str
    zone: str


class PackShown(msgspec.Struct):
    """A pack that can still be spent."""

    left_tokens: int
    ends_at: str


class LimitsShown(msgspec.Struct):
    """What binds beside each other; null: no such limit."""

    tokens: int
    member_tokens: int | None
    gbp: str | None
    requests_a_minute: int | None
    tokens_a_minute: int | None
    concurrent: int | None


class MemberShown(msgspec.Struct):
    """A member's own part of what its team has used."""

    used_tokens: int
    held_tokens: int


class PaceShown(msgspec.Struct):
    """What a day costs at this period's pace, and when the quota ends if it goes on so; null: not
    before the reset."""

    tokens_a_day: int
    quota_ends_at: str | None
    quota_ends_on: str | None


class DayShown(msgspec.Struct):
    """A day of the user's zone."""

    day: str
    tokens: int


class ChargeShown(msgspec.Struct):
    """An entry of the ledger. `cost_source` as in a usage answer."""

    event_id: str
    at: str
    kind: str
    route: str
    model: str
    tag: str | None
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    charged_tokens: int
    cost_gbp: str
    cost_source: Literal["price_list", "caller"]
    quality: str
    outcome: str


class HistoryShown(msgspec.Struct):
    """The period by the ledger, some moments behind the live figures."""

    days: list[DayShown]
    charges: list[ChargeShown]


class StatusAnswer(msgspec.Struct):
    """Where a user stands at `at`. `history` is null while the ledger does not tell it;
    `history_missing` says why. In a team all figures are the team's, but `member` and `history`."""

    object: Literal["quota.status"]
    at: str
    user: str
    payer: str
    quota: Quota
    period: PeriodShown
    spent_gbp: str
    open_calls: int
    packs: list[PackShown]
    limits: LimitsShown
    member: MemberShown | None
    pace: PaceShown
    history: HistoryShown | None
    history_missing: str | None


def status_answer(standing: Standing, offers: Offers) -> StatusAnswer:
    """A standing as it is shown."""
    account, identity = standing.account, standing.identity
    calendar, member = identity.calendar, standing.member
    return StatusAnswer(
        object="quota.status",
        at=instant(standing.at_ms, "milliseconds"),
        user=identity.user_id,
        payer=identity.payer,
        quota=quota_shown(standing.quota, offers),
        period=PeriodShown(
            start=instant(account.period_start_ms),
            reset_at=instant(account.period_end_ms),
            reset_local=_local(account.period_end_ms, calendar).isoformat(timespec="seconds"),
            zone=calendar.zone,
        ),
        spent_gbp=pounds(account.cost_nano_gbp),
        open_calls=account.open_holds,
        packs=[
            PackShown(pack.tokens, instant(pack.ends_ms))
            for pack in account.packs
            if pack.tokens and pack.ends_ms > standing.at_ms
        ],
        limits=_limits(standing),
        member=MemberShown(max(0, member.used_tokens), member.held_tokens) if member else None,
        pace=_pace(standing),
        history=_history(standing.history, standing) if standing.history else None,
        history_missing=standing.history_missing,
    )


def quota_shown(view: QuotaView, offers: Offers, limit: str | None = None) -> Quota:
    """A quota as every answer has it."""
    upgrade, topup = offers
    return Quota(
        limit=limit,
        tier=view.tier,
        limit_tokens=view.limit_tokens,
        used_tokens=view.used_tokens,
        held_tokens=view.held_tokens,
        pack_tokens=view.pack_tokens,
        remaining_tokens=view.remaining_tokens,
        reset_at=reset_at(view),
        upgrade=Upgrade(upgrade.tier, upgrade.url) if upgrade else None,
        topup=TopUp(topup.tokens, str(topup.price_gbp), topup.url) if topup else None,
    )


def _limits(standing: Standing) -> LimitsShown:
    limits = standing.limits
    return LimitsShown(
        tokens=limits.tokens,
        member_tokens=limits.member_tokens,
        gbp=None if limits.nano_gbp is None else pounds(limits.nano_gbp),
        requests_a_minute=limits.requests_a_minute,
        tokens_a_minute=limits.tokens_a_minute,
        concurrent=limits.concurrent,
    )


def _pace(standing: Standing) -> PaceShown:
    account, ends_ms = standing.account, standing.quota_ends_ms
    elapsed_ms = max(1, standing.at_ms - account.period_start_ms)
    day_ms = 86_400_000
    return PaceShown(
        # A period of an hour is no day's worth yet: what was used is shown as it is.
        tokens_a_day=account.settled_tokens * day_ms // max(elapsed_ms, day_ms),
        quota_ends_at=None if ends_ms is None else instant(ends_ms),
        quota_ends_on=None
        if ends_ms is None
        else _local(ends_ms, standing.identity.calendar).date().isoformat(),
    )


def _history(history: PeriodHistory, standing: Standing) -> HistoryShown:
    used = {each.day: each.tokens for each in history.days}
    return HistoryShown(
        days=[DayShown(day, used.get(day, 0)) for day in _days(standing, list(used))],
        charges=[
            ChargeShown(
                event_id=each.event_id,
                at=instant(each.at_ms, "milliseconds"),
                kind=each.kind,
                route=each.route,
                model=each.model,
                tag=each.tag,
                prompt_tokens=each.prompt_tokens,
                cached_tokens=each.cached_tokens,
                output_tokens=each.output_tokens,
                charged_tokens=each.charged_tokens,
                cost_gbp=pounds(each.cost_nano_gbp),
                cost_source="caller" if each.price_id == STATED else "price_list",
                quality=each.quality,
                outcome=each.outcome,
            )
            for each in history.charges
        ],
    )


def _days(standing: Standing, used: Sequence[str]) -> list[str]:
    """Every day from the period's first to today, and those on which something was booked."""
    calendar = standing.identity.calendar
    day: date = _local(standing.account.period_start_ms, calendar).date()
    last = _local(standing.at_ms, calendar).date()
    days = set(used)
    while day <= last:
        days.add(day.isoformat())
        day += timedelta(days=1)
    return sorted(days)


def _local(at_ms: int, calendar: Calendar) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC).astimezone(ZoneInfo(calendar.zone))
