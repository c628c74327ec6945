"""Picture files made by hand: as small as their formats allow, of any size in pixels."""

from __future__ import annotations

import struct
import zlib
from base64 import b64encode


def data_url(raw: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{b64encode(raw).decode()}"


def png(width: int, height: int, rows: bytes = b"") -> bytes:
    """A whole grey PNG; without `rows`, all is black."""
    rows = rows or b"\0" * ((1 + width) * height if width * height < 10**6 else 1)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def jpeg(width: int, height: int, *before: bytes, frame: int = 0xC0) -> bytes:
    """A JPEG up to its frame, behind the segments `before`."""
    frame_header = struct.pack(">BHHB", 8, height, width, 1) + b"\x01\x11\x00"
    return b"\xff\xd8" + b"".join(before) + segment(frame, frame_header) + segment(0xDA, b"\0" * 6)


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def gif(width: int, height: int, frame: tuple[int, int, int, int], colours: bool = True) -> bytes:
    """A GIF up to its first frame (left, top, width, height), with a comment before it."""
    table = b"\0" * 24 if colours else b""
    screen = struct.pack("<HHBBB", width, height, 0x82 if colours else 0, 0, 0)
    comment = b"\x21\xfe\x03abc\x02de\x00"
    return b"GIF89a" + screen + table + comment + b"\x2c" + struct.pack("<HHHHB", *frame, 0)


def webp_lossy(width: int, height: int) -> bytes:
    return _webp(b"VP8 ", b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", width, height) + b"\0" * 8)


def webp_lossless(width: int, height: int) -> bytes:
    bits = (width - 1) | (height - 1) << 14
    return _webp(b"VP8L", b"\x2f" + struct.pack("<I", bits) + b"\0" * 8)


def webp_canvas(width: int, height: int) -> bytes:
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return _webp(b"VP8X", b"\0\0\0\0" + sides)


def _webp(kind: bytes, body: bytes) -> bytes:
    chunk = kind + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk
