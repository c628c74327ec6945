"""How a directive line is read."""

from __future__ import annotations

import pytest

from gateway.standin.directives import OF_ALL, DirectiveError, Directives, read_directives
from gateway.standin.usage import Usage


def test_a_text_without_a_line_gives_the_defaults() -> None:
    assert read_directives("What is @stand-in write=3 in the middle?") == Directives()
    assert read_directives("> @stand-in write=3") == Directives()
    assert read_directives("@stand-inside write=3") == Directives()
    assert read_directives("@stand-in") == Directives()


def test_a_line_is_found_between_others_and_after_other_mentions() -> None:
    text = "about @stand-in write=1\r\n\t@stand-in write=3 \r\n> @stand-in write=5"
    assert read_directives(text) == Directives(write=3)
    assert read_directives("@stand-in\r\nwrite=3") == Directives()


def test_every_directive_is_read() -> None:
    line = (
        "@stand-in write=40 usage=7/8/3/2 delay_ms=5 chunk_ms=6 cut_after=1 error_after=2 "
        "status=429 code=insufficient_quota retry_after=9 hold=door hold_after=4 "
        "never_ends ignore_cap think=11 calls=2 refuse cached=12 cache_write=13 predicted=3/4 "
        "flag=violence/graphic fail_after=5 postscript"
    )
    assert read_directives(f"please\n  {line}\nthank you, write=99") == Directives(
        write=40,
        usage=Usage(7, 8, 3, 2),
        delay_ms=5,
        chunk_ms=6,
        cut_after=1,
        error_after=2,
        status=429,
        code="insufficient_quota",
        retry_after=9,
        hold="door",
        hold_after=4,
        never_ends=True,
        ignore_cap=True,
        think=11,
        calls=2,
        refuse=True,
        cached=12,
        cache_write=13,
        predicted=(3, 4),
        flag="violence/graphic",
        fail_after=5,
        postscript=True,
    )


@pytest.mark.parametrize(
    ("word", "usage"),
    [("5/6", Usage(5, 6)), ("zero", Usage(0, 0)), ("none", "none"), ("text", "text")],
)
def test_usage_may_be_figures_or_a_manner(word: str, usage: object) -> None:
    assert read_directives(f"@stand-in usage={word}").usage == usage


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("@stand-in wirte=3", "'wirte'"),
        ("@stand-in write", "'write='"),
        ("@stand-in write=", "'write='"),
        ("@stand-in write=-1", "'write=-1'"),
        ("@stand-in write=3.5", "'write=3.5'"),
        ("@stand-in write=٣", "'write=٣'"),
        ("@stand-in write=1000001", "'write=1000001'"),
        ("@stand-in usage=5", "'usage=5'"),
        ("@stand-in usage=5/6/7", "'usage=5/6/7'"),
        ("@stand-in usage=honest", "'usage=honest'"),
        ("@stand-in status=200", "'status=200'"),
        ("@stand-in delay_ms=600001", "'delay_ms=600001'"),
        ("@stand-in hold=a/b", "'hold=a/b'"),
        ("@stand-in calls=0", "'calls=0'"),
        ("@stand-in predicted=3", "'predicted=3'"),
        ("@stand-in flag=X", "'flag=X'"),
        ("@stand-in never_ends=1", "'never_ends' takes no value"),
        ("@stand-in write=1 write=1", "'write' is given twice"),
        ("@stand-in code=rate_limit_exceeded", "need 'status'"),
        ("@stand-in retry_after=2", "need 'status'"),
        ("@stand-in hold_after=2", "needs 'hold'"),
        ("@stand-in write=1\n@stand-in write=2", "write one"),
    ],
)
def test_what_cannot_be_obeyed_is_named(line: str, named: str) -> None:
    with pytest.raises(DirectiveError) as caught:
        read_directives(line)
    assert named in str(caught.value)


def test_an_unknown_directive_is_told_the_known_ones() -> None:
    with pytest.raises(DirectiveError, match="cut_after, delay_ms, error_after"):
        read_directives("@stand-in cut=3")


def test_a_directive_that_an_api_does_not_obey_is_named() -> None:
    assert read_directives("@stand-in usage=1/2", OF_ALL).usage == Usage(1, 2)
    with pytest.raises(DirectiveError, match="'write' does nothing in this API"):
        read_directives("@stand-in write=3", OF_ALL)
