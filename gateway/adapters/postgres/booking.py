"""One transaction of the drain: entries, their sums, the cursors, and what could not be booked.

Promises that every entry handed over ends in `ledger` once or in `ledger_dead` once, whatever is
handed over again, that what was counted twice is told before anything is committed, and that one
bad entry never keeps the others out: when the server rejects a batch it is halved until the bad
entry stands alone. Refuses to know where entries come from, and how a count is taken back.
"""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from gateway.adapters.postgres.connection import Connection, foreign, translated
from gateway.adapters.postgres.doubles import corrections, counted_twice, excess
from gateway.adapters.postgres.notices import note_crossings
from gateway.adapters.postgres.statements import drain
from gateway.core.event import (
    LedgerRow,
    PackSplit,
    encode_event,
    format_split,
    stream_position,
)
from gateway.ports.ledger import BookReply, DeadEntry, TakeBack

# A reason is for people; an error that quotes a whole row is cut.
_REASON_CHARS_MAX = 2_000

COLUMNS = (
    "event_id", "period", "kind", "at", "payer", "user_id", "tier", "route", "model", "stream",
    "tag", "prompt_tokens", "cached_tokens", "output_tokens", "reasoning_tokens",
    "charged_tokens", "held_tokens", "from_allowance", "from_packs", "pack_split",
    "overdraft_tokens", "cost_nano_gbp", "price_id", "service_tier", "quality", "outcome",
    "status", "sdk_retry", "upstream_id", "client_id", "corrects", "shard", "epoch", "stream_id",
    "account_seq", "tier_period",
)  # fmt: skip


async def book_batch(
    connection: Connection,
    rows: Sequence[LedgerRow],
    dead: Sequence[DeadEntry],
    take_back: TakeBack,
) -> BookReply:
    """Book inside the caller's transaction; see Ledger.book."""
    await connection.execute(drain.MAKE_INCOMING)
    booked, rejected = await _insert_or_halve(connection, rows)
    known = len(rows) - len(booked) - len(rejected)
    if known and (doubles := await counted_twice(connection, _rest(rows, booked, rejected))):
        late, late_rejected = await _insert_or_halve(connection, corrections(doubles))
        booked, rejected = [*booked, *late], [*rejected, *late_rejected]
        if too_much := await excess(connection, doubles):
            # Before the cursors are locked: raising an epoch must not wait for what Redis does.
            with foreign():
                await take_back(too_much)
    await note_crossings(connection, booked)
    buried = await _bury(connection, [*dead, *rejected])
    await _advance_cursors(connection, rows, [*dead, *rejected])
    return BookReply(booked=booked, repeated=known, dead=buried)


def dead_entry(row: LedgerRow, reason: str) -> DeadEntry:
    """The outbox entry that `row` was made of, so that it can be read again once it is mended."""
    is_correction = row.corrects is not None
    numbers = (
        row.epoch, row.account_seq, row.period_ms, row.held_tokens, row.from_allowance,
        row.from_packs, row.overdraft_tokens, row.event.charged_tokens - row.charged_tokens,
        row.event.cost_nano_gbp - row.cost_nano_gbp, int(is_correction),
        row.tier_period_start_ms or 0, row.crossed_percent,
    )  # fmt: skip
    script_part = " ".join([*map(str, numbers), format_split(row.pack_split)]).encode()
    return DeadEntry(row.shard, row.stream_id, encode_event(row.event), script_part, reason)


async def _insert_or_halve(
    connection: Connection, rows: Sequence[LedgerRow]
) -> tuple[list[LedgerRow], list[DeadEntry]]:
    """The rows that are new, and the rows the server rejects."""
    if not rows:
        return [], []
    try:
        return await _insert(connection, rows), []
    except (ValueError, OverflowError) as error:  # Rejected, or the driver could not encode it
        if len(rows) == 1:
            return [], [dead_entry(rows[0], f"{type(error).__name__}: {error}")]
    half = len(rows) // 2
    booked_first, rejected_first = await _insert_or_halve(connection, rows[:half])
    booked_second, rejected_second = await _insert_or_halve(connection, rows[half:])
    return booked_first + booked_second, rejected_first + rejected_second


