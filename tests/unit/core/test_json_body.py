"""A body is read once, within bounds, and what was read is what is sent on."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.json_body import DEPTH_MAX, encode, read_object
from gateway.core.refusal import Case, Refused

INTEGERS = st.integers(-(2**63) + 1, 2**63 - 1)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | INTEGERS
    | st.floats(allow_nan=False, allow_infinity=False)
    # Lone surrogates are no Unicode text: JSON may spell them, but no reader has to take them.
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda node: (
        st.lists(node, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), node, max_size=3)
    ),
    max_leaves=15,
)


def lists(levels: int) -> bytes:
    """An object of that many levels, its own included."""
    return b'{"a":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


def objects(levels: int) -> bytes:
    return b'{"a":' * levels + b"1" + b"}" * levels


def refusal(raw: bytes) -> Refused:
    with pytest.raises(Refused) as caught:
        read_object(raw)
    return caught.value


@settings(deadline=None)
@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), JSON))
def test_what_was_read_is_what_is_sent(document: dict[str, Any]) -> None:
    raw = json.dumps(document).encode()
    assert read_object(raw) == document
    assert json.loads(encode(read_object(raw))) == document


@settings(deadline=None)
@given(st.binary())
def test_no_bytes_bring_anything_but_an_object_or_a_refusal(raw: bytes) -> None:
    case = None
    try:
        read: object = read_object(raw)
    except Refused as refused:
        read, case = None, refused.case
    assert isinstance(read, dict) or case is Case.INVALID_JSON


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"{",
        b'{"a":}',
        b'{"a":1}x',
        b"{'a':1}",
        b'{"a":1,}',
        b"[]",
        b"null",
        b"3",
        b'"a"',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":1e400}',
        b'{"a":01}',
        b'{"a":"\xff"}',
        b'{"a":"\\ud800"}',
        b'{"a":"\n"}',
        b"\xef\xbb\xbf{}",
        b"{}\0",
        '{"a":1}'.encode("utf-16"),
    ],
)
def test_what_is_not_json_is_refused_with_the_reason(raw: bytes) -> None:
    refused = refusal(raw)
    assert refused.case is Case.INVALID_JSON
    assert len(refused.message) > len("The request body is not valid JSON for this API: .")


@pytest.mark.parametrize(
    "digits",
    [str(2**63), str(2**64), str(-(2**63)), str(-(2**64)), "1" + "0" * 5000],
    ids=["2^63", "2^64", "-2^63", "-2^64", "10^5000"],
)
def test_an_integer_beyond_64_bits_is_refused_wherever_it_stands(digits: str) -> None:
    for raw in (
        f'{{"a":{digits}}}',
        f'{{"a":[{{"b":[{digits}]}}]}}',
        f'{{"a":[1,{digits},2]}}',
        f'{{"a":[{{}},"b",1,null,{digits},[],true]}}',
        f'{{"a":[[1],[2,{digits}]]}}',
        *('{"a":' * levels + digits + "}" * levels for levels in (7, 8, 9, DEPTH_MAX)),
    ):
        assert refusal(raw.encode()).case is Case.INVALID_JSON


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63) + 1, 0])
def test_an_integer_of_64_bits_passes_unchanged(number: int) -> None:
    assert encode(read_object(f'{{"a":{number}}}'.encode())) == f'{{"a":{number}}}'.encode()


@pytest.mark.parametrize("nested", [lists, objects])
def test_64_levels_pass_and_65_do_not(nested: Callable[[int], bytes]) -> None:
    assert read_object(nested(DEPTH_MAX))
    assert "deeper than 64" in refusal(nested(DEPTH_MAX + 1)).message


def test_a_body_that_nests_without_end_is_refused_like_any_other() -> None:
    assert refusal(lists(500_000)).case is Case.INVALID_JSON
    assert refusal(b'{"a":' + b"[" * 1_000_000).case is Case.INVALID_JSON


def test_of_a_key_given_twice_one_value_is_judged_and_the_same_is_sent() -> None:
    body = read_object(b'{"store":false,"store":true}')
    assert encode(body) == b'{"store":true}'
    assert body == {"store": True}


def test_a_reason_never_quotes_the_body() -> None:
    assert "sekret" not in refusal(b'{"a":"sekret"').message
