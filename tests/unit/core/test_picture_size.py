"""A picture's size is read from a few bytes of its header, whatever else stands in the text."""

from __future__ import annotations

import random
from base64 import b64encode
from binascii import a2b_base64
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.prompt import picture_size as module
from gateway.core.prompt.picture_size import picture_size
from tests.fakes.pictures import (
    data_url,
    gif,
    jpeg,
    png,
    segment,
    webp_canvas,
    webp_lossless,
    webp_lossy,
)

CAMERA = (segment(0xE0, b"JFIF\0" * 3), segment(0xE1, b"Exif\0\0" + b"\0" * 60_000))
MAKERS: dict[str, tuple[Callable[[int, int], bytes], int]] = {
    "png": (png, 2**31),
    "jpeg": (jpeg, 2**16 - 1),
    "jpeg of a camera": (
        lambda w, h: jpeg(w, h, *CAMERA, *[segment(0xE2, b"\0" * 65_000)] * 9),
        9999,
    ),
    "jpeg, progressive": (lambda w, h: jpeg(w, h, segment(0xC4, b"\0" * 9), frame=0xC2), 9999),
    "jpeg, filled": (lambda w, h: jpeg(w, h, b"\xff\xff\xff", b"\xff\xd0", b"\xff\x01"), 9999),
    "gif": (lambda w, h: gif(w, h, (0, 0, w, h)), 2**16 - 1),
    "gif without colours": (lambda w, h: gif(w, h, (0, 0, 1, 1), colours=False), 9999),
    "webp lossy": (webp_lossy, 2**14 - 1),
    "webp lossless": (webp_lossless, 2**14),
    "webp with a canvas": (webp_canvas, 2**24),
}


@pytest.mark.parametrize("name", MAKERS)
def test_the_size_is_what_the_header_says(name: str) -> None:
    make, side_max = MAKERS[name]
    for size in ((1, 1), (640, 480), (3, 1000), (side_max, 1), (1, side_max)):
        assert picture_size(data_url(make(*size))) == size


@pytest.mark.parametrize(
    "head",
    [
        "data:image/jpeg;base64,",
        "data:;base64,",
        "DATA:IMAGE/PNG;BASE64,",
        "data:image/png;charset=utf-8;base64,",
        "data:text/html;base64,",
    ],
)
def test_what_the_url_says_of_its_kind_is_not_believed(head: str) -> None:
    assert picture_size(head + b64encode(png(7, 9)).decode()) == (7, 9)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://example.test/a.png",
        "data:",
        "data:image/png;base64,",
        "data:image/png,\x89PNG",
        data_url(png(7, 9)).replace(";base64", ""),
        data_url(png(7, 9)).replace("data:", " data:"),
        "data:image/png;" + "a" * 5000 + ";base64," + b64encode(png(7, 9)).decode(),
        data_url(b"<svg width='9' height='9'/>"),
        data_url(b"BM" + b"\0" * 60),
        data_url(b"RIFF\0\0\0\0WEBPVP9 " + b"\0" * 60),
        data_url(webp_lossless(3, 3).replace(b"\x2f", b"\x2e")),
        data_url(webp_lossy(3, 3).replace(b"\x9d\x01\x2a", b"\0\0\0")),
        data_url(png(7, 9).replace(b"IHDR", b"CgBI")),
        data_url(png(0, 9)),
        data_url(jpeg(9, 0)),
        data_url(jpeg(9, 9, segment(0xDA, b""))),
        data_url(jpeg(9, 9, b"\0\0\0\0")),
        data_url(gif(1, 1, (0, 0, 1, 1)).replace(b"\x2c", b"\x3b")),
    ],
    ids=range(19),
)
def test_what_cannot_be_read_has_no_size(url: str) -> None:
    assert picture_size(url) is None


def test_a_gif_is_as_large_as_its_first_frame_makes_it() -> None:
    assert picture_size(data_url(gif(1, 1, (10, 20, 300, 400)))) == (310, 420)


@pytest.mark.parametrize("junk", ["\n", " ", "\r\n", "%", "-", "=", "é", "\ud800"])
def test_a_text_in_which_lenient_decoders_skip_something_has_no_size(junk: str) -> None:
    url = data_url(jpeg(9, 9, segment(0xE1, b"\0" * 3000)))
    assert picture_size(url) == (9, 9)
    assert picture_size(url[:2000] + junk + url[2000:]) is None


def test_a_picture_of_15_mb_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []

    def counted(text: str, **how: Any) -> bytes:
        decoded.append(len(text))
        return a2b_base64(text, **how)

    monkeypatch.setattr(module, "a2b_base64", counted)
    for make, _ in MAKERS.values():
        decoded.clear()
        assert picture_size(data_url(make(640, 480) + b"\0" * 15_000_000)) == (640, 480)
        assert sum(decoded) < 400


@pytest.mark.parametrize(
    "endless",
    [
        b"\xff\xd8" + b"\xff" * 3_000_000,
        b"\xff\xd8" + b"\xff\xe0\x00\x00" * 700_000,
        b"\xff\xd8" + b"\xff\xe0\x00\x01" * 700_000,
        b"\xff\xd8" + b"\xff\xe0\x00\x02" * 700_000,
        b"\xff\xd8" + segment(0xE0, b"\0" * 65_000) * 50,
        b"GIF89a" + b"\1\0\1\0\0\0\0" + b"\x21\xfe\0" * 900_000,
        b"GIF89a" + b"\1\0\1\0\0\0\0" + b"\x21\xfe" + b"\1" * 3_000_000,
    ],
    ids=range(7),
)
def test_a_header_without_end_is_given_up(endless: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = 0

    def counted(text: str, **how: Any) -> bytes:
        nonlocal reads
        reads += 1
        return a2b_base64(text, **how)

    monkeypatch.setattr(module, "a2b_base64", counted)
    assert picture_size(data_url(endless)) is None
    assert reads < 1000


@settings(deadline=None, max_examples=500)
@given(st.data())
def test_no_text_makes_it_raise(data: st.DataObject) -> None:
    start = data.draw(st.sampled_from([make(300, 200) for make, _ in MAKERS.values()] + [b""]))
    cut = data.draw(st.integers(0, min(60, len(start))))
    raw = start[:cut] + data.draw(st.binary(max_size=60))
    size = picture_size(data_url(raw))
    assert size is None or min(size) >= 1
    picture_size("data:;base64," + data.draw(st.text(max_size=60)))
    picture_size(data.draw(st.text(max_size=60)))


def test_a_changed_byte_never_makes_it_raise() -> None:
    chance = random.Random(14)
    for make, _ in MAKERS.values():
        whole = make(300, 200)[:400]
        for _ in range(300):
            raw = bytearray(whole)
            for _ in range(chance.randint(1, 4)):
                raw[chance.randrange(len(raw))] = chance.randrange(256)
            size = picture_size(data_url(bytes(raw)))
            assert size is None or min(size) >= 1
