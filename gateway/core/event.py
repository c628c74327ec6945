"""Ledger rows and the events they are made of.

An event travels through the outbox in two parts: what the gateway knew (`UsageEvent`, whose JSON
keys are the ledger's column names) and what only the script knew (`ScriptPart`, a few integers).
The drain joins both into a `LedgerRow`. Amounts are tokens or nano-GBP, always integers.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from gateway.core.identity import member_of
from gateway.core.rid import derived_rid

Quality = Literal["measured", "estimated", "partial"]
Outcome = Literal[
    "done", "client_gone", "upstream_error", "expired", "recorded", "outage", "unknown_upstream"
]
PackSplit = tuple[tuple[str, int], ...]
"""Pack ids and the tokens that each of them paid."""
Kind = Literal["usage", "topup", "refund", "adjustment", "correction", "period_close"]


class HoldTail(msgspec.Struct, frozen=True, omit_defaults=True):
    """The skeleton of a hold's event, kept inside the hold.

    Without it no other gateway could write the ledger row of a hold whose own gateway died.
    """

    payer: str
    user_id: str
    tier: str
    route: str
    model: str
    price_id: str
    stream: bool = False
    tag: str | None = None
    sdk_retry: int = 0
    prompt_tokens: int = 0
    limit_tokens: int = 0
    tier_period_start_ms: int | None = None


class UsageEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the gateway knows when a hold ends. Token counts are raw; `charged_tokens` is weighted.

    `status` is the HTTP status the client saw (0: none).
    """

    event_id: str
    payer: str
    user_id: str
    tier: str
    route: str
    model: str
    price_id: str
    charged_tokens: int
    cost_nano_gbp: int
    quality: Quality
    outcome: Outcome
    stream: bool = False
    tag: str | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    service_tier: str | None = None
    status: int = 0
    sdk_retry: int = 0
    upstream_id: str | None = None
    client_id: str | None = None


class ScriptPart(msgspec.Struct, frozen=True, array_like=True):
    """What only the settle script knows, in the order in which it writes it.

    `booked_*` are what an expired hold had booked already: then this event corrects that one
    (`is_correction` is 1), and every amount is the difference. `pack_split` is what each pack paid.
    `crossed_percent` is the highest threshold this charge crossed, 0 for none. The last three are
    missing in events of release 0.1.
    """

    epoch: int
    account_seq: int
    period_ms: int
    held_tokens: int
    from_allowance: int
    from_packs: int
    overdraft_tokens: int
    booked_tokens: int
    booked_nano_gbp: int
    is_correction: int
    tier_period_start_ms: int = 0
    crossed_percent: int = 0
    pack_split: PackSplit = ()


class LedgerRow(msgspec.Struct, frozen=True):
    """One row of the ledger, as the drain hands it to Postgres. A struct, as the parts it is made
    of: a frozen dataclass takes ten times as long to make, and the drain makes them by thousands.
    """

    event: UsageEvent
    event_id: str
    kind: Kind
    corrects: str | None
    period_ms: int
    at_ms: int
    charged_tokens: int
    cost_nano_gbp: int
    held_tokens: int
    from_allowance: int
    from_packs: int
    overdraft_tokens: int
    shard: int
    epoch: int
    stream_id: str
    account_seq: int
    pack_split: PackSplit = ()
    tier_period_start_ms: int | None = None
    crossed_percent: int = 0

    @property
    def member(self) -> str | None:
        """The user as a member of a team; None where the user pays for themselves."""
        return member_of(self.event.payer, self.event.user_id)


class EventError(ValueError):
    """An outbox entry that no ledger row can be made of; the text says what is wrong with it."""


_encoder = msgspec.json.Encoder()
_event_decoder = msgspec.json.Decoder(UsageEvent)
_tail_decoder = msgspec.json.Decoder(HoldTail)
_part_decoder = msgspec.json.Decoder(ScriptPart)
_NUMBERS = 12
_PARTS_OF_0_1 = 10
_PAIR = re.compile(r"(.+):(-?[0-9]+)")
_MALFORMED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def encode_event(event: UsageEvent) -> bytes:
    """The event as JSON, ready for the outbox."""
    return _encoder.encode(event)


def encode_tail(tail: HoldTail) -> bytes:
    """The tail as JSON without spaces outside of strings."""
    return _encoder.encode(tail)


def decode_tail(raw: bytes) -> HoldTail:
    """The tail of a hold; EventError when it is not one."""
    try:
        return _tail_decoder.decode(raw)
    except _MALFORMED as error:
        raise EventError(f"hold tail: {error}") from error


def stream_position(stream_id: str) -> tuple[int, int]:
    """A stream id "ms-seq" in Redis's order, which is not that of its text."""
    ms, _, sequence = stream_id.partition("-")
    return int(ms), int(sequence or 0)


def parse_script_part(raw: bytes) -> ScriptPart:
    """Read field `b` of an outbox entry: integers with single spaces between them, and last the
    pack split as "id:tokens,id:tokens" or "-"."""
    if raw.count(b" ") == _PARTS_OF_0_1 - 1:
        raw += b" 0 0 -"
    numbers, _, split = raw.rpartition(b" ")
    try:
        if numbers.count(b" ") != _NUMBERS - 1:
            raise ValueError(f"{_NUMBERS} numbers and a split are expected")
        # With commas they are JSON, which is read four times as fast as text after text.
        part = _part_decoder.decode(b"[%b]" % numbers.replace(b" ", b","))
        if split == b"-":
            return part
        return msgspec.structs.replace(part, pack_split=parse_split(split.decode()))
    except (*_MALFORMED, ValueError) as error:
        raise EventError(f"script part {raw[:200]!r}: {error}") from error


def parse_split(text: str) -> PackSplit:
    """Read "id:tokens,id:tokens"; "-" is none. ValueError when it is neither."""
    if text == "-":
        return ()
    return tuple(_pair(item) for item in text.split(","))


def _pair(item: str) -> tuple[str, int]:
    found = _PAIR.fullmatch(item)
    if found is None:
        raise ValueError(f"{item!r} is not a pack and its tokens")
    return found[1], int(found[2])


def format_split(split: PackSplit) -> str:
    """The way back."""
    return ",".join(f"{pack_id}:{tokens}" for pack_id, tokens in split) or "-"


def ledger_row(shard: int, stream_id: str, event_json: bytes, script_part: bytes) -> LedgerRow:
    """Join both parts of an outbox entry. The row's time is the stream id's: the server's clock."""
    part = parse_script_part(script_part)
    try:
        event = _event_decoder.decode(event_json)
        # ValueError: what is corrected has no rid to derive one from.
        event_id = derived_rid(event.event_id, "late") if part.is_correction else event.event_id
    except (*_MALFORMED, ValueError) as error:
        raise EventError(f"event {event_json[:200]!r}: {error}") from error
    # Without names, in the order of the fields: of more than 15 names Python makes a dict first.
    return LedgerRow(
        event,
        event_id,
        "correction" if part.is_correction else "usage",
        event.event_id if part.is_correction else None,
        part.period_ms,
        int(stream_id.split("-", 1)[0]),
        event.charged_tokens - part.booked_tokens,
        event.cost_nano_gbp - part.booked_nano_gbp,
        part.held_tokens,
        part.from_allowance,
        part.from_packs,
        part.overdraft_tokens,
        shard,
        part.epoch,
        stream_id,
        part.account_seq,
        part.pack_split,
        part.tier_period_start_ms or None,
        part.crossed_percent,
    )