async def _insert(connection: Connection, rows: Sequence[LedgerRow]) -> list[LedgerRow]:
    # A savepoint: a rejected attempt leaves the transaction usable. What the other half left in
    # `incoming` is in the ledger by now and is skipped as a repetition.
    with translated():
        async with connection.transaction():
            await connection.copy_records_to_table(
                "incoming", records=[_record(row) for row in rows], columns=COLUMNS
            )
            new_rows = await connection.fetchval(drain.BOOK, len(rows))
    if new_rows is None:
        return list(rows)
    by_origin = {_origin(row): row for row in rows}
    return [by_origin[tuple(origin)] for origin in json.loads(new_rows)]


def _origin(row: LedgerRow) -> tuple[object, ...]:
    """Where the row was read, and its id: what BOOK answers of it."""
    return row.shard, row.epoch, row.stream_id, row.event_id


def _rest(
    rows: Sequence[LedgerRow], booked: Sequence[LedgerRow], rejected: Sequence[DeadEntry]
) -> list[LedgerRow]:
    """The rows that were neither new nor bad, and not just the same entry handed over twice."""
    new = {_origin(row) for row in booked}
    bad = {(entry.shard, entry.stream_id) for entry in rejected}
    return [
        row for row in rows if _origin(row) not in new and (row.shard, row.stream_id) not in bad
    ]


def _record(row: LedgerRow) -> tuple[object, ...]:
    """The row as `COLUMNS` has it."""
    event = row.event
    return (
        row.event_id, _start(row.period_ms), row.kind, _instant(row.at_ms), event.payer,
        event.user_id, event.tier, event.route, event.model, event.stream,
        event.tag, event.prompt_tokens, event.cached_tokens, event.output_tokens,
        event.reasoning_tokens,
        row.charged_tokens, row.held_tokens, row.from_allowance, row.from_packs,
        split_json(row.pack_split), row.overdraft_tokens,
        row.cost_nano_gbp, event.price_id, event.service_tier, event.quality, event.outcome,
        event.status, event.sdk_retry,
        event.upstream_id, event.client_id, row.corrects, row.shard, row.epoch, row.stream_id,
        row.account_seq,
        None if row.tier_period_start_ms is None else _start(row.tier_period_start_ms),
    )  # fmt: skip


def split_json(split: PackSplit) -> str | None:
    """Pack ids to tokens; null where no pack paid anything."""
    if not split:
        return None
    paid: Counter[str] = Counter()
    for pack_id, tokens in split:
        paid[pack_id] += tokens
    return json.dumps(paid)


@functools.lru_cache(maxsize=256)  # the starts of periods, a few of which are asked all the time
def _start(period_ms: int) -> datetime:
    return _instant(period_ms)


def _instant(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


async def _bury(connection: Connection, dead: Sequence[DeadEntry]) -> int:
    """How many of `dead` were not in `ledger_dead` yet."""
    if not dead:
        return 0
    found = await connection.fetch(
        drain.BURY,
        [entry.shard for entry in dead],
        [entry.stream_id for entry in dead],
        [entry.event_json for entry in dead],
        [entry.script_part for entry in dead],
        [_storable(entry.reason) for entry in dead],
    )
    return len(found)


def _storable(reason: str) -> str:
    """The last refuge must take everything: text holds neither NUL nor a lone surrogate."""
    whole = reason.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
    return whole[:_REASON_CHARS_MAX]


async def _advance_cursors(
    connection: Connection, rows: Sequence[LedgerRow], dead: Sequence[DeadEntry]
) -> None:
    """To the newest entry of each shard, dead ones included; epochs from rows that were taken."""
    dead_ids = {(entry.shard, entry.stream_id) for entry in dead}
    epochs: dict[int, int] = {}
    for row in rows:
        if row.epoch > epochs.get(row.shard, 0) and (row.shard, row.stream_id) not in dead_ids:
            epochs[row.shard] = row.epoch
    highest: dict[int, tuple[int, int]] = {}
    entries: list[LedgerRow | DeadEntry] = [*rows, *dead]
    for entry in entries:
        position = stream_position(entry.stream_id)
        if position >= highest.get(entry.shard, (0, 0)):
            highest[entry.shard] = position
    await connection.execute(
        drain.ADVANCE_CURSORS,
        list(highest),
        [epochs.get(shard, 0) for shard in highest],
        [f"{ms}-{sequence}" for ms, sequence in highest.values()],
    )
