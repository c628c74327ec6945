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
from gateway.core.refusal import Case, QuotaView, Refused
from gateway.core.routes import Route
from gateway.flow.hydrate import Hydrator
from gateway.flow.identify import Identities, backend_unavailable
from gateway.flow.prompt_count import PromptCounter
from gateway.flow.quota_refusal import quota_refusal, quota_view
from gateway.flow.settlements import Settlements
from gateway.flow.shards import Shards
from gateway.flow.terms import Terms
from gateway.ports.clock import Clock
from gateway.ports.directory import Directory
from gateway.ports.ledger import LedgerUnavailable
from gateway.ports.quota_store import QuotaStore, StoreNotAsked, StoreUnavailable
from gateway.ports.tasks import spawn

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
    """A call that holds its tokens. `lowered`: the cap is less than was wanted."""

    hold: Hold
    quota: QuotaView
    lowered: bool


class _Entitled(msgspec.Struct, frozen=True, gc=False):
    """Who calls, and what under."""

    identity: Identity
    tier: Tier
    model: Model


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
        self._rooms = stores.settlements.rooms
        self._prompts = prompts
        self._clock = clock

    async def admit(self, call: Call) -> Admitted:
        """The hold, or Refused. A refused call holds nothing."""
        request = call.request
        entitled = await self._identify(call)
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
                await self._stores.settlements.release(asked)
            raise backend_unavailable("its counters") from error
        except LedgerUnavailable as error:
            raise backend_unavailable("its ledger") from error
        except asyncio.CancelledError:
            spawn(self._stores.settlements.release(asked), f"release {asked.rid}")
            raise

    async def _identify(self, call: Call) -> _Entitled:
        """Who calls, under which terms. A refusal here never reaches the store, which would find
        out that what is remembered is old; so the ledger is asked once more before one."""
        identities = self._stores.identities
        identity = identities.remembered(call.key_digest)
        if identity is None:
            identity = await identities.again(call.key_digest)
        try:
            return self._allowed(identity, call.request.model)
        except Refused:
            if self._terms.models.find(call.request.model) is None:
                raise  # no entitlement could change that
            identity = await identities.again(call.key_digest)
            return self._allowed(identity, call.request.model)

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
        self, call: Call, entitled: _Entitled, period: Period, asked: Hold, least: int
    ) -> Admitted:
        identity, tier = entitled.identity, entitled.tier
        for _ in range(_ASKS_MAX):
            reply = await self._stores.store.reserve(
                self._ask(identity, tier, period, asked, least)
            )
            self._rooms.reserved(identity.payer, reply)
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
                identity = await self._read_again(call, period, reply.rev)
                tier = self._allowed(identity, call.request.model).tier
                asked = replace(asked, caller=_caller(identity, call), limit_tokens=tier.tokens)
            else:
                break
        raise StoreUnavailable("the account did not come into force")

    async def _read_again(self, call: Call, period: Period, rev_in_store: int) -> Identity:
        """The identity by the ledger, and its entitlement in the store if that is the older one.

        A store that knows a later revision than the ledger was told of changes that are gone: the
        ledger came back from a backup. What it says now is given a revision past that one.
        """
        identity = await self._stores.identities.again(call.key_digest)
        if identity.rev < rev_in_store:
            await self._stores.directory.raise_revision(identity.payer, rev_in_store)
            identity = await self._stores.identities.again(call.key_digest)
        if identity.rev > rev_in_store:
            entitlement = await self._stores.directory.entitlement(
                identity.payer, None, period.start_ms
            )
            if entitlement is not None:
                await self._stores.store.entitle(entitlement, period.end_ms)
        return identity

    def _allowed(self, identity: Identity, model_name: str) -> _Entitled:
        tier = self._terms.plan.tiers.get(identity.tier)
        if tier is None:
            raise backend_unavailable(f"the terms of tier '{identity.tier}'")
        model = self._terms.models.find(model_name)
        if model is None or not tier.allows(model.name):
            offered = ", ".join(each.name for each in self._terms.models if tier.allows(each.name))
            raise Refused(
                Case.MODEL_NOT_ALLOWED,
                f"The model '{model_name}' is not available on the tier '{tier.name}'. "
                f"Available: {offered}.",
                param="model",
            ).of_tier(tier.name)
        return _Entitled(identity, tier, model)

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
