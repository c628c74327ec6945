"""`/quota/v1/usage`, `/check` and `/status`: from a request to the flow, and its answer as JSON.

Credentials are those of `/v1`, and so are refusals. Nothing that is answered here may be kept by
anybody on the way.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.core.credential import Credential
from gateway.core.elsewhere import ROUTE, STATED
from gateway.core.refusal import Case, QuotaView, Refused
from gateway.flow.decisions import tell_free
from gateway.flow.elsewhere import Booked, Elsewhere, Verdict
from gateway.flow.quota_refusal import offers
from gateway.flow.standing import Standings
from gateway.flow.subjects import Subject, Subjects
from gateway.flow.terms import Terms
from gateway.ports.clock import Clock
from gateway.ports.metrics import Metrics
from gateway.web.callers import Callers
from gateway.web.http_request import HttpRequest
from gateway.web.json_answer import NO_STORE, json_answer
from gateway.web.quota_bodies import (
    BODY_BYTES_MAX,
    CheckAnswer,
    CheckBody,
    Quota,
    UsageAnswer,
    UsageBody,
    asked_user,
    checked_user,
    read_body_as,
)
from gateway.web.quota_headers import quota_headers
from gateway.web.quota_status import quota_shown, status_answer
from gateway.web.request import read_body
from gateway.web.response import Header, Response
from gateway.web.words import pounds

_CHECK, _STATUS = "quota_check", "quota_status"


@dataclass(frozen=True, slots=True)
class QuotaFlow:
    """What answers these requests."""

    callers: Callers
    subjects: Subjects
    elsewhere: Elsewhere
    standings: Standings


class QuotaCalls:
    """The handlers."""

    def __init__(self, flow: QuotaFlow, terms: Terms, metrics: Metrics, clock: Clock) -> None:
        self._flow = flow
        self._terms = terms
        self._metrics = metrics
        self._clock = clock

    async def usage(self, request: HttpRequest, rid: str) -> Response:
        """Book usage, once for each id."""
        credential = await self._sender(request)
        body = read_body_as(UsageBody, await read_body(request, BODY_BYTES_MAX))
        subject = await self._flow.subjects.of(credential, checked_user(body.user))
        if not subject.by_service:
            _refuse_what_only_a_service_may_say(body, subject)
        reported = body.reported(self._clock.now_ms())
        booked = await self._flow.elsewhere.book(subject, reported, body.already_spent)
        tier = booked.quota.tier
        reason = "replayed" if booked.is_repeat else "ok"
        reason = "forced" if booked.decision == "forced" else reason
        self._metrics.decided(tier, ROUTE, "admitted", reason)
        tell_free(rid, ROUTE, subject.identity, reason)
        answer = UsageAnswer(
            object="quota.usage",
            id=reported.id,
            event_id=booked.event_id,
            user=booked.user_id,
            decision=booked.decision,
            charged_tokens=booked.charged_tokens,
            cost_gbp=pounds(booked.cost_nano_gbp),
            cost_source="caller" if booked.price_id == STATED else "price_list",
            price_id=booked.price_id,
            quality=booked.quality,
            quota=self._quota(booked.quota),
        )
        return json_answer(rid, answer, [NO_STORE, *self._usage_headers(booked)])

    async def check(self, request: HttpRequest, rid: str) -> Response:
        """Whether a call would fit now."""
        credential = await self._sender(request)
        body = read_body_as(CheckBody, await read_body(request, BODY_BYTES_MAX))
        subject = await self._flow.subjects.of(credential, checked_user(body.user))
        verdict = await self._flow.elsewhere.check(subject, body.model, body.tokens, rid)
        refused, tier = verdict.refused, subject.identity.tier
        answer = CheckAnswer(
            object="quota.check",
            user=subject.identity.user_id,
            fits=refused is None,
            decision="refused" if refused else "admitted",
            reason=refused.case.value.code if refused else None,
            message=refused.message if refused else None,
            retry_after_s=refused.retry_after_s if refused else None,
            quota=self._quota_of(verdict),
        )
        self._metrics.decided(tier, _CHECK, answer.decision, answer.reason or "ok")
        if refused is None:
            tell_free(rid, _CHECK, subject.identity)
        return json_answer(rid, answer, [NO_STORE])

    async def status(self, request: HttpRequest, rid: str) -> Response:
        """Where a user stands."""
        credential = await self._sender(request)
        subjects = self._flow.subjects
        subject = await subjects.newest(await subjects.of(credential, asked_user(request)))
        standing = await self._flow.standings.of(subject)
        tier = subject.identity.tier
        self._metrics.decided(tier, _STATUS, "admitted", "free")
        tell_free(rid, _STATUS, subject.identity)
        return json_answer(rid, status_answer(standing, offers(tier, self._terms)), [NO_STORE])

    async def _sender(self, request: HttpRequest) -> Credential:
        """Who sends it; no body is read before that is known."""
        credential = self._flow.callers.credential(request)
        await self._flow.callers.identities.of(credential)
        return credential

    def _quota(self, view: QuotaView) -> Quota:
        return quota_shown(view, offers(view.tier, self._terms))

    def _quota_of(self, verdict: Verdict) -> Quota | None:
        if verdict.quota is not None:
            return self._quota(verdict.quota)
        quota = verdict.refused.quota if verdict.refused else None
        if quota is None:
            return None
        return quota_shown(quota.view, (quota.upgrade, quota.topup), quota.limit)

    def _usage_headers(self, booked: Booked) -> list[Header]:
        if booked.is_repeat:  # so that a sum over answers counts it once
            return [("idempotent-replayed", "true"), ("x-quota-charged-tokens", "0")]
        thresholds = self._terms.plan.thresholds_percent
        headers = quota_headers(booked.quota, "admitted", thresholds)
        return [*headers, ("x-quota-charged-tokens", str(booked.charged_tokens))]


def _refuse_what_only_a_service_may_say(body: UsageBody, subject: Subject) -> None:
    said = {"cost_gbp": body.cost_gbp is not None, "already_spent": body.already_spent}
    for name, is_said in said.items():
        if is_said:
            raise Refused(
                Case.KEY_NOT_ALLOWED,
                f"Only a service key may send '{name}': with a user's own key our price list and "
                "the user's limits hold.",
                param=name,
            ).of(subject.identity)
