"""Usage that did not pass through this gateway, as its callers report it.

An id names one piece of a user's usage: what is reported under it again must be the same. The
event's id in the ledger is made of user and id alone, so a repetition has the same one whenever and
wherever it comes, and no id of a caller's can be an id of ours. Who may report, and whether it
fits, is not decided here.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

import msgspec

from gateway.core.event import UsageEvent
from gateway.core.hold import Ending, Hold, line_of_ending, usage_event
from gateway.core.pricing import NANO, Price, held_nano_gbp
from gateway.core.usage import Usage

ROUTE: Final = "quota_usage"
"""What such an entry's route is called in the ledger, and the requests' in metrics."""

STATED: Final = "stated"
"""In place of a price list's id: the caller has said what it cost."""

TOKENS_MAX: Final = 10**9
"""Of one report; of every kind."""
GBP_MAX: Final = 100_000
"""Of one report."""


@dataclass(frozen=True, slots=True)
class Reported:
    """One piece of usage. `is_split`: prompt and output are told apart, else all is in the prompt.

    `nano_gbp` is what it cost by the caller; None: our price list says. `at_ms` is when it was
    used, which decides the price list; None: now.
    """

    id: str
    model: str
    prompt_tokens: int
    cached_tokens: int = 0
    output_tokens: int = 0
    is_split: bool = True
    nano_gbp: int | None = None
    tag: str | None = None
    at_ms: int | None = None

    @property
    def used(self) -> Usage:
        return Usage(self.prompt_tokens, self.cached_tokens, self.output_tokens, 0)

    def digest(self) -> bytes:
        """16 bytes that tell this content from any other."""
        return hashlib.blake2b(_encode(self), digest_size=16).digest()


_encode = msgspec.msgpack.Encoder().encode


def event_id_of(user_id: str, reported_id: str) -> str:
    """The ledger's id of a report: a UUIDv8 (RFC 9562, section 5.8), the same for ever.

    The payer is no part of it: a user who joins a team between two attempts is charged once.
    """
    name = f"usage\n{user_id}\n{reported_id}".encode()  # neither holds a line break
    value = int.from_bytes(hashlib.blake2b(name, digest_size=16, person=b"qg-usage").digest())
    value = value & ~(0xF << 76) | 0x8 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))


def remembered_as(reported_id: str) -> str:
    """Its name among a user's idempotency keys, which are printable: none is called so."""
    return f"usage\n{reported_id}"


def rounded_nano(pounds: Decimal) -> int:
    """Pounds as whole nano-GBP, rounded half up. The caller has checked that they are finite."""
    return int((pounds * NANO).to_integral_value(ROUND_HALF_UP))


def event_of(hold: Hold, reported: Reported) -> UsageEvent:
    """The entry of a report. Its price id says whose the cost is; it is estimated where our price
    list was asked about tokens that nobody told apart."""
    is_ours = reported.nano_gbp is None
    ending = Ending(
        usage=reported.used,
        quality="measured" if reported.is_split or not is_ours else "estimated",
        outcome="recorded",
        status=200,
    )
    event = usage_event(hold, ending, line_of_ending(hold, ending))
    if reported.nano_gbp is None:
        return event
    return msgspec.structs.replace(event, cost_nano_gbp=reported.nano_gbp, price_id=STATED)


def dearest_nano_gbp(price: Price, tokens: int) -> int:
    """The most that so many tokens can cost, of prompt or of output."""
    prompt, output = held_nano_gbp(price, tokens)
    return max(prompt, tokens * output)
