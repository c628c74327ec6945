"""Where a user stands: the live figures from the store, and what the ledger tells of the period.

The live figures are of one moment and do not need the ledger once the account is known. The history
is for a person's eyes: where the ledger does not tell it in time, it is missing, with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.core.identity import Identity
from gateway.core.pace import ends_ms
from gateway.core.period import Period
from gateway.core.quota.entitle import Snapshot
from gateway.core.quota.reserve import Limits
from gateway.core.refusal import QuotaView
from gateway.flow.admit import Stores
from gateway.flow.asking import LimitsOf
from gateway.flow.figures import Figures
from gateway.flow.identify import backend_unavailable
from gateway.flow.subjects import Subject
from gateway.ports.clock import Clock
from gateway.ports.history import History, HistoryAsk, HistoryUnavailable, PeriodHistory
from gateway.ports.ledger import LedgerUnavailable
from gateway.ports.quota_store import StoreUnavailable

CHARGES_MAX = 20
"""So many of the last charges are told."""


@dataclass(frozen=True, slots=True)
class Standing:
    """One user at `at_ms`. `member` are a member's own figures within its team. `quota_ends_ms`:
    when the quota ends at the pace of this period, None: not in this period."""

    identity: Identity
    limits: Limits
    quota: QuotaView
    account: Snapshot
    member: Snapshot | None
    at_ms: int
    quota_ends_ms: int | None
    history: PeriodHistory | None
    history_missing: str | None


class Standings:
    """Tells them."""

    def __init__(self, stores: Stores, history: History, limits_of: LimitsOf, clock: Clock) -> None:
        self._figures = Figures(stores.store, stores.hydrator, clock)
        self._history = history
        self._limits_of = limits_of
        self._clock = clock

    async def of(self, subject: Subject) -> Standing:
        """Refused when the counters cannot be had now."""
        identity = subject.identity
        limits, member_id = self._limits_of(identity), identity.member
        try:
            account = await self._figures.of(identity)
            member = await self._figures.of(identity, member_id) if member_id else None
        except (StoreUnavailable, LedgerUnavailable) as error:
            raise backend_unavailable("its counters") from error
        at_ms = self._clock.now_ms()
        quota = _quota(identity, limits, account, at_ms)
        period = Period(account.period_start_ms, account.period_end_ms)
        history, missing = await self._told(identity, member_id, period)
        return Standing(
            identity=identity,
            limits=limits,
            quota=quota,
            account=account,
            member=member,
            at_ms=at_ms,
            quota_ends_ms=ends_ms(account.settled_tokens, quota.remaining_tokens, period, at_ms),
            history=history,
            history_missing=missing,
        )

    async def _told(
        self, identity: Identity, member_id: str | None, period: Period
    ) -> tuple[PeriodHistory | None, str | None]:
        zone = identity.calendar.zone
        ask = HistoryAsk(identity.payer, member_id, period.start_ms, zone, CHARGES_MAX)
        try:
            return await self._history.of_period(ask), None
        except HistoryUnavailable as error:
            return None, str(error)


def _quota(identity: Identity, limits: Limits, account: Snapshot, at_ms: int) -> QuotaView:
    return QuotaView(
        tier=identity.tier,
        limit_tokens=limits.tokens,
        used_tokens=max(0, account.used_tokens),
        held_tokens=account.held_tokens,
        pack_tokens=sum(pack.tokens for pack in account.packs if pack.ends_ms > at_ms),
        reset_at_ms=account.period_end_ms,
    )
