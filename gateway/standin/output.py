"""What a call writes: thoughts nobody sees, then a text, a JSON text, or calls of functions.

Planned before the first byte, so that cap, usage and finish reason are known at once. Everything
is cut at the cap at exactly so many tokens, unless told to ignore it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

from gateway.standin.counting import CountTokens
from gateway.standin.directives import Directives
from gateway.standin.schemas import written_by
from gateway.standin.writing import text

# Where o200k_base lets no token reach across, in plain English and JSON: so the tokens of such
# pieces add up to those of the whole, wherever it is cut between two of them.
_PIECE = re.compile(r"[^\r\nA-Za-z0-9]?[A-Za-z]+|[0-9]+| ?[^\sA-Za-z0-9]+|\s+")

Pieces = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Part:
    """A text, or the arguments of a call of `function`, whose name is counted with them.

    `pieces` are the text and the tokens of each piece; None is the stand-in's own text.
    """

    tokens: int
    pieces: Pieces | None = None
    function: str | None = None

    @property
    def text(self) -> str:
        if self.pieces is None:
            return text(0, self.tokens)
        return "".join(piece for piece, _ in self.pieces)

    @property
    def half(self) -> tuple[str, int]:
        """The first half of the text and its tokens; a little more if that is within a piece."""
        return next(self.chunks(max(1, self.tokens // 2))) if self.tokens > 1 else ("", 0)

    def chunks(self, chunk_tokens: int, endless: bool = False) -> Iterator[tuple[str, int]]:
        """The text in steps of so many tokens, the last one shorter, and the tokens of each."""
        if self.pieces is not None:
            yield from _grouped(self.pieces, chunk_tokens)
            return
        starts = count(0, chunk_tokens) if endless else range(0, self.tokens, chunk_tokens)
        for start in starts:
            tokens = chunk_tokens if endless else min(chunk_tokens, self.tokens - start)
            yield text(start, tokens), tokens


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of the output: its limit, a schema to satisfy, functions with their schemas.

    Calls go to the functions in turn; without any there are none.
    """

    cap_tokens: int | None
    schema: Mapping[str, Any] | None = None
    functions: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    calls: int = 0


@dataclass(frozen=True, slots=True)
class Output:
    """What one choice writes; `cut` at the cap."""

    parts: tuple[Part, ...]
    reasoning_tokens: int
    cut: bool

    @property
    def tokens(self) -> int:
        return self.reasoning_tokens + sum(part.tokens for part in self.parts)

    @property
    def calls(self) -> bool:
        return self.parts[0].function is not None


def planned(orders: Directives, wanted: Wanted, count_tokens: CountTokens) -> Output:
    """The output of one choice. Refused when the schema cannot be followed."""
    cap = None if orders.ignore_cap else wanted.cap_tokens
    reasoning = orders.think if cap is None else min(orders.think, cap)
    room = None if cap is None else cap - reasoning
    if orders.never_ends or orders.refuse or not (wanted.calls or wanted.schema):
        tokens = orders.write if room is None else min(orders.write, room)
        cut = reasoning < orders.think or tokens < orders.write
        return Output((Part(tokens),), reasoning, cut)
    parts: list[Part] = []
    cut = reasoning < orders.think
    for function, pieces in _structured(orders, wanted, count_tokens):
        part = _within(room, function, pieces)
        if part.tokens or not parts:
            parts.append(part)
        room = None if room is None else room - part.tokens
        cut = cut or len(part.pieces or ()) < len(pieces)
        if cut:
            break
    return Output(tuple(parts), reasoning, cut)


def _structured(
    orders: Directives, wanted: Wanted, count_tokens: CountTokens
) -> Iterator[tuple[str | None, Pieces]]:
    words = text(0, orders.write)
    if not wanted.calls:
        yield None, _pieces(written_by(wanted.schema or {}, words), count_tokens)
    for turn in range(wanted.calls):
        function, schema = wanted.functions[turn % len(wanted.functions)]
        arguments = _pieces(written_by(schema, words), count_tokens)
        yield function, (("", count_tokens(function)), *arguments)


def _pieces(written: str, count_tokens: CountTokens) -> Pieces:
    return tuple((piece, count_tokens(piece)) for piece in _PIECE.findall(written))


def _within(room: int | None, function: str | None, pieces: Pieces) -> Part:
    kept: list[tuple[str, int]] = []
    total = 0
    for piece, tokens in pieces:
        if room is not None and total + tokens > room:
            break
        kept.append((piece, tokens))
        total += tokens
    return Part(total, tuple(kept), function)


def _grouped(pieces: Iterable[tuple[str, int]], chunk_tokens: int) -> Iterator[tuple[str, int]]:
    chunk, total = "", 0
    for piece, tokens in pieces:
        chunk += piece
        total += tokens
        if total >= chunk_tokens:
            yield chunk, total
            chunk, total = "", 0
    if total:
        yield chunk, total
