"""What may be spent while Redis does not answer, by whom, and how much of it Redis does not know.

Mode `bounded`: a payer of whom Redis said something in the last ten minutes may spend so many
tokens in this process, and no more than was left of the quota then. `closed`: nobody anything.
`open`: everybody. What was spent counts until its settlement is confirmed, so a Redis that comes
and goes renews no budget. Nothing is held in Redis for such a call; it refuses to know how it ends.
"""

from __future__ import annotations

from msgspec.structs import replace

from gateway.core.hold import Hold
from gateway.core.identity import Identity
from gateway.core.quota.reserve import Limits, ReserveCode, ReserveReply
from gateway.core.refusal import QuotaView
from gateway.core.rid import derived_rid
from gateway.flow.room import Room, Rooms
from gateway.flow.terms import OutageMode, OutageTerms
from gateway.ports.clock import Clock

SEEN_S = 600.0
"""Who called longer ago is unknown: others may have used what was left then."""

ASK_EVERY_S = 1.0

CALLS_MAX = 100_000
"""Calls of outages that Redis does not know yet. With its settlement, which waits in memory too,
each takes about 2 kB."""


class Spending:
    """What payers have taken that Redis does not know yet: what calls under way may still cost,
    and what ended ones did cost until that was booked."""

    def __init__(self, calls_max: int = CALLS_MAX) -> None:
        self._calls_max = calls_max
        self._calls: dict[str, tuple[str, int]] = {}
        self._taken: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def taken(self, payer: str) -> int:
        """Tokens of this payer."""
        return self._taken.get(payer, 0)

    def take(self, payer: str, rid: str, tokens: int) -> bool:
        """A call begins that may cost so much. False when there are too many of them."""
        if len(self._calls) >= self._calls_max:
            return False
        self._set(payer, rid, tokens)
        return True

    def ended(self, rid: str, tokens: int) -> None:
        """It has cost so much; of one that cost nothing there is nothing to be booked."""
        call = self._calls.get(rid)
        if call is None:
            return
        if tokens:
            self._set(call[0], rid, tokens)
        else:
            self.booked(rid)

    def booked(self, rid: str) -> None:
        """Redis has confirmed it. Of a call that held its tokens there nothing is known here."""
        if rid in self._calls:
            payer = self._calls[rid][0]
            self._set(payer, rid, 0)
            del self._calls[rid]
            if not self._taken[payer]:
                del self._taken[payer]

    def _set(self, payer: str, rid: str, tokens: int) -> None:
        before = self._calls.get(rid, (payer, 0))[1]
        self._calls[rid] = (payer, tokens)
        self._taken[payer] = self._taken.get(payer, 0) - before + tokens


class Outage:
    """Admits calls that nothing can be held for."""

    def __init__(self, terms: OutageTerms, rooms: Rooms, spending: Spending, clock: Clock) -> None:
        self._mode, self._tokens = terms.mode, terms.tokens
        self._rooms = rooms
        self._spending = spending
        self._clock = clock

    def refusal(
        self, asked: Hold, least: int, identity: Identity, limits: Limits
    ) -> ReserveReply | None:
        """What Redis would answer a payer whose month is used up, whatever becomes of open holds:
        by its last figures, as long as the period runs and the entitlement is the same.

        None: that is not known. A prompt that is only bounded has room by far.
        """
        room = self._room(asked.caller.payer)
        if self._mode_of(limits) == "open" or room is None or asked.prompt_is_bound:
            return None
        needed = asked.prompt_tokens + least * asked.choices
        if room.reply.rev != identity.rev or needed <= room.left_tokens:
            return None
        return replace(
            room.reply,
            code=ReserveCode.MONTH,
            used_tokens=room.used_tokens,
            held_tokens=room.held_tokens,
            pack_tokens=room.pack_tokens,
            wait_ms=room.reply.period_end_ms - self._clock.now_ms(),
        )

    def may_ask_ledger(self, payer: str) -> bool:
        """Once a second: whoever is refused may try again at once, and many times."""
        room, now_s = self._rooms.last(payer), self._clock.monotonic_s()
        if room is None or now_s - room.asked_s < ASK_EVERY_S:
            return False
        room.asked_s = now_s
        return True

    def may_admit(self, payer: str, limits: Limits) -> bool:
        """Whether it is worth counting the prompt of a call of this payer."""
        mode = self._mode_of(limits)
        return mode == "open" or (mode == "bounded" and self._left(payer) > 0)

    def _mode_of(self, limits: Limits) -> OutageMode:
        """What happens to a call with these limits. A shadow tier refuses nobody. What is left of a
        member's ceiling, or of a cap of a whole tier, is known to Redis alone, and both must hold:
        nothing of it is spent."""
        if limits.shadow:
            return "open"
        is_unknown = limits.member_tokens is not None or limits.tier_period_start_ms is not None
        return "closed" if is_unknown and self._mode == "bounded" else self._mode

    def admit(
        self, asked: Hold, least: int, identity: Identity, limits: Limits
    ) -> tuple[Hold, QuotaView] | None:
        """The call without a hold, its cap lowered to what is left; None when that is too little.

        It has a rid of its own: one under which a reserve may still arrive would be held, or have
        been released, by the time this call is booked.
        """
        payer, output = asked.caller.payer, asked.output_tokens
        if self._mode_of(limits) != "open":
            room_for = (self._left(payer) - asked.prompt_tokens) // asked.choices
            output = min(output, room_for)
            if output < least:
                return None
        rid, tokens = derived_rid(asked.rid, "outage"), asked.prompt_tokens + output * asked.choices
        if not self._spending.take(payer, rid, tokens):
            return None
        room = self._room(payer)
        if room is not None:
            starts_ms, ends_ms = room.reply.period_start_ms, room.reply.period_end_ms
        else:
            period = identity.calendar.period_at(self._clock.now_ms())
            starts_ms, ends_ms = period.start_ms, period.end_ms
        hold = replace(
            asked,
            rid=rid,
            output_tokens=output,
            hold_tokens=tokens,
            period_start_ms=starts_ms,
            period_end_ms=ends_ms,
            in_outage=True,
        )
        return hold, _view(hold, room)

    def _left(self, payer: str) -> int:
        """What this payer may still spend here, in tokens."""
        room = self._room(payer)
        is_seen = room is not None and self._clock.monotonic_s() - room.seen_s <= SEEN_S
        if room is None or not is_seen:
            return 0
        most = min(self._tokens, room.left_tokens - room.held_tokens)
        return most - self._spending.taken(payer)

    def _room(self, payer: str) -> Room | None:
        """What was last said, if its period still runs: of the next one nothing is known."""
        room = self._rooms.last(payer)
        return room if room and self._clock.now_ms() < room.reply.period_end_ms else None


def _view(hold: Hold, room: Room | None) -> QuotaView:
    """The quota by what was said last; where nothing was, it is whole."""
    tier, ends_ms = hold.caller.tier, hold.period_end_ms
    if room is None:
        return QuotaView(tier, hold.limit_tokens, 0, 0, 0, ends_ms)
    limit_tokens = room.reply.limit_tokens
    return QuotaView(
        tier, limit_tokens, room.used_tokens, room.held_tokens, room.pack_tokens, ends_ms
    )
