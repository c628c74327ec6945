"""One request from beginning to end: hold, ask upstream once, answer, settle.

Whatever happens after the hold is made (an answer, a stream, an error, silence, a client that
leaves), the hold ends here, once. If this process dies instead, its lease ends it.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from msgspec.structs import replace

from gateway.core.event import Quality
from gateway.core.hold import NOTHING_USED, Ending, Hold
from gateway.core.inference.request import Sending
from gateway.core.log_facts import Facts
from gateway.core.refusal import QuotaView, Refused
from gateway.flow.admit import Admission, Admitted, Call
from gateway.flow.decisions import ADMITTED, tell_admitted
from gateway.flow.open_holds import OpenHold, OpenHolds
from gateway.flow.relay import Relay, RelayServices
from gateway.flow.upstream_refusal import gave_up, refusal_of
from gateway.ports.answer import Answer, AnswerHead, ClientGone
from gateway.ports.clock import Clock
from gateway.ports.metrics import Metrics
from gateway.ports.upstream import (
    Upstream,
    UpstreamAnswer,
    UpstreamBroke,
    UpstreamCall,
    UpstreamHead,
    UpstreamSilent,
    UpstreamUnreachable,
)

_STREAM_TYPE = "text/event-stream"


class Exchange:
    """Runs requests; holds nothing of any one of them."""

    def __init__(
        self,
        admission: Admission,
        upstream: Upstream,
        open_holds: OpenHolds,
        services: RelayServices,
        observers: tuple[Metrics, Clock],
    ) -> None:
        self._admission = admission
        self._upstream = upstream
        self._open_holds = open_holds
        self._services = services
        self._settlements = services.settlements
        self._metrics, self._clock = observers

    async def run(self, call: Call, answer: Answer) -> None:
        """Answer the call, or raise Refused. A client that left is not an error."""
        admitted = await self._admission.admit(call)
        entry = self._open_holds.add(admitted.hold)
        try:
            decision, reason = admitted.decision, admitted.reason
            self._metrics.decided(admitted.quota.tier, call.route.name, decision, reason)
            if not ADMITTED.disabled:
                tell_admitted(self._facts(call, admitted))
            source = await self._ask(call, admitted)
            try:
                await self._answer(call, admitted, entry, source, answer)
            except ClientGone:
                pass  # settled all the same
            finally:
                await source.close()
        except Refused as refused:
            refused.of(admitted.hold.caller)
            raise
        finally:
            self._open_holds.remove(entry)

    def _facts(self, call: Call, admitted: Admitted) -> Facts:
        hold = admitted.hold
        return Facts(
            request=hold.rid,
            client_request=call.client_id,
            user=hold.caller.user_id,
            tier=admitted.quota.tier,
            model=hold.model,
            route=call.route.name,
            decision=admitted.decision,
            reason=admitted.reason,
            tokens=hold.hold_tokens,
            ms=round((self._clock.monotonic_s() - call.received_s) * 1000, 1),
        )

    async def _ask(self, call: Call, admitted: Admitted) -> UpstreamAnswer:
        """Send the request once; on failure end the hold and say what went wrong."""
        hold, terms = admitted.hold, self._services.terms
        model = terms.models[hold.model]
        named = model.upstream_model or call.request.model
        sending = Sending(named, hold.output_tokens, terms.dialects[model.upstream])
        body = call.request.upstream_body(sending)
        sent_s = self._clock.monotonic_s()
        self._metrics.added_seconds("before", sent_s - call.received_s)
        try:
            source = await self._upstream.send(
                UpstreamCall(
                    upstream=model.upstream,
                    model=sending.model,
                    path=call.route.upstream_path,
                    body=body,
                    rid=hold.rid,
                    user_id=hold.caller.user_id,
                )
            )
        except UpstreamUnreachable as error:
            await self._settlements.release(hold)
            raise gave_up(error) from None
        except (UpstreamBroke, UpstreamSilent) as error:
            raise await self._gave_up(hold, error) from None
        self._metrics.first_byte_seconds(hold.model, self._clock.monotonic_s() - sent_s)
        return source

    def _answer(
        self,
        call: Call,
        admitted: Admitted,
        entry: OpenHold,
        source: UpstreamAnswer,
        answer: Answer,
    ) -> Coroutine[Any, Any, None]:
        if source.head.status >= 300:
            return self._relay_error(admitted, source, answer)
        if source.head.content_type.startswith(_STREAM_TYPE):
            relay = Relay(call.request, (admitted.hold, entry), source, self._services)
            return relay.run(answer, _head(admitted, source.head, admitted.quota, None))
        return self._relay_whole(call, admitted, source, answer)

    async def _relay_whole(
        self, call: Call, admitted: Admitted, source: UpstreamAnswer, answer: Answer
    ) -> None:
        hold = admitted.hold
        try:
            body = await source.read()
        except (UpstreamBroke, UpstreamSilent) as error:
            raise await self._gave_up(hold, error) from None
        received_s = self._clock.monotonic_s()
        said = call.request.read_whole(body)
        usage = said.usage
        quality: Quality = "measured"
        if usage is None:
            quality = "estimated"
            usage = await self._services.estimator.usage(hold, call.request, said.texts())
        charged_tokens = await self._settlements.settle(
            hold,
            Ending(
                usage=usage,
                quality=quality,
                outcome="done",
                status=source.head.status,
                service_tier=said.service_tier,
                upstream_id=source.head.upstream_id,
            ),
        )
        quota = _after(admitted.quota, hold, charged_tokens)
        head = _head(admitted, source.head, quota, charged_tokens)
        self._metrics.added_seconds("after", self._clock.monotonic_s() - received_s)
        await answer.whole(head, body)

    async def _relay_error(
        self, admitted: Admitted, source: UpstreamAnswer, answer: Answer
    ) -> None:
        """Upstream's own refusal: nothing is charged; a 5xx leaves a row for the invoice."""
        hold, status = admitted.hold, source.head.status
        try:
            body = await source.read()
        except (UpstreamBroke, UpstreamSilent):
            body = b""
        if status >= 500:
            await self._book_unknown(hold, source.head.status, source.head.upstream_id)
        else:
            await self._settlements.release(hold)
        refused = refusal_of(status, body)
        if refused is not None:
            raise refused
        head = _head(admitted, source.head, _after(admitted.quota, hold, 0), None)
        await answer.whole(head, body)

    async def _gave_up(self, hold: Hold, error: UpstreamBroke | UpstreamSilent) -> Refused:
        """Upstream had the whole request and then failed; it may send an invoice for it."""
        refused = gave_up(error)
        await self._book_unknown(hold, refused.case.value.status, None)
        return refused

    async def _book_unknown(self, hold: Hold, status: int, upstream_id: str | None) -> None:
        await self._settlements.settle(
            hold,
            Ending(
                usage=NOTHING_USED,
                quality="estimated",
                outcome="unknown_upstream",
                status=status,
                upstream_id=upstream_id,
            ),
        )


def _head(
    admitted: Admitted, upstream: UpstreamHead, quota: QuotaView, charged_tokens: int | None
) -> AnswerHead:
    return AnswerHead(
        rid=admitted.hold.rid,
        status=upstream.status,
        content_type=upstream.content_type,
        quota=quota,
        relayed=upstream.relayed,
        retry_after=upstream.retry_after,
        charged_tokens=charged_tokens,
        output_cap_tokens=admitted.hold.output_tokens if admitted.lowered else None,
        decision=admitted.decision,
    )


def _after(quota: QuotaView, hold: Hold, charged_tokens: int) -> QuotaView:
    """The quota once this call has ended, as far as this call knows: the allowance pays first."""
    left = max(0, quota.limit_tokens - quota.used_tokens)
    from_packs = min(quota.pack_tokens, max(0, charged_tokens - left))
    return replace(
        quota,
        used_tokens=quota.used_tokens + charged_tokens - from_packs,
        held_tokens=max(0, quota.held_tokens - hold.hold_tokens),
        pack_tokens=quota.pack_tokens - from_packs,
    )
