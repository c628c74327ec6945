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

from gateway.core.event import encode_tail
from gateway.core.hold import Caller, Hold, tail_of
from gateway.core.idempotency import IdempotencyKey
from gateway.core.identity import Identity
from gateway.core.inference.request import InferenceRequest
from gateway.core.models import Model
from gateway.core.period import Period
from gateway.core.plan import Tier
from gateway.core.pricing import held_nano_gbp
from gateway.core.quota.reserve import Limits, ReserveAsk, ReserveCode, ReserveReply
from gateway.core.refusal import QuotaView
from gateway.core.routes import Route
from gateway.flow.entitled import Entitled, Entitlements
from gateway.flow.hydrate import Hydrator
from gateway.flow.identify import Identities, backend_unavailable
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


class Call(msgspec.Struct, frozen=True, gc=False):
    """One request as the web read it: who says they are calling, and what they ask.

    `received_s` is monotonic time when the head of the request had come.
    """

    rid: str
    route: Route
    key_digest: bytes
    request: InferenceRequest
    body_bytes: int
    received_s: float
    tag: str | None
    sdk_retry: int
    client_id: str | None
    idempotency_key: IdempotencyKey | None = None


class Admitted(msgspec.Struct, frozen=True, gc=False):
    """A call that holds its tokens, or may go out without (`outage`). `lowered`: the cap is less
    than was wanted."""

    hold: Hold
    quota: QuotaView
    lowered: bool

    @property
    def decision(self) -> Decision:
        return "outage" if self.hold.in_outage else "admitted"


@dataclass(frozen=True, slots=True)
class Stores:
    """What admission reads and writes."""

    store: QuotaStore
    directory: Directory
    shards: Shards
    hydrator: Hydrator
    identities: Identities
    settlements: Settlements


