"""One question to the limits, outside of any call: would so much fit, and if asked so, hold it.

It is the same reserve as a call's, under the same limits. What the store wants mended first (an
account to be brought back, a newer entitlement, another period) is mended, and the same rid asks
again. What a refusal means is not decided here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec

from gateway.core.event import encode_tail
from gateway.core.hold import Caller, Hold, tail_of
from gateway.core.identity import Identity
from gateway.core.quota.reserve import Limits, ReserveAsk, ReserveCode, ReserveReply
from gateway.flow.admit import Stores
from gateway.flow.entitled import Entitlements
from gateway.flow.subjects import Subject, Subjects
from gateway.ports.clock import Clock
from gateway.ports.quota_store import StoreNotReady

ONLY_ASK = 0
"""In place of a lease: nothing is held, and nothing changes."""

# As often as a call mends; see flow/admit.
_ASKS_MAX = 24


class Question(msgspec.Struct, frozen=True, gc=False):
    """What is asked for: `hold` names rid, model and tokens; `nano_gbp` is what these cost."""

    hold: Hold
    nano_gbp: int
    lease_ms: int = ONLY_ASK


class Answered(msgspec.Struct, frozen=True, gc=False):
    """The store's answer, held or refused; the subject as it was asked for; and the hold with what
    the store has frozen of it, but for its epoch."""

    reply: ReserveReply
    subject: Subject
    hold: Hold


LimitsOf = Callable[[Identity], Limits]
"""What binds an identity; Refused when nobody knows."""
MayAsk = Callable[[Identity], object]
"""Raises Refused for an identity that may not."""


class Asking:
    """Asks for subjects."""

    def __init__(
        self,
        stores: Stores,
        entitlements: Entitlements,
        subjects: Subjects,
        limits_of: LimitsOf,
        clock: Clock,
    ) -> None:
        self._stores = stores
        self._entitlements = entitlements
        self._subjects = subjects
        self._limits_of = limits_of
        self._clock = clock

    async def ask(self, subject: Subject, question: Question, may_ask: MayAsk) -> Answered:
        """The answer, whatever had to be mended for it. `may_ask` is asked where the subject has
        changed meanwhile. Refused when it is gone; StoreUnavailable, LedgerUnavailable."""
        seen_s, now_ms = self._clock.monotonic_s(), self._clock.now_ms()
        for _ in range(_ASKS_MAX):
            identity = subject.identity
            limits = self._limits_of(identity)
            ask = self._ask(identity, limits, question, now_ms)
            reply = await self._stores.store.reserve(ask)
            self._stores.settlements.rooms.reserved(identity.payer, reply, seen_s)
            now_ms = reply.now_ms or now_ms
            if reply.code is ReserveCode.NOT_READY:
                shards = self._stores.shards
                await shards.ready(shards.of(identity.payer), reply.wait_ms)
            elif reply.code is ReserveCode.HYDRATE:
                period = identity.calendar.period_at(now_ms)
                await self._stores.hydrator.hydrate(identity.payer, period, ask.member)
            elif reply.code is ReserveCode.STALE:
                subject = await self._renewed(subject, reply)
                may_ask(subject.identity)
            elif reply.code is not ReserveCode.PERIOD:
                return Answered(reply, subject, _frozen(question.hold, ask, reply, subject))
        raise StoreNotReady("the account did not come into force")

    async def _renewed(self, subject: Subject, reply: ReserveReply) -> Subject:
        """The subject by the ledger, which is told the store too if that is behind."""

        async def read() -> Identity:
            return (await self._subjects.again(subject)).identity

        identity = await self._entitlements.told(read, subject.identity, reply)
        return replace(subject, identity=identity)

    def _ask(
        self, identity: Identity, limits: Limits, question: Question, now_ms: int
    ) -> ReserveAsk:
        hold, period = question.hold, identity.calendar.period_at(now_ms)
        caller = caller_of(identity, hold.caller)
        return ReserveAsk(
            rid=hold.rid,
            payer=identity.payer,
            tier=identity.tier,
            rev=identity.rev,
            period_start_ms=period.start_ms,
            period_end_ms=period.end_ms,
            limits=limits,
            prompt_tokens=hold.prompt_tokens,
            output_wanted=0,
            output_least=0,
            choices=1,
            lease_ms=question.lease_ms,
            tail=encode_tail(tail_of(msgspec.structs.replace(hold, caller=caller))),
            prompt_nano_gbp=question.nano_gbp,
            output_nano_gbp=0,
            member=caller.member,
            member_rev=identity.member_rev or 0,
        )


def caller_of(identity: Identity, said: Caller | None = None) -> Caller:
    """On whose behalf; with what another said of itself."""
    return Caller(
        user_id=identity.user_id,
        payer=identity.payer,
        tier=identity.tier,
        calendar=identity.calendar,
        tag=said.tag if said else None,
        client_id=said.client_id if said else None,
    )


def _frozen(hold: Hold, ask: ReserveAsk, reply: ReserveReply, subject: Subject) -> Hold:
    return msgspec.structs.replace(
        hold,
        caller=caller_of(subject.identity, hold.caller),
        hold_tokens=reply.hold_tokens,
        period_start_ms=reply.period_start_ms,
        limit_tokens=ask.limits.tokens,
        tier_period_start_ms=ask.limits.tier_period_start_ms,
    )
