"""Usage that did not pass through this gateway: checked and booked, or only checked.

Booking is a reserve without output and the settlement of that hold, which leaves a mark under the
report's own id: a repetition finds it and charges nothing. So a report whose answer was lost is
repeated until there is one; nothing is ever released here, for the same reason. What one id stands
for is remembered for as long as the mark, and an answer is given again word by word. Nothing is
booked while the store is away: the caller still has the figures, and comes again.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import msgspec
from msgspec.structs import replace

from gateway.core.elsewhere import (
    ROUTE,
    Reported,
    dearest_nano_gbp,
    event_id_of,
    event_of,
    remembered_as,
)
from gateway.core.event import UsageEvent
from gateway.core.hold import Hold
from gateway.core.idempotency import Remembered
from gateway.core.identity import Identity
from gateway.core.models import Weights
from gateway.core.quota.endings import KEPT_MS
from gateway.core.quota.reserve import ReserveCode
from gateway.core.refusal import Case, QuotaView, Refused
from gateway.flow.asking import Answered, Asking, Question, caller_of
from gateway.flow.entitled import Entitled, Entitlements
from gateway.flow.first_refusals import FirstRefusals
from gateway.flow.identify import backend_unavailable, blocked
from gateway.flow.quota_refusal import quota_refusal, quota_view
from gateway.flow.settlements import Settlements
from gateway.flow.subjects import Subject, Subjects
from gateway.flow.terms import Terms
from gateway.ports.answers import KeptAnswers
from gateway.ports.clock import Clock
from gateway.ports.ledger import LedgerUnavailable
from gateway.ports.metrics import Metrics
from gateway.ports.quota_store import StoreRejected, StoreUnavailable

_NANO_GBP_MAX = 10**15 - 1  # what a script takes for an amount
_log = logging.getLogger("gateway.elsewhere")


class Booked(msgspec.Struct, frozen=True):
    """A report that stands in the ledger under `event_id`, and the quota after it.

    `decision`: `forced` where a limit had refused it. `is_repeat`: it was booked before.
    """

    event_id: str
    user_id: str
    decision: Literal["admitted", "forced"]
    charged_tokens: int
    cost_nano_gbp: int
    price_id: str
    quality: str
    quota: QuotaView
    is_repeat: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether it would fit now: the quota as it stands, or the refusal that a call would get."""

    quota: QuotaView | None
    refused: Refused | None


@dataclass(frozen=True, slots=True)
class ElsewhereParts:
    """What booking stands on."""

    asking: Asking
    entitlements: Entitlements
    subjects: Subjects
    settlements: Settlements
    answers: KeptAnswers
    first_refusals: FirstRefusals


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(Booked)


