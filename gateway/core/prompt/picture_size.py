"""The size of a picture in a data: URL, read from its header.

Looks at a few bytes of the base64 text and decodes only these, so a picture of 15 MB costs no more
than a small one, and one whose header claims 10^9 x 10^9 costs nothing. Whatever the text is: it
never raises, and what cannot be read is None. Knows PNG, JPEG, GIF and WebP, which are the formats
OpenAI takes. What a picture costs is not known here.
"""

from __future__ import annotations

import re
from binascii import Error, a2b_base64
from collections.abc import Callable
from typing import Final

Size = tuple[int, int]
"""Width and height in pixels, both from 1."""

# A header lies in the first bytes, but JPEG has it behind its metadata: a camera's are some 100 KB,
# in segments of 64 KB at most. Further on nobody looks; the picture then counts as the largest.
_LOOK_BYTES: Final = 1_048_576
_SEGMENTS_MAX: Final = 256

_HEAD_CHARS_MAX: Final = 256
_HEAD: Final = re.compile(r"data:[^,]*;base64,", re.IGNORECASE)
_ALPHABET: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
# JPEG, ITU-T T.81 table B.1: frames are C0 to CF, of which three are no frames.
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ALONE: Final = frozenset((0x01, *range(0xD0, 0xD8)))  # markers without a segment
_ENDS: Final = frozenset((0xD8, 0xD9, 0xDA))


class _Unreadable(Exception):
    """The text ends, or is not base64, where a header should be."""


def picture_size(url: str) -> Size | None:
    """Width and height of the picture in a base64 data: URL; None when they cannot be told."""
    head = _HEAD.match(url, 0, _HEAD_CHARS_MAX)
    if head is None:
        return None
    data = _Base64(url, head.end())
    try:
        start = data.read(0, 16)
        reader = _reader_of(start)
        size = reader(data) if reader is not None else None
        if size is None or min(size) < 1 or not data.is_plain():
            return None
    except _Unreadable:
        return None
    return size


class _Base64:
    """Bytes of a base64 text by their place. Remembers how far it was read."""

    def __init__(self, url: str, start: int) -> None:
        self._url = url
        self._start = start
        self._end = start

    def read(self, place: int, length: int) -> bytes:
        """Exactly these bytes; _Unreadable when they are not all there."""
        first = self._start + place // 3 * 4
        last = self._start + -(-(place + length) // 3) * 4
        if place > _LOOK_BYTES:
            raise _Unreadable
        chunk = self._url[first:last]
        self._end = max(self._end, last)
        try:
            decoded = a2b_base64(chunk + "=" * (-len(chunk) % 4), strict_mode=True)
        except (Error, ValueError):  # also for text that is not ASCII
            raise _Unreadable from None
        found = decoded[place % 3 : place % 3 + length]
        if len(found) < length:
            raise _Unreadable
        return found

    def is_plain(self) -> bool:
        """True when nothing up to the header's end is skipped by lenient decoders: with a line
        break in metadata that was not looked at, they would find another header than this one."""
        seen = self._url[self._start : self._end].encode("ascii", "replace")
        return not seen.rstrip(b"=").translate(None, delete=_ALPHABET)


def _reader_of(start: bytes) -> Callable[[_Base64], Size | None] | None:
    if start.startswith(b"\x89PNG\r\n\x1a\n") and start[12:] == b"IHDR":
        return _png
    if start.startswith(b"\xff\xd8\xff"):
        return _jpeg
    if start.startswith((b"GIF87a", b"GIF89a")):
        return _gif
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return {b"VP8 ": _webp_lossy, b"VP8L": _webp_lossless, b"VP8X": _webp_canvas}.get(
            start[12:]
        )
    return None


def _png(data: _Base64) -> Size:
    size = data.read(16, 8)
    return int.from_bytes(size[:4], "big"), int.from_bytes(size[4:], "big")


def _jpeg(data: _Base64) -> Size | None:
    place = 2
    for _ in range(_SEGMENTS_MAX):
        segment = data.read(place, 4)
        marker = segment[1]
        if segment[0] != 0xFF or marker in _ENDS:
            return None
        if marker == 0xFF:  # filling
            place += 1
        elif marker in _ALONE:
            place += 2
        elif marker in _FRAMES:
            size = data.read(place + 5, 4)
            return int.from_bytes(size[2:], "big"), int.from_bytes(size[:2], "big")
        else:
            place += 2 + int.from_bytes(segment[2:], "big")  # progress even where this is 0
    return None


def _gif(data: _Base64) -> Size | None:
    """The screen, or the first frame where it reaches beyond: decoders then make the screen
    larger."""
    head = data.read(6, 7)
    width, height = _little(head[0:2]), _little(head[2:4])
    place = 13 + (3 << (head[4] & 7) + 1 if head[4] & 0x80 else 0)
    is_inside = False  # of an extension, which is a chain of blocks that ends with an empty one
    for _ in range(_SEGMENTS_MAX):
        if is_inside:
            length = data.read(place, 1)[0]
            place, is_inside = place + 1 + length, length > 0
            continue
        kind = data.read(place, 1)[0]
        if kind == 0x2C:
            frame = data.read(place + 1, 8)
            left, top, wide, high = (_little(frame[n : n + 2]) for n in (0, 2, 4, 6))
            return max(width, left + wide), max(height, top + high)
        if kind != 0x21:
            return None
        place, is_inside = place + 2, True
    return None


def _webp_lossy(data: _Base64) -> Size | None:
    frame = data.read(23, 7)
    if frame[:3] != b"\x9d\x01\x2a":
        return None
    return _little(frame[3:5]) & 0x3FFF, _little(frame[5:7]) & 0x3FFF


def _webp_lossless(data: _Base64) -> Size | None:
    frame = data.read(20, 5)
    if frame[0] != 0x2F:
        return None
    bits = _little(frame[1:])
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1


def _webp_canvas(data: _Base64) -> Size:
    canvas = data.read(24, 6)
    return _little(canvas[:3]) + 1, _little(canvas[3:]) + 1


def _little(raw: bytes) -> int:
    return int.from_bytes(raw, "little")
