"""Whether a call may go out: its user, its price in tokens, and one reserve that holds them.

Usually that is one look into memory and one round trip to Redis. The store may instead ask for
something to be mended first (an account to be brought back, a newer entitlement to be read, a
period to be computed anew); then the same rid asks again. Postgres is read only for that.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import msgspec
from msgspec.structs import replace

from gateway.core.credential import Credential
from gateway.core.event import encode_tail
from gateway.core.hold import Caller, Hold, tail_of
from gateway.core.idempotency import IdempotencyKey
from gateway.core.identity import Identity
from gateway.core.inference.request import InferenceRequest
from gateway.core.models import Model
from gateway.core.period import Period
from gateway.core.pricing import held_nano_gbp
from gateway.core.quota.reserve import ReserveAsk, ReserveCode, ReserveReply
from gateway.core.refusal import Case, QuotaView
from gateway.core.routes import Route
from gateway.flow.entitled import Entitled, Entitlements
from gateway.flow.first_refusals import FirstRefusals
from gateway.flow.hydrate import Hydrator
from gateway.flow.identify import Identities, backend_unavailable
from gateway.flow.limits import Binding, Bindings
from gateway.flow.outage import Outage
from gateway.flow.prompt_count import PromptCounter
from gateway.flow.quota_refusal import quota_refusal, quota_view
from gateway.flow.settlements import Settlements
from gateway.flow.shards import Shards
from gateway.flow.terms import Terms
from gateway.ports.clock import Clock
from gateway.ports.directory import Directory
from gateway.ports.ledger import LedgerUnavailable
from gateway.ports.metrics import Decision
from gateway.ports.quota_store import QuotaStore, StoreNotAsked, StoreNotReady, StoreUnavailable

# A call mends at most a closed shard, a missing account, an old revision and an old period, each
# once or twice when others mend at the same time; and it waits for a quiet time.
_ASKS_MAX = 24
_MENDED_HERE = (ReserveCode.PERIOD, ReserveCode.STALE)


class Call(msgspec.Struct, frozen=True, gc=False):
    """One request as the web read it: who says they are calling, and what they ask.

    `received_s` is monotonic time when the head of the request had come.
    """

    rid: str
    route: Route
    credential: Credential
    request: InferenceRequest
    body_bytes: int
    received_s: float
    tag: str | None
    sdk_retry: int
    client_id: str | None
    idempotency_key: IdempotencyKey | None = None


class Admitted(msgspec.Struct, frozen=True, gc=False):
    """A call that holds its tokens, or may go out without (`outage`). `lowered`: the cap is less
    than was wanted. `spared`: why a tier that is no shadow would have refused it; None: it would
    not."""

    hold: Hold
    quota: QuotaView
    lowered: bool
    spared: Case | None = None

    @property
    def decision(self) -> Decision:
        if self.spared is not None:
            return "shadow-refused"
        return "outage" if self.hold.in_outage else "admitted"

    @property
    def reason(self) -> str:
        """What stands beside the decision in the metrics."""
        return "ok" if self.spared is None else self.spared.value.code


@dataclass(frozen=True, slots=True)
class Stores:
    """What admission reads and writes."""

    store: QuotaStore
    directory: Directory
    shards: Shards
    hydrator: Hydrator
    identities: Identities
    settlements: Settlements
    first_refusals: FirstRefusals


class Admission:
    """Holds what a call may cost, or refuses it."""

    def __init__(self, stores: Stores, terms: Terms, prompts: PromptCounter, clock: Clock) -> None:
        self._stores = stores
        self._terms = terms
        self._bindings = Bindings(terms.plan)
        settlements = stores.settlements
        self._rooms = settlements.rooms
        self._outage = Outage(terms.outage, settlements.rooms, settlements.spending, clock)
        self._entitlements = Entitlements(stores.identities, stores.directory, stores.store, terms)
        self._prompts = prompts
        self._clock = clock

    async def admit(self, call: Call) -> Admitted:
        """The hold, or Refused. A refused call holds nothing."""
        request = call.request
        entitled = await self._entitlements.of(call.credential, request.model)
        identity, model = entitled.identity, entitled.model
        now_ms = self._clock.now_ms()
        period, binding = of_now = self._of_now(identity, now_ms)
        wanted, least = request.output_bounds(model)
        tokens_max = call.body_bytes + wanted * request.choices
        # A tokenizer on bytes never makes more tokens of a text than it has bytes.
        has_plenty = binding.by_bytes and self._rooms.take(identity.payer, tokens_max)
        is_bound = has_plenty and request.text_only
        asked = Hold(
            rid=call.rid,
            caller=_caller(identity, call),
            route=call.route.name,
            model=model.name,
            stream=request.stream,
            price=self._terms.prices.price_for(model.name, now_ms),
            weights=model.weights,
            prompt_tokens=call.body_bytes if is_bound else await self._counted(call, model),
            prompt_is_bound=is_bound,
            output_tokens=wanted,
            choices=request.choices,
            # For a release that finds the hold expired: its correction belongs to a period.
            period_start_ms=period.start_ms,
            limit_tokens=binding.limits.tokens,
            tier_period_start_ms=binding.limits.tier_period_start_ms,
            service_tier=request.service_tier,
        )
        try:
            return await self._reserve(call, entitled, of_now, asked, least)
        except StoreUnavailable as error:
            if not isinstance(error, StoreNotAsked):
                # Whether anything is held is unknown: it is released under its rid, seen or not.
                self._stores.settlements.release_later(asked)
            if isinstance(error, StoreNotReady):
                raise backend_unavailable("its counters") from error
            return await self._admit_in_outage(call, entitled, asked, least)
        except LedgerUnavailable as error:
            raise backend_unavailable("its ledger") from error
        except asyncio.CancelledError:
            self._stores.settlements.release_later(asked)
            raise

    def _of_now(self, identity: Identity, now_ms: int) -> tuple[Period, Binding]:
        """The payer's period, and what binds a call in it."""
        return identity.calendar.period_at(now_ms), self._bindings.of(identity, now_ms)

    async def _counted(self, call: Call, model: Model) -> int:
        return await self._prompts.exactly(call.request, call.body_bytes, model)

    async def _reserve(
        self,
        call: Call,
        entitled: Entitled,
        of_now: tuple[Period, Binding],
        asked: Hold,
        least: int,
    ) -> Admitted:
        identity = entitled.identity
        for _ in range(_ASKS_MAX):
            reply = await self._stores.store.reserve(self._ask(identity, of_now, asked, least))
            self._rooms.reserved(identity.payer, reply, call.received_s)
            if reply.code > 0:
                if self._stores.shards.has_lost(identity.payer, reply.epoch):
                    continue  # made before a loss, and told after it: nothing holds it any more
                return self._admitted(entitled, asked, least, reply)
            if reply.code <= ReserveCode.MONTH and asked.prompt_is_bound:
                # A refusal is not stored, so the same rid may ask again, with what it really needs.
                counted = await self._counted(call, entitled.model)
                asked = replace(asked, prompt_tokens=counted, prompt_is_bound=False)
            elif reply.code <= ReserveCode.MONTH:
                refused = quota_refusal(reply, asked, least, self._terms)
                self._stores.first_refusals.note(refused, identity, reply)
                raise refused.of(identity)
            elif reply.code is ReserveCode.NOT_READY:
                shards = self._stores.shards
                await shards.ready(shards.of(identity.payer), reply.wait_ms)
            elif reply.code is ReserveCode.HYDRATE:
                member = asked.caller.member
                period = identity.calendar.period_at(reply.now_ms)  # it begins where this says
                of_now = (period, of_now[1])
                await self._stores.hydrator.hydrate(identity.payer, period, member)
            elif reply.code in _MENDED_HERE:
                if reply.code is ReserveCode.STALE:
                    identity = await self._entitlements.read_again(call.credential, identity, reply)
                    entitled = self._entitlements.allowed(identity, call.request.model)
                of_now = self._of_now(identity, reply.now_ms)
                limits = of_now[1].limits
                asked = replace(
                    asked,
                    caller=_caller(identity, call),
                    limit_tokens=limits.tokens,
                    tier_period_start_ms=limits.tier_period_start_ms,
                )
            else:
                break
        raise StoreNotReady("the account did not come into force")

    def _admitted(
        self, entitled: Entitled, asked: Hold, least: int, reply: ReserveReply
    ) -> Admitted:
        hold = replace(
            asked,
            output_tokens=reply.output_tokens,
            hold_tokens=reply.hold_tokens,
            epoch=reply.epoch,
            period_start_ms=reply.period_start_ms,
        )
        spared = entitled.spared
        if reply.spared:
            refusal = replace(reply, code=ReserveCode(reply.spared))
            spared = quota_refusal(refusal, asked, least, self._terms).case
        quota = quota_view(reply, asked.caller.tier)
        return Admitted(hold, quota, reply.output_tokens < asked.output_tokens, spared)

    async def _admit_in_outage(
        self, call: Call, entitled: Entitled, asked: Hold, least: int
    ) -> Admitted:
        """Let a call go out that nothing is held for, or refuse it by what is remembered."""
        identity, outage = entitled.identity, self._outage
        limits = self._bindings.of(identity, self._clock.now_ms()).limits
        refusal = outage.refusal(asked, least, identity, limits)
        if refusal is not None and outage.may_ask_ledger(identity.payer):
            # It must not outlive a pack, or another tier, that the store could not be told of.
            identity = await self._entitlements.anew(call.credential, identity)
            limits = self._bindings.of(identity, self._clock.now_ms()).limits
            refusal = outage.refusal(asked, least, identity, limits)
        if refusal is not None:
            raise quota_refusal(refusal, asked, least, self._terms).of(identity)
        if outage.may_admit(identity.payer, limits):
            if asked.prompt_is_bound:
                counted = await self._counted(call, entitled.model)
                asked = replace(asked, prompt_tokens=counted, prompt_is_bound=False)
            admitted = outage.admit(asked, least, identity, limits)
            if admitted is not None:
                hold, quota = admitted
                return Admitted(hold, quota, lowered=hold.output_tokens < asked.output_tokens)
        raise backend_unavailable("its counters")

    def _ask(
        self, identity: Identity, of_now: tuple[Period, Binding], asked: Hold, least: int
    ) -> ReserveAsk:
        period, binding = of_now
        prompt_nano_gbp, output_nano_gbp = held_nano_gbp(
            asked.price, asked.prompt_tokens, asked.service_tier
        )
        return ReserveAsk(
            asked.rid,  # by place: with more than 15 by name, CPython makes a dict of them first
            identity.payer,
            identity.tier,
            identity.rev,
            period_start_ms=period.start_ms,
            period_end_ms=period.end_ms,
            limits=binding.limits,
            prompt_tokens=asked.prompt_tokens,
            output_wanted=asked.output_tokens,
            # A bound must not lower the cap either: then the exact figure is asked for.
            output_least=asked.output_tokens if asked.prompt_is_bound else least,
            choices=asked.choices,
            lease_ms=self._terms.lease_ms,
            tail=encode_tail(tail_of(asked)),
            prompt_nano_gbp=prompt_nano_gbp,
            output_nano_gbp=output_nano_gbp,
            member=asked.caller.member,
            member_rev=identity.member_rev or 0,
        )


def _caller(identity: Identity, call: Call) -> Caller:
    return Caller(
        user_id=identity.user_id,
        payer=identity.payer,
        tier=identity.tier,
        calendar=identity.calendar,
        tag=call.tag,
        sdk_retry=call.sdk_retry,
        client_id=call.client_id,
    )