class Elsewhere:
    """Books reports, and answers whether something would fit."""

    def __init__(self, parts: ElsewhereParts, terms: Terms, metrics: Metrics, clock: Clock) -> None:
        self._parts = parts
        self._terms = terms
        self._metrics = metrics
        self._clock = clock

    async def book(self, subject: Subject, reported: Reported, is_spent: bool) -> Booked:
        """Book a report, once. Refused: nothing was booked; `is_spent`: no limit refuses it."""
        user_id = subject.identity.user_id
        event_id = event_id_of(user_id, reported.id)
        mark = Remembered(user_id, remembered_as(reported.id), event_id, reported.digest())
        try:
            first = await self._parts.answers.begin(mark, KEPT_MS)
            if first is not None and first.asked != mark.asked:
                raise _other_content(reported.id)
            kept = _kept(first)
            if kept is not None:
                return replace(kept, is_repeat=True)
            booked = await self._book(subject, reported, event_id, is_spent)
        except (StoreUnavailable, LedgerUnavailable) as error:
            raise _not_known() from error
        except Refused:
            await self._remember(mark, None)
            raise
        await self._remember(mark, booked)
        return booked

    async def check(self, subject: Subject, model_name: str, tokens: int, rid: str) -> Verdict:
        """Whether a call of so many tokens would fit now. Nothing changes by asking."""
        try:
            subject = await self._allowed(subject, model_name)
            hold = self._hold(subject, Reported(rid, model_name, tokens), rid)
            question = Question(hold, dearest_nano_gbp(hold.price, tokens))
            answered = await self._parts.asking.ask(
                subject, question, lambda identity: self._may(identity, model_name)
            )
        except StoreUnavailable as error:
            raise backend_unavailable("its counters") from error
        except LedgerUnavailable as error:
            raise backend_unavailable("its ledger") from error
        except Refused as refused:
            return _verdict(refused)
        if answered.reply.code > 0:
            return Verdict(_view(answered), None)
        return Verdict(None, self._refusal(answered))

    async def _book(
        self, subject: Subject, reported: Reported, event_id: str, is_spent: bool
    ) -> Booked:
        if not is_spent:
            subject = await self._allowed(subject, reported.model)
        asked = self._hold(subject, reported, event_id)
        event = event_of(asked, reported)
        if event.cost_nano_gbp > _NANO_GBP_MAX:
            raise Refused(Case.INVALID_VALUE, "This usage costs more than can be booked at once.")
        question = Question(
            replace(asked, prompt_tokens=event.charged_tokens),
            event.cost_nano_gbp,
            self._terms.lease_ms,
        )
        answered = await self._parts.asking.ask(
            subject, question, lambda identity: is_spent or self._may(identity, reported.model)
        )
        if answered.reply.code <= ReserveCode.MONTH and not is_spent:
            refused = self._refusal(answered)
            self._parts.first_refusals.note(refused, answered.subject.identity, answered.reply)
            raise refused
        return await self._settle(answered, reported)

    async def _settle(self, answered: Answered, reported: Reported) -> Booked:
        """End the hold with its row. Epoch 0 leaves the mark by which a repetition is known, and
        books it where nothing is held: because it was refused, or because the hold is lost."""
        reply, hold = answered.reply, answered.hold
        is_refused = reply.code <= ReserveCode.MONTH
        is_repeat = reply.code is ReserveCode.ENDED
        if is_refused:  # no grant has begun the account's period
            hold = replace(hold, period_end_ms=reply.period_end_ms)
        event = event_of(hold, reported)
        is_new = is_refused or reply.code is ReserveCode.HELD
        await self._parts.settlements.book(hold, event, is_new)
        if hold.price.is_default and reported.nano_gbp is None:
            self._metrics.unpriced(hold.model)
        is_forced = is_refused or not self._is_allowed(answered.subject, reported.model)
        quota = _view(answered)
        return Booked(
            event_id=hold.rid,
            user_id=hold.caller.user_id,
            decision="forced" if is_forced else "admitted",
            charged_tokens=event.charged_tokens,
            cost_nano_gbp=event.cost_nano_gbp,
            price_id=event.price_id,
            quality=event.quality,
            quota=quota if is_repeat else _after(quota, event, reply.hold_tokens),
            is_repeat=is_repeat,
        )

    async def _allowed(self, subject: Subject, model_name: str) -> Subject:
        """The subject; Refused when it may not call that model, by the ledger's word."""
        if self._is_allowed(subject, model_name):
            return subject
        if self._terms.models.find(model_name) is not None:  # what is remembered may be old
            subject = await self._parts.subjects.again(subject)
        self._may(subject.identity, model_name)
        return subject

    def _is_allowed(self, subject: Subject, model_name: str) -> bool:
        try:
            self._may(subject.identity, model_name)
        except Refused:
            return False
        return True

    def _may(self, identity: Identity, model_name: str) -> Entitled:
        if identity.is_blocked:
            raise blocked(identity)
        return self._parts.entitlements.allowed(identity, model_name)

    def _hold(self, subject: Subject, reported: Reported, rid: str) -> Hold:
        """What is asked for. A model of which nothing is configured is booked by its own name."""
        model = self._terms.models.find(reported.model)
        name = model.name if model else reported.model
        now_ms = self._clock.now_ms()
        said = caller_of(subject.identity)
        return Hold(
            rid=rid,
            caller=replace(said, tag=reported.tag, client_id=reported.id),
            route=ROUTE,
            model=name,
            stream=False,
            price=self._terms.prices.price_for(name, reported.at_ms or now_ms),
            weights=model.weights if model else Weights(),
            prompt_tokens=reported.prompt_tokens,
            output_tokens=0,
            choices=1,
        )

    def _refusal(self, answered: Answered) -> Refused:
        refused = quota_refusal(answered.reply, answered.hold, 0, self._terms)
        refused.param = None  # there is no prompt here that could be shortened
        return refused.of(answered.subject.identity)

    async def _remember(self, mark: Remembered, booked: Booked | None) -> None:
        """Keep the answer, or free the id; a store that does not answer only makes a repetition
        find the mark of the booking instead."""
        with suppress(StoreUnavailable, StoreRejected):
            if booked is None:
                await self._parts.answers.forget(mark)
                return
            kept = replace(mark, state="kept", status=200, body=_encode(booked))
            if not await self._parts.answers.keep(mark, kept, KEPT_MS):
                _log.info("usage %s was remembered by another gateway", mark.rid)


def _kept(first: Remembered | None) -> Booked | None:
    """The answer that was given before. One that another release has kept is not read: the mark of
    the booking is there beside it."""
    with suppress(msgspec.MsgspecError):
        return _decoder.decode(first.body) if first and first.state == "kept" else None
    return None


def _verdict(refused: Refused) -> Verdict:
    """That it would be refused so; Refused where that is not about the subject."""
    if refused.case is Case.QUOTA_BACKEND_UNAVAILABLE:
        raise refused
    return Verdict(None, refused)


def _view(answered: Answered) -> QuotaView:
    return quota_view(answered.reply, answered.subject.identity.tier)


def _after(quota: QuotaView, event: UsageEvent, hold_tokens: int) -> QuotaView:
    """The quota once this is charged: the allowance pays, then packs, then the allowance again."""
    room = max(0, quota.limit_tokens - quota.used_tokens)
    from_packs = min(max(0, event.charged_tokens - room), quota.pack_tokens)
    return replace(
        quota,
        used_tokens=quota.used_tokens + event.charged_tokens - from_packs,
        held_tokens=max(0, quota.held_tokens - hold_tokens),
        pack_tokens=quota.pack_tokens - from_packs,
    )


def _other_content(reported_id: str) -> Refused:
    return Refused(
        Case.IDEMPOTENCY_KEY_REUSED,
        f"The id {reported_id!a} stands for other usage of this user already, which is booked "
        "or being booked. An id names one piece of usage; give this one another.",
        param="id",
    )


def _not_known() -> Refused:
    return Refused(
        Case.QUOTA_BACKEND_UNAVAILABLE,
        "The quota service cannot reach its stores right now, so it is not known whether this "
        "usage is booked. Repeat it with the same id until there is an answer: it counts once.",
        retry_after_s=1,
    )
