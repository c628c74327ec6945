"""Server-sent events, split out of a stream of bytes without changing one of them.

Bytes go in as they arrive, complete events come out. Each event carries its bytes exactly as they
were received, blank line included, so relaying every `raw` relays the stream; beside it stands
what a client would read: the joined data lines and the event's name. Where the network cut the
stream makes no difference. Parsing follows the HTML standard, section 9.2.6 ("Interpreting an event
stream"). What the data means is not known here.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

EVENT_BYTES_MAX: Final = 4 * 1024 * 1024
"""Bounds what one stream can make us keep. The largest events are whole responses and partial
pictures in base64, 1 to 3 MB; a chunk of chat has 335 bytes."""

_BOM: Final = b"\xef\xbb\xbf"
_CR: Final = 0x0D
_LF: Final = 0x0A
_BLANK_LINE: Final = re.compile(rb"\n\n|\n\r\n?|\r\r\n?")
"""The end of a line and the blank line after it; of a CRLF before it, the LF is enough."""


class SseTooLarge(ValueError):
    """An event is longer than EVENT_BYTES_MAX; nothing after it can be read."""


class SseEvent(msgspec.Struct, frozen=True, gc=False):
    """One event. `data` is None when it has no data line (a comment, a heartbeat).

    A Struct because one is made for every chunk: a frozen dataclass takes five times as long.
    """

    raw: bytes
    data: bytes | None
    name: str = ""


class SseReader:
    """The state of one stream: the bytes of the event that is not complete yet.

    A CR at the end of what has arrived may be half of a CRLF, so an event that ends in it waits
    for the next byte.
    """

    __slots__ = ("_at_start", "_buffer", "_searched")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._at_start = True

    def only_event(self, chunk: bytes) -> SseEvent | None:
        """The event of a chunk that is just one, of one line of data, as most are. None for any
        other chunk: feed it."""
        if self._buffer or self._at_start or len(chunk) > EVENT_BYTES_MAX:
            return None
        line, _, rest = chunk.partition(b"\n")
        if rest == b"\n" and line.startswith(b"data: ") and _CR not in line:
            return SseEvent(chunk, line[6:])
        return None

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """The events that `chunk` completes. Raises SseTooLarge, and then the stream is over."""
        if not self._buffer and not self._at_start and len(chunk) <= EVENT_BYTES_MAX:
            whole = _whole_events(chunk)
            if whole is not None:
                return whole
        self._buffer += chunk
        events = []
        while length := self._complete_bytes():
            events.append(self._cut(length))
        if len(self._buffer) > EVENT_BYTES_MAX:
            raise SseTooLarge(f"an event of the stream is longer than {EVENT_BYTES_MAX} bytes")
        return events

    def flush(self) -> SseEvent | None:
        """What is left when the stream has ended: an event without its blank line, or nothing."""
        return self._cut(len(self._buffer)) if self._buffer else None

    def _complete_bytes(self) -> int:
        """The length of the first event in the buffer, 0 while it is not complete."""
        buffer = self._buffer
        if not buffer:
            return 0
        body = 3 if self._at_start and buffer.startswith(_BOM) else 0
        if buffer.startswith((b"\n", b"\r"), body):  # a blank line with no event before it
            end = body + 2 if buffer.startswith(b"\r\n", body) else body + 1
        else:
            found = _BLANK_LINE.search(buffer, self._searched)
            if found is None:
                self._searched = max(0, len(buffer) - 1)
                return 0
            end = found.end()
        if end == len(buffer) and buffer[-1] == _CR:
            return 0
        return end

    def _cut(self, length: int) -> SseEvent:
        if length > EVENT_BYTES_MAX:
            raise SseTooLarge(f"an event of the stream is longer than {EVENT_BYTES_MAX} bytes")
        raw = bytes(self._buffer[:length])
        del self._buffer[:length]
        self._searched = 0
        body = raw.removeprefix(_BOM) if self._at_start else raw
        self._at_start = False
        return _parse(raw, body)


def _whole_events(chunk: bytes) -> list[SseEvent] | None:
    """The common case, three times as fast: whole events, LF line ends, one blank line each."""
    if _CR in chunk or not chunk.endswith(b"\n\n"):
        return None
    first, _, rest = chunk.partition(b"\n")
    second, _, rest = rest.partition(b"\n")
    if rest == b"\n" and first.startswith(b"event: ") and second.startswith(b"data: "):
        return [SseEvent(chunk, second[6:], first[7:].decode("utf-8", "replace"))]
    events = []
    for body in chunk[:-2].split(b"\n\n"):
        if not body or body[0] == _LF or body[-1] == _LF:  # blank lines of their own
            return None
        events.append(_parse(body + b"\n\n", body))
    return events


def _parse(raw: bytes, body: bytes) -> SseEvent:
    if body.startswith(b"data: ") and _LF not in body and _CR not in body:
        return SseEvent(raw, body[6:])
    if body.startswith(b"event: ") and _CR not in body:  # as /responses writes every event
        named, _, line = body.partition(b"\n")
        if line.startswith(b"data: ") and _LF not in line:
            return SseEvent(raw, line[6:], named[7:].decode("utf-8", "replace"))
    data: list[bytes] = []
    name = b""
    for line in body.splitlines():
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    return SseEvent(raw, b"\n".join(data) if data else None, name.decode("utf-8", "replace"))
