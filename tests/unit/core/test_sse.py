"""The splitter loses no byte, whatever the line ends and wherever the network cut the stream."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.sse import EVENT_BYTES_MAX, SseEvent, SseReader, SseTooLarge

CHAT = (
    b'data: {"choices":[{"delta":{"content":"Hi"}}]}\n\n'
    b": keep-alive\n\n"
    b"event: error\r\ndata: one\r\ndata: two\r\nid: 7\r\n\r\n"
    b"data:\n\ndata: \xe2\x82\xac\n\n\n\rdata: x\r\r"
    b"data: [DONE]\n\n"
)
PIECES = (
    b"data: a\n\n",
    b"event: e\ndata: a\n\n",
    b"data: a",
    b"data:b\n",
    b"event: e\n",
    b": c",
    b"\n",
    b"\r",
    b"\r\n",
)


def read(*chunks: bytes) -> list[SseEvent]:
    reader = SseReader()
    events = [event for chunk in chunks for event in reader.feed(chunk)]
    tail = reader.flush()
    return events if tail is None else [*events, tail]


def bytewise(stream: bytes) -> list[bytes]:
    return [stream[place : place + 1] for place in range(len(stream))]


def cut_line_by_line(stream: bytes) -> list[bytes]:
    """The same cuts, found in the plainest way."""
    cuts, event, line = [], 0, 3 if stream.startswith(b"\xef\xbb\xbf") else 0
    place = line
    while place < len(stream):
        if stream[place] not in b"\r\n":
            place += 1
            continue
        end = place + (2 if stream[place : place + 2] == b"\r\n" else 1)
        if place == line:
            cuts.append(stream[event:end])
            event = end
        place = line = end
    return [*cuts, stream[event:]] if stream[event:] else cuts


def test_a_chunk_of_chat_is_one_event_with_its_data() -> None:
    first, second = b'data: {"a":1}\n\n', b"data: [DONE]\n\n"
    assert read(first, second) == [SseEvent(first, b'{"a":1}'), SseEvent(second, b"[DONE]")]


def test_every_form_of_line_end_comment_and_field_is_read() -> None:
    data = [(event.data, event.name) for event in read(CHAT)]
    assert data == [
        (b'{"choices":[{"delta":{"content":"Hi"}}]}', ""),
        (None, ""),
        (b"one\ntwo", "error"),
        (b"", ""),
        (b"\xe2\x82\xac", ""),
        (None, ""),
        (None, ""),
        (b"x", ""),
        (b"[DONE]", ""),
    ]


@pytest.mark.parametrize("start", [b"", b"data: first\n\n", b"\xef\xbb\xbf"])
def test_a_split_at_any_byte_changes_nothing(start: bytes) -> None:
    stream = start + CHAT
    whole = read(stream)
    assert b"".join(event.raw for event in whole) == stream
    assert read(*bytewise(stream)) == whole
    for first in range(len(stream)):
        assert read(stream[:first], stream[first:]) == whole
        assert read(stream[:first], stream[first : first + 3], stream[first + 3 :]) == whole


def test_all_short_streams_of_line_ends_are_cut_where_a_plain_reading_cuts_them() -> None:
    for letters in product((b"\r", b"\n", b"a"), repeat=6):
        for start in (b"", b"\xef\xbb\xbf"):
            stream = start + b"".join(letters)
            expected = cut_line_by_line(stream)
            assert [event.raw for event in read(stream)] == expected
            assert [event.raw for event in read(*bytewise(stream))] == expected


def test_a_chunk_of_whole_events_is_read_as_its_bytes_one_by_one() -> None:
    first = b"data: first\n\n"  # from here on the reader may take the quick way
    for letters in product((b"data: a", b"event: e\n", b"\n", b"\r", b": c\n"), repeat=5):
        for end in (b"", b"\n\n"):
            chunk = b"".join(letters) + end
            assert read(first, chunk) == read(*bytewise(first + chunk))


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from(PIECES) | st.binary(max_size=4), max_size=6), max_size=8))
def test_any_stream_in_any_chunks_gives_the_same_events_and_all_bytes(
    parts: list[list[bytes]],
) -> None:
    chunks = [b"".join(part) for part in parts]
    stream = b"".join(chunks)
    events = read(*chunks)
    assert b"".join(event.raw for event in events) == stream
    assert [event.raw for event in events] == cut_line_by_line(stream)
    assert events == read(*bytewise(stream)) == read(stream)


def test_a_byte_order_mark_is_relayed_and_not_read() -> None:
    stream = b"\xef\xbb\xbfdata: a\n\ndata: b\n\n"
    assert [event.data for event in read(stream)] == [b"a", b"b"]
    assert read(stream)[0].raw.startswith(b"\xef\xbb\xbf")


def test_a_stream_that_breaks_off_leaves_its_tail_to_flush() -> None:
    reader = SseReader()
    assert reader.feed(b"data: a\n\ndata: b") == [SseEvent(b"data: a\n\n", b"a")]
    assert reader.flush() == SseEvent(b"data: b", b"b")
    assert reader.flush() is None


def test_an_event_ending_in_a_bare_cr_waits_for_the_byte_that_may_belong_to_it() -> None:
    reader = SseReader()
    assert reader.feed(b"data: a\r\n\r") == []
    assert reader.feed(b"\n") == [SseEvent(b"data: a\r\n\r\n", b"a")]


@pytest.mark.parametrize("step", [EVENT_BYTES_MAX * 2, 65_536])
def test_an_event_over_the_limit_is_refused_however_it_arrives(step: int) -> None:
    allowed = b"data: " + b"x" * (EVENT_BYTES_MAX - 8) + b"\n\n"
    larger = b"x" + allowed
    assert read(b"\n", allowed)[1].raw == allowed
    for start in (b"", b"data: a\n\n"):
        chunks = [larger[place : place + step] for place in range(0, len(larger), step)]
        with pytest.raises(SseTooLarge, match=str(EVENT_BYTES_MAX)):
            read(start, *chunks)
