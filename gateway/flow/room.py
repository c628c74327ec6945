"""What the store last said that payers have left, so that most prompts need not be counted.

A figure here is old by the time it is read: other gateways use the same account. So as long as the
store answers it may decide only how a prompt is counted, never whether a call is admitted; when it
does not, these are all there is (`flow/outage`). Memory is bounded: of a payer who was pushed out
nothing is known, as of one who never called.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from gateway.core.quota.reserve import ReserveCode, ReserveReply
from gateway.core.quota.settle import SettleCode, SettleReply

# A payer takes about 600 bytes here, so this is 12 MB; and one who has not called for 20,000 other
# payers pays with a single exact count.
ROOMS_MAX = 20_000

# All that a payer holds by bounds is at most a twentieth of what is left, so what bounds hold too
# much cannot keep out more than every twentieth of the calls that would fit beside each other.
BOUND_SHARE = 20

_NOT_OF_TOKENS = (ReserveCode.CONCURRENT, ReserveCode.REQUESTS)


class Room(msgspec.Struct, gc=False):
    """`left_tokens` of allowance and packs by what is settled, `held_tokens` of it by open holds.
    `reply` is the reserve that last told of it, to a call that came at `seen_s` (monotonic).
    `refused_left_tokens` were left when a call was last refused; None: never. `asked_s`: when the
    ledger was asked whether that is still so."""

    left_tokens: int
    held_tokens: int
    pack_tokens: int
    reply: ReserveReply
    seen_s: float
    refused_left_tokens: int | None = None
    asked_s: float = float("-inf")

    @property
    def used_tokens(self) -> int:
        """Of the allowance; what was used beyond it is not known here."""
        return self.reply.limit_tokens - (self.left_tokens - self.pack_tokens)


class Rooms:
    """The last known room of the `rooms_max` payers who called last."""

    def __init__(self, rooms_max: int = ROOMS_MAX) -> None:
        self._rooms_max = rooms_max
        self._rooms: OrderedDict[str, Room] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rooms)

    def last(self, payer: str) -> Room | None:
        """What was last said of this payer."""
        return self._rooms.get(payer)

    def take(self, payer: str, tokens: int) -> bool:
        """True when so much may be held without knowing the exact figure: there is plenty. It
        counts as held from now on, so that calls that come at once do not all take the same room.

        A payer who was refused is near a limit, where every token counts, until more is left than
        was then: a new period, a larger tier, a pack.
        """
        room = self._rooms.get(payer)
        if room is None or BOUND_SHARE * (room.held_tokens + tokens) > room.left_tokens:
            return False
        if room.refused_left_tokens is not None and room.left_tokens <= room.refused_left_tokens:
            return False
        room.held_tokens += tokens
        return True

    def reserved(self, payer: str, reply: ReserveReply, seen_s: float) -> None:
        """A hold was made, or refused, for a call that came at `seen_s`."""
        if reply.code is ReserveCode.HELD:
            self._note(payer, reply, seen_s)
        elif reply.code is ReserveCode.MEMBER:  # its figures are the member's
            room = self._rooms.get(payer)
            if room is not None:
                room.refused_left_tokens = room.left_tokens
        elif reply.code <= ReserveCode.MONTH and reply.code not in _NOT_OF_TOKENS:
            room = self._note(payer, reply, seen_s)
            room.refused_left_tokens = room.left_tokens

    def settled(self, payer: str, reply: SettleReply) -> None:
        """A hold ended. The reply tells of packs only what this charge took of them."""
        room = self._rooms.get(payer)
        if room is None or reply.code is SettleCode.NOT_READY:
            return
        if not reply.limit_tokens:  # there was no account to count it: nothing is known any more
            del self._rooms[payer]
            return
        if reply.from_packs:
            room.pack_tokens = max(0, room.pack_tokens - reply.from_packs)
        left_tokens = reply.limit_tokens - reply.used_tokens
        room.left_tokens = (left_tokens if left_tokens > 0 else 0) + room.pack_tokens
        room.held_tokens = reply.held_tokens

    def _note(self, payer: str, reply: ReserveReply, seen_s: float) -> Room:
        left_tokens = reply.limit_tokens - reply.used_tokens
        left_tokens = (left_tokens if left_tokens > 0 else 0) + reply.pack_tokens
        room = self._rooms.get(payer)
        if room is None:
            room = Room(left_tokens, reply.held_tokens, reply.pack_tokens, reply, seen_s)
            self._rooms[payer] = room
            if len(self._rooms) > self._rooms_max:
                self._rooms.popitem(last=False)
        else:
            room.left_tokens, room.held_tokens = left_tokens, reply.held_tokens
            room.pack_tokens = reply.pack_tokens
            room.reply, room.seen_s = reply, seen_s
            self._rooms.move_to_end(payer)
        return room
