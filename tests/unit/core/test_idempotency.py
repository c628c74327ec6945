"""What stands under a key, as bytes; which keys are taken; and what a repetition is told."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from gateway.core.idempotency import (
    Remembered,
    RememberedError,
    answer_name,
    decode_remembered,
    encode_remembered,
    read_key,
    refusal_of,
)
from gateway.core.refusal import Case, Refused

RID = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"
ASKED = b"a digest"
RUNNING = Remembered("ada", "once", RID, ASKED)
KEPT = structs.replace(
    RUNNING, state="kept", status=200, content_type="application/json", body=b'{"a":"\xff"}'
)
NOT_KEPT = structs.replace(RUNNING, state="not_kept")


@pytest.mark.parametrize("remembered", [RUNNING, KEPT, NOT_KEPT], ids=lambda each: each.state)
def test_what_is_remembered_is_read_as_it_was_written(remembered: Remembered) -> None:
    assert decode_remembered(encode_remembered(remembered)) == remembered


@given(st.binary(max_size=2000))
def test_a_body_of_any_bytes_comes_back(body: bytes) -> None:
    kept = structs.replace(KEPT, body=body)
    assert decode_remembered(encode_remembered(kept)).body == body


@given(st.binary(max_size=200))
def test_other_bytes_are_an_error_and_no_answer(raw: bytes) -> None:
    with pytest.raises(RememberedError):
        decode_remembered(raw)


@pytest.mark.parametrize(
    "untrue", [{"state": "elsewhere"}, {"user_id": 7}, {"rid": None}, {"body": "text"}], ids=str
)
def test_a_field_of_another_kind_is_an_error(untrue: dict[str, object]) -> None:
    told = msgspec.msgpack.encode({**structs.asdict(KEPT), **untrue})
    with pytest.raises(RememberedError):
        decode_remembered(told)


@pytest.mark.parametrize("text", ["a", "x" * 255, "a key, with spaces", '"8e03-978e"', "~"])
def test_a_key_of_printable_ascii_is_taken_as_it_is(text: str) -> None:
    assert read_key(text, "chat", b"{}").text == text


@pytest.mark.parametrize("text", ["", "x" * 256, "a\tb", "a\x7f", "schlüssel", "a\u00a0b"])
def test_any_other_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(Refused) as caught:
        read_key(text, "chat", b"{}")
    assert (caught.value.case, caught.value.param) == (Case.INVALID_VALUE, "Idempotency-Key")


def test_what_was_asked_is_the_route_and_the_body_to_the_byte() -> None:
    asked = [
        read_key("k", route, body).asked
        for route, body in (("chat", b"{}"), ("chat", b"{ }"), ("responses", b"{}"), ("chat", b""))
    ]
    assert len(set(asked)) == 4
    assert read_key("another", "chat", b"{}").asked == asked[0]


@given(st.tuples(st.text(), st.text()), st.tuples(st.text(), st.text()))
def test_two_users_never_share_a_name(one: tuple[str, str], other: tuple[str, str]) -> None:
    users = [each.replace("\n", "") for each in (one[0], other[0])]
    names = {answer_name(users[0], one[1]), answer_name(users[1], other[1])}
    assert len(names) == len({(users[0], one[1]), (users[1], other[1])})


@pytest.mark.parametrize("first", [RUNNING, KEPT, NOT_KEPT], ids=lambda each: each.state)
def test_another_request_under_the_key_is_refused_whatever_became_of_the_first(
    first: Remembered,
) -> None:
    refused = refusal_of(first, b"another digest")
    assert refused is not None
    assert refused.case is Case.IDEMPOTENCY_KEY_REUSED
    assert RID in refused.message


def test_while_the_first_runs_a_repetition_is_told_to_wait() -> None:
    refused = refusal_of(RUNNING, ASKED)
    assert refused is not None
    assert (refused.case, refused.retry_after_s) == (Case.IDEMPOTENCY_IN_PROGRESS, 2)


def test_an_answer_that_was_not_kept_is_told_to_be_charged_and_by_which_call() -> None:
    refused = refusal_of(NOT_KEPT, ASKED)
    assert refused is not None
    assert (refused.case, refused.retry_after_s) == (Case.IDEMPOTENCY_ANSWER_GONE, None)
    assert "answered and charged" in refused.message
    assert RID in refused.message


def test_a_kept_answer_is_for_its_repetition() -> None:
    assert refusal_of(KEPT, ASKED) is None