class Admission:
    """Holds what a call may cost, or refuses it. `limits`: what binds the payers of each tier."""

    def __init__(self, stores: Stores, terms: Terms, prompts: PromptCounter, clock: Clock) -> None:
        self._stores = stores
        self._terms = terms
        self.limits = {tier.name: Limits(tokens=tier.tokens) for tier in terms.plan.tiers.values()}
        settlements = stores.settlements
        self._rooms = settlements.rooms
        self._outage = Outage(terms.outage, settlements.rooms, settlements.spending, clock)
        self._entitlements = Entitlements(stores.identities, stores.directory, stores.store, terms)
        self._prompts = prompts
        self._clock = clock

    async def admit(self, call: Call) -> Admitted:
        """The hold, or Refused. A refused call holds nothing."""
        request = call.request
        entitled = await self._entitlements.of(call.key_digest, request.model)
        identity, tier, model = entitled.identity, entitled.tier, entitled.model
        wanted, least = request.output_bounds(model)
        tokens_max = call.body_bytes + wanted * request.choices
        is_bound = self._has_plenty(identity.payer, tier, tokens_max) and request.text_only
        now_ms = self._clock.now_ms()
        period = identity.calendar.period_at(now_ms)
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
            limit_tokens=tier.tokens,
            service_tier=request.service_tier,
        )
        try:
            return await self._reserve(call, entitled, period, asked, least)
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

    def _has_plenty(self, payer: str, tier: Tier, tokens_max: int) -> bool:
        """Whether so much may be held without being counted: a tokenizer on bytes never makes more
        tokens of a text than it has bytes.

        Not for payers whose tokens a minute are limited: what a hold takes of a minute is not given
        back when it ends.
        """
        limits = self.limits[tier.name]
        return limits.tokens_a_minute is None and self._rooms.take(payer, tokens_max)

    async def _counted(self, call: Call, model: Model) -> int:
        return await self._prompts.exactly(call.request, call.body_bytes, model)

    async def _reserve(
        self, call: Call, entitled: Entitled, period: Period, asked: Hold, least: int
    ) -> Admitted:
        identity, tier = entitled.identity, entitled.tier
        for _ in range(_ASKS_MAX):
            reply = await self._stores.store.reserve(
                self._ask(identity, tier, period, asked, least)
            )
            self._rooms.reserved(identity.payer, reply, call.received_s)
            if reply.code > 0:
                if self._stores.shards.has_lost(identity.payer, reply.epoch):
                    continue  # made before a loss, and told after it: nothing holds it any more
                return _admitted(asked, tier, reply)
            if reply.code <= ReserveCode.MONTH and asked.prompt_is_bound:
                # A refusal is not stored, so the same rid may ask again, with what it really needs.
                counted = await self._counted(call, entitled.model)
                asked = replace(asked, prompt_tokens=counted, prompt_is_bound=False)
            elif reply.code <= ReserveCode.MONTH:
                raise quota_refusal(reply, asked, least, self._terms).of_tier(tier.name)
            elif reply.code is ReserveCode.NOT_READY:
                shards = self._stores.shards
                await shards.ready(shards.of(identity.payer), reply.wait_ms)
            elif reply.code is ReserveCode.HYDRATE:
                member = asked.caller.member
                period = identity.calendar.period_at(reply.now_ms)  # it begins where this says
                await self._stores.hydrator.hydrate(identity.payer, period, member)
            elif reply.code is ReserveCode.PERIOD:
                period = identity.calendar.period_at(reply.now_ms)
            elif reply.code is ReserveCode.STALE:
                identity = await self._entitlements.read_again(call.key_digest, period, reply.rev)
                tier = self._entitlements.allowed(identity, call.request.model).tier
                asked = replace(asked, caller=_caller(identity, call), limit_tokens=tier.tokens)
            else:
                break
        raise StoreNotReady("the account did not come into force")

    async def _admit_in_outage(
        self, call: Call, entitled: Entitled, asked: Hold, least: int
    ) -> Admitted:
        """Let a call go out that nothing is held for, or refuse it by what is remembered."""
        identity, outage = entitled.identity, self._outage
        refusal = outage.refusal(asked, least, identity)
        if refusal is not None and outage.may_ask_ledger(identity.payer):
            # It must not outlive a pack, or another tier, that the store could not be told of.
            identity = await self._entitlements.anew(call.key_digest, identity)
            refusal = outage.refusal(asked, least, identity)
        if refusal is not None:
            raise quota_refusal(refusal, asked, least, self._terms).of_tier(identity.tier)
        if outage.may_admit(identity.payer):
            if asked.prompt_is_bound:
                counted = await self._counted(call, entitled.model)
                asked = replace(asked, prompt_tokens=counted, prompt_is_bound=False)
            admitted = outage.admit(asked, least, identity)
            if admitted is not None:
                hold, quota = admitted
                return Admitted(hold, quota, lowered=hold.output_tokens < asked.output_tokens)
        raise backend_unavailable("its counters")

    def _ask(
        self, identity: Identity, tier: Tier, period: Period, asked: Hold, least: int
    ) -> ReserveAsk:
        prompt_nano_gbp, output_nano_gbp = held_nano_gbp(
            asked.price, asked.prompt_tokens, asked.service_tier
        )
        return ReserveAsk(
            asked.rid,  # by place: with more than 15 by name, CPython makes a dict of them first
            identity.payer,
            tier.name,
            identity.rev,
            period_start_ms=period.start_ms,
            period_end_ms=period.end_ms,
            limits=self.limits[tier.name],
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
            member_rev=identity.rev,
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


def _admitted(asked: Hold, tier: Tier, reply: ReserveReply) -> Admitted:
    hold = replace(
        asked,
        output_tokens=reply.output_tokens,
        hold_tokens=reply.hold_tokens,
        epoch=reply.epoch,
        period_start_ms=reply.period_start_ms,
    )
    quota = quota_view(reply, tier.name)
    return Admitted(hold, quota, lowered=reply.output_tokens < asked.output_tokens)
