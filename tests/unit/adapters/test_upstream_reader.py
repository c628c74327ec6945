"""The reader of answers, fed by hand: in every split, ended at every byte, and with anything."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.adapters.upstream.reader import (
    FRAMING_BYTES_MAX,
    HEAD_BYTES_MAX,
    INTERIM_MAX,
    ResponseReader,
)
from gateway.ports.upstream import UpstreamBroke
from tests.contract.upstream_samples import BAD_CHUNKS, BAD_HEADS, GOOD, JUNK, Good
from tests.contract.upstream_server import bare, chunked, http

good = pytest.mark.parametrize("answer", GOOD.values(), ids=GOOD.keys())


def fed(pieces: Iterable[bytes]) -> ResponseReader:
    """A reader that was given these, as far as the answer's end: what comes then is not its own."""
    reader = ResponseReader()
    for piece in pieces:
        reader.feed(piece)
        if reader.is_complete:
            break
    return reader


def check(reader: ResponseReader, answer: Good) -> None:
    if answer.ends:
        reader.end(in_order=True)
    assert reader.is_complete
    assert reader.head is not None
    assert (reader.head.status, b"".join(reader.parts)) == (answer.status, answer.body)
    assert not reader.is_reusable or answer.is_reusable


@good
def test_an_answer_in_one_piece(answer: Good) -> None:
    reader = fed([answer.raw])
    check(reader, answer)
    assert reader.is_reusable == answer.is_reusable


@good
def test_an_answer_split_at_each_byte(answer: Good) -> None:
    for at in range(1, len(answer.raw)):
        check(fed([answer.raw[:at], answer.raw[at:]]), answer)


@good
def test_an_answer_byte_by_byte(answer: Good) -> None:
    reader = fed(answer.raw[at : at + 1] for at in range(len(answer.raw)))
    check(reader, answer)
    assert reader.is_reusable == answer.is_reusable


@good
def test_a_connection_that_ends_at_each_byte(answer: Good) -> None:
    head = len(answer.raw) - len(answer.body) if answer.ends else len(answer.raw)
    for at in range(head):
        reader = fed([answer.raw[:at]] if at else [])
        assert not reader.is_complete
        with pytest.raises(UpstreamBroke, match="ended before"):
            reader.end(in_order=True)


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK.keys())
@good
def test_what_follows_an_answer_is_no_part_of_it_and_spoils_the_connection(
    answer: Good, junk: bytes
) -> None:
    if answer.ends or answer.status == 204:
        return
    reader = fed([answer.raw + junk])
    check(reader, answer)
    assert not reader.is_reusable


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK.keys())
@pytest.mark.parametrize("name", ["chunks", "no chunk", "trailers", "length"])
def test_what_follows_is_seen_wherever_the_pieces_are_cut(name: str, junk: bytes) -> None:
    answer = GOOD[name]
    for at in range(1, len(answer.raw)):
        reader = fed([answer.raw[:at], answer.raw[at:] + junk])
        check(reader, answer)
        assert not reader.is_reusable


@pytest.mark.parametrize(
    "raw", [*BAD_HEADS.values(), *BAD_CHUNKS.values()], ids=[*BAD_HEADS, *BAD_CHUNKS]
)
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_what_is_not_an_answer_is_refused(raw: bytes, size: int) -> None:
    with pytest.raises(UpstreamBroke):
        fed(raw[at : at + size] for at in range(0, len(raw), size))


def test_the_end_of_a_bad_head_is_not_waited_for() -> None:
    for raw in (b"SSH-2.0-x", b"\0", b"HTTP/2", b"h"):
        with pytest.raises(UpstreamBroke, match="not HTTP/1"):
            fed([raw])


def test_a_head_is_bounded_before_it_has_ended() -> None:
    line = b"HTTP/1.1 200 OK\r\nX: "
    fed([line, b"a" * (HEAD_BYTES_MAX - len(line))])
    with pytest.raises(UpstreamBroke, match="larger"):
        fed([line, b"a" * (HEAD_BYTES_MAX - len(line)), b"a"])


def test_interim_answers_are_counted_in_one_piece_and_in_many() -> None:
    hint = bare(status="103 Early Hints")
    assert fed([hint * INTERIM_MAX + http()]).is_complete
    for pieces in ([hint * (INTERIM_MAX + 1)], [hint] * (INTERIM_MAX + 1)):
        with pytest.raises(UpstreamBroke, match="103"):
            fed(pieces)


@pytest.mark.parametrize(
    ("begun", "endless"),
    [(b"1;", b"a" * 1000), (b"0", b"0" * 1000), (b"0\r\n", b"X: y\r\n" * 170)],
)
def test_chunks_that_bring_nothing_have_an_end(begun: bytes, endless: bytes) -> None:
    times = FRAMING_BYTES_MAX // len(endless)
    fed([chunked(), begun, *[endless] * times])
    with pytest.raises(UpstreamBroke, match="without a body"):
        fed([chunked(), begun, *[endless] * (times + 1)])


PIECES = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from([answer.raw for answer in GOOD.values()]),
        st.sampled_from([*BAD_HEADS.values(), *BAD_CHUNKS.values(), *JUNK.values()]),
        st.sampled_from([b"HTTP/1.1 200 OK\r\n", b"\r\n", b"\r\n\r\n", chunked(), b"0\r\n\r\n"]),
    ),
    max_size=8,
)


@settings(max_examples=300, deadline=None)
@given(pieces=PIECES, size=st.integers(1, 50))
@example(pieces=[GOOD["chunks"].raw, http(b"of another call")], size=1 << 20)
def test_whatever_comes_is_an_answer_or_trouble_and_only_once(
    pieces: list[bytes], size: int
) -> None:
    """Nothing else is raised; a complete answer is not touched again; parts only grow."""
    raw = b"".join(pieces)
    reader = ResponseReader()
    try:
        for at in range(0, len(raw), size):
            before = b"".join(reader.parts)
            reader.feed(raw[at : at + size])
            assert b"".join(reader.parts).startswith(before)
            if reader.is_complete:
                break
        else:
            reader.end(in_order=True)
    except UpstreamBroke:
        return
    assert reader.is_complete
    assert reader.head is not None
    assert sum(map(len, reader.parts)) <= len(raw)


@settings(max_examples=200, deadline=None)
@given(
    body=st.lists(st.binary(min_size=1, max_size=30), max_size=6), cuts=st.sets(st.integers(1, 300))
)
def test_a_body_is_the_same_however_it_was_cut(body: list[bytes], cuts: set[int]) -> None:
    for raw in (chunked(*body) + b"0\r\n\r\n", http(b"".join(body))):
        marks = [0, *sorted(cut for cut in cuts if cut < len(raw)), len(raw)]
        reader = fed(raw[a:b] for a, b in pairwise(marks))
        assert reader.is_complete
        assert b"".join(reader.parts) == b"".join(body)
