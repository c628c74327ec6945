"""How many tokens a recording in a prompt is, at most, from its size.

OpenAI counts what a user says as one token each 100 ms (developers.openai.com, "Managing costs" of
the Realtime API; "Introducing the Realtime API", 1 October 2024: the same price in chats, 0.06 USD
a minute at 100 USD a million). How long a recording lasts is told by a WAV's header; of any other
only the thinnest there can be is known, so that it is counted for more than it is. Nothing is
decoded but the header.
"""

from __future__ import annotations

import struct
from binascii import Error, a2b_base64
from collections.abc import Mapping
from typing import Any, Final

TOKENS_A_SECOND: Final = 10

THINNEST_BYTES_A_SECOND: Final = 1_000
"""MPEG-2 Layer III begins at 8 kbit/s (ISO/IEC 13818-3); the thinnest WAV, GSM, has 1,625."""

_HEAD_CHARS: Final = 4_096  # base64 of 3 KiB; `fmt ` comes first but for a few notes
_SAMPLES: Final = (1, 3, 0xFFFE)  # format tags of plain samples: integers, floats, extensible
# What is beyond these is no recording of speech, and a header may not make it short.
_CHANNELS_MAX, _HERTZ_MAX, _BITS_MAX = 2, 192_000, 32


def count_sound(sound: Any) -> int:
    """Tokens of an `input_audio`: its base64 `data`, in its `format`. 0 for what is none."""
    data = sound.get("data") if isinstance(sound, Mapping) else None
    if not isinstance(data, str):
        return 0
    size = len(data) * 3 // 4
    rate = _wav_rate(data) if sound.get("format") == "wav" else None
    return -(-size * TOKENS_A_SECOND // (rate or THINNEST_BYTES_A_SECOND))


def _wav_rate(data: str) -> int | None:
    """Bytes a second by a WAV's header; None when it has none that can be believed."""
    try:
        head = a2b_base64(data[:_HEAD_CHARS])
    except (Error, ValueError):
        return None
    at = 12
    if head[:4] != b"RIFF" or head[8:at] != b"WAVE":
        return None
    while head[at : at + 4] != b"fmt ":
        if at + 24 > len(head):
            return None
        (size,) = struct.unpack_from("<I", head, at + 4)
        at += 8 + size + size % 2
    if at + 24 > len(head):
        return None
    tag, channels, hertz, _, _, bits = struct.unpack_from("<HHIIHH", head, at + 8)
    if tag not in _SAMPLES or channels > _CHANNELS_MAX or hertz > _HERTZ_MAX or bits > _BITS_MAX:
        return None
    return channels * hertz * bits // 8 or None
