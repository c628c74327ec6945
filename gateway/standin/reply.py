"""What every API is to whoever runs its calls: a request judged, and a reply that can be sent.

A reply knows its bytes, whole or event by event, and what they count; it knows no connection, no
clock and no fault but the wording of one. Delays, cuts and the tally belong to who sends it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from gateway.standin.counting import CountTokens
from gateway.standin.directives import Directives
from gateway.standin.face import Face
from gateway.standin.usage import Report


@dataclass(frozen=True, slots=True)
class Setting:
    """Where a call is answered: `id` is the answer's, without its prefix; `created_s` since 1970.

    `model` is the one that the path names, in front of the body's.
    """

    id: str
    created_s: int
    face: Face
    count_tokens: CountTokens
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Whole:
    """The body of an answer in one piece, and where its half ends: in bytes, and in tokens."""

    body: bytes
    half_bytes: int
    half_tokens: int = 0


class Events(Protocol):
    """An answer event by event; each method is asked once, in this order."""

    @property
    def tells_usage(self) -> bool:
        """Whether the closing holds the usage."""

    def opening(self) -> bytes:
        """What precedes all text."""

    def chunks(self, chunk_tokens: int) -> Iterator[tuple[bytes, int]]:
        """The text, in steps of so many tokens, with the tokens of each step."""

    def closing(self) -> bytes:
        """What ends a stream that went well."""

    def broken(self) -> bytes:
        """Instead of the closing: what breaks a stream off."""


class Reply(Protocol):
    """One judged call. `hidden_tokens`: written before the first text, such as thoughts."""

    @property
    def directives(self) -> Directives: ...

    @property
    def report(self) -> Report: ...

    @property
    def hidden_tokens(self) -> int: ...

    def whole(self) -> Whole: ...

    def events(self) -> Events | None:
        """None when the call does not stream."""


Api = Callable[[dict[str, Any], Setting], Reply]


def halved_at(body: bytes, mark: bytes, half: tuple[str, int]) -> Whole:
    """A body whose half ends with this text, of so many tokens, behind the first `mark`.

    Half of the bytes when there is no such mark.
    """
    written, tokens = half
    at = body.find(mark)
    if at < 0:
        return Whole(body, len(body) // 2, tokens)
    in_quotes = len(msgspec.json.encode(written)) - 2
    return Whole(body, at + len(mark) + in_quotes, tokens)
