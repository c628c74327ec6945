"""A recording is held for at least as long as it can last."""

from __future__ import annotations

import base64
import io
import struct
import wave
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.prompt.sound import TOKENS_A_SECOND, count_sound

SECONDS = 3


def spoken(raw: bytes, form: str = "wav") -> dict[str, str]:
    return {"data": base64.b64encode(raw).decode(), "format": form}


def recorded(hertz: int = 24_000, channels: int = 1, width: int = 2) -> bytes:
    """Three seconds, as any program writes them."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(width)
        out.setframerate(hertz)
        out.writeframes(bytes(SECONDS * hertz * channels * width))
    return file.getvalue()


def riff(*chunks: tuple[bytes, bytes], size: int = 39_999) -> bytes:
    """A WAV of these chunks, filled up with samples."""
    body = b"".join(
        name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
        for name, content in chunks
    )
    return (b"RIFF\0\0\0\0WAVE" + body).ljust(size, b"\0")


def fmt(tag: int = 1, channels: int = 1, hertz: int = 8000, bits: int = 16) -> tuple[bytes, bytes]:
    return b"fmt ", struct.pack("<HHIIHH", tag, channels, hertz, 0, 0, bits)


THINNEST = 40_000 // 100


@pytest.mark.parametrize("hertz", [8000, 16_000, 24_000, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_a_wav_is_counted_by_the_length_that_its_header_tells(
    hertz: int, channels: int, width: int
) -> None:
    tokens = count_sound(spoken(recorded(hertz, channels, width)))
    assert SECONDS * TOKENS_A_SECOND <= tokens <= SECONDS * TOKENS_A_SECOND + 1


@pytest.mark.parametrize(
    ("size", "tokens"), [(0, 0), (1, 1), (99, 1), (100, 1), (101, 2), (3000, 30)]
)
def test_anything_else_counts_as_the_thinnest_there_is(size: int, tokens: int) -> None:
    assert tokens <= count_sound(spoken(bytes(size), "mp3")) <= tokens + 1
    assert tokens <= count_sound(spoken(bytes(size), "wav")) <= tokens + 1


def test_notes_before_the_format_are_passed_over() -> None:
    raw = riff((b"JUNK", bytes(27)), (b"LIST", bytes(500)), fmt(), (b"data", b""))
    assert count_sound(spoken(raw)) == 25  # 39,999 bytes at 16,000 a second


def test_a_slow_wav_lasts_as_long_as_it_says() -> None:
    assert count_sound(spoken(riff(fmt(hertz=100, bits=8)))) == 4000


@pytest.mark.parametrize(
    "raw",
    [
        riff(fmt(tag=2)),  # ADPCM
        riff(fmt(tag=0x55)),  # MP3 in a WAV
        riff(fmt(channels=200)),
        riff(fmt(hertz=4_000_000_000)),
        riff(fmt(bits=64_000)),
        riff(fmt(channels=0)),
        riff(fmt(hertz=0)),
        riff(fmt(bits=0)),
        riff((b"JUNK", bytes(5000)), fmt()),
        riff((b"JUNK", bytes(20))),
        b"RIFF\0\0\0\0AVI ".ljust(40_000, b"\0"),
        b"RIFF\0\0\0\0WAVEfmt \xff\xff\xff\xff".ljust(40_000, b"\xff"),
        bytes(40_000),
    ],
)
def test_a_header_that_is_odd_or_too_good_to_be_true_is_not_believed(raw: bytes) -> None:
    assert THINNEST <= count_sound(spoken(raw)) <= THINNEST + 1


def test_a_header_counts_only_where_a_wav_was_said_to_be() -> None:
    assert THINNEST <= count_sound(spoken(riff(fmt()), "mp3")) <= THINNEST + 1


@pytest.mark.parametrize("cut", [0, 4, 12, 16, 20, 30, 35], ids=lambda cut: f"{cut} bytes")
def test_a_header_that_is_cut_is_no_header(cut: int) -> None:
    assert count_sound(spoken(riff(fmt())[:cut])) <= 1


@pytest.mark.parametrize("sound", [None, 3, "AAAA", [], {}, {"data": None}, {"data": ["AAAA"]}])
def test_what_is_no_recording_counts_nothing(sound: Any) -> None:
    assert count_sound(sound) == 0


@settings(deadline=None)
@given(
    st.text(max_size=60)
    | st.binary(max_size=60).map(lambda raw: base64.b64encode(b"RIFF1234WAVE" + raw).decode()),
    st.sampled_from(["wav", "mp3", None, 3]),
)
def test_no_data_raises_or_is_free(data: str, form: Any) -> None:
    assert count_sound({"data": data, "format": form}) >= (1 if len(data) > 1 else 0)
