"""What a client sends is taken within bounds, or refused by its name."""

from __future__ import annotations

import asyncio
from unittest.mock import Mock

import pytest
from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol
from aiohttp.test_utils import make_mocked_request
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from gateway.core.refusal import Case, Refused
from gateway.core.routes import CHAT
from gateway.web.http_request import HttpRequest
from gateway.web.request import (
    bearer_key,
    idempotency_key_of,
    read_body,
    sdk_retry_of,
    tag_of,
)
from gateway.web.request_id import answer_to, client_id_of, own_id
from tests.fakes.http_request import read_as

RID = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"


def request(*headers: tuple[str, str]) -> HttpRequest:
    return read_as(make_mocked_request("POST", "/v1/chat/completions", CIMultiDict(headers)))


def sending(chunks: list[bytes], *headers: tuple[str, str]) -> HttpRequest:
    """A request whose body arrives in these chunks."""
    loop = asyncio.get_running_loop()
    reader = StreamReader(BaseProtocol(loop, Mock()), 2**16, loop=loop)
    for chunk in chunks:
        reader.feed_data(chunk)
    reader.feed_eof()
    return read_as(make_mocked_request("POST", "/v1", CIMultiDict(headers), payload=reader))


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ([], ""),
        (["Bearer qg_a"], "qg_a"),
        (["bearer qg_a"], "qg_a"),
        (["BEARER  qg_a  "], "qg_a"),
        (["Bearer"], ""),
        (["Bearer "], ""),
        (["qg_a"], ""),
        (["Basic qg_a"], ""),
        (["Bearer\tqg_a"], ""),
        (["Bearer qg_a", "Bearer qg_b"], ""),
        (["Bearer qg_a", "Bearer qg_a"], ""),
        ([""], ""),
    ],
)
def test_a_key_is_what_one_bearer_header_says(values: list[str], key: str) -> None:
    assert bearer_key(request(*(("Authorization", value) for value in values))) == key


@pytest.mark.parametrize("chunks", [[], [b""], [b"a" * 10], [b"a" * 5, b"b" * 5], [b"a"] * 10])
async def test_a_body_within_the_limit_is_read_whole(chunks: list[bytes]) -> None:
    assert await read_body(sending(chunks), 10) == b"".join(chunks)


@pytest.mark.parametrize("chunks", [[b"a" * 11], [b"a" * 10, b"b"], [b"a"] * 1000])
async def test_a_body_beyond_the_limit_is_refused(chunks: list[bytes]) -> None:
    with pytest.raises(Refused) as caught:
        await read_body(sending(chunks), 10)
    assert caught.value.case is Case.REQUEST_TOO_LARGE


async def test_a_body_that_announces_too_much_is_refused_before_it_comes() -> None:
    loop = asyncio.get_running_loop()
    never = StreamReader(BaseProtocol(loop, Mock()), 2**16, loop=loop)
    head = CIMultiDict({"Content-Length": "3145729"})
    announced = read_as(make_mocked_request("POST", "/", head, payload=never))
    with pytest.raises(Refused) as caught:
        await asyncio.wait_for(read_body(announced, 3 * 2**20), 10)
    assert caught.value.case is Case.REQUEST_TOO_LARGE
    assert "(3 MiB)" in caught.value.message


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "br", "deflate", "zstd", "identity, gzip"])
async def test_a_compressed_body_is_refused_before_it_is_read(encoding: str) -> None:
    with pytest.raises(Refused) as caught:
        await read_body(sending([b"{}"], ("Content-Encoding", encoding)), 10)
    assert caught.value.case is Case.UNSUPPORTED_PARAMETER
    assert caught.value.param == "Content-Encoding"


async def test_a_body_that_says_it_is_plain_is_plain() -> None:
    assert await read_body(sending([b"{}"], ("Content-Encoding", "Identity")), 10) == b"{}"


@pytest.mark.parametrize(
    ("tag", "kept"),
    [("", None), ("quiz", "quiz"), ("a b", "a b"), ("Prüfung", "Prüfung"), ("x" * 64, "x" * 64)],
)
def test_a_tag_that_fits_is_kept(tag: str, kept: str | None) -> None:
    assert tag_of(request(("x-quota-tag", tag))) == kept
    assert tag_of(request()) is None


@pytest.mark.parametrize("tag", ["x" * 65, "a\tb", "a\x7f", "a\u202eb", "a\u00a0b"])
def test_a_tag_that_would_hurt_the_ledger_is_refused_by_its_name(tag: str) -> None:
    with pytest.raises(Refused) as caught:
        tag_of(request(("x-quota-tag", tag)))
    assert (caught.value.case, caught.value.param) == (Case.INVALID_VALUE, "x-quota-tag")


@pytest.mark.parametrize(
    ("text", "retries"),
    [
        *(("0", 0), ("2", 2), ("02", 2), ("999", 999), ("1000", 1000), ("1001", 1000)),
        *(("9" * 20, 1000), ("9" * 5000, 1000), ("", 0), ("-1", 0), ("1.5", 0), ("two", 0)),
        *(("²", 0), ("٣", 0), (" 2", 0), ("1e3", 0), ("0x2", 0), ("1_0", 0)),
    ],
)
def test_a_count_of_retries_is_a_small_number_or_nothing(text: str, retries: int) -> None:
    assert sdk_retry_of(request(("x-stainless-retry-count", text))) == retries
    assert sdk_retry_of(request()) == 0


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        *(("a", "a"), ("x" * 128, "x" * 128), ("x" * 129, None), ("", None), ("é", None)),
        ("a\tb", None),
    ],
)
def test_an_id_of_the_client_s_is_kept_if_it_fits_a_header(value: str, kept: str | None) -> None:
    assert client_id_of(request(("x-client-request-id", value))) == kept
    assert client_id_of(request()) is None


@pytest.mark.parametrize(
    ("value", "own"),
    [
        *(
            (f"{RID}", RID),
            ("a", "a"),
            ("Root=1-67891233-abc:7+z.Z_", "Root=1-67891233-abc:7+z.Z_"),
        ),
        *(("x" * 128, "x" * 128), ("x" * 129, None), ("", None), (" ", None), ("-a", None)),
        *(("é", None), ("a b", None), ("a/b", None), ("ann@example.test", None), ("a\tb", None)),
        *(("qg_" + "k" * 43, None), ("sk-proj-12345678", None), ("eyJhbGciOi.eyJz.x", None)),
    ],
)
def test_an_own_request_id_is_taken_where_it_may_stand_in_a_log(
    value: str, own: str | None
) -> None:
    sent = request(("X-Request-Id", value))
    assert own_id(sent) == client_id_of(sent) == own
    answered = [("Server", "s"), ("x-request-id", "ours")]
    renamed = [("Server", "s"), ("x-request-id", own), ("x-quota-request-id", "ours")]
    assert answer_to(answered, sent) == (renamed if own else answered)


def test_what_openai_calls_the_clients_id_goes_into_the_ledger_first() -> None:
    sent = request(("x-request-id", "of-a-proxy"), ("x-client-request-id", "of the client"))
    assert (own_id(sent), client_id_of(sent)) == ("of-a-proxy", "of the client")


def test_an_idempotency_key_is_bound_to_its_route_and_body() -> None:
    assert idempotency_key_of(request(), CHAT, b"{}") is None
    found = idempotency_key_of(request(("idempotency-key", "once")), CHAT, b"{}")
    assert found is not None
    assert found.text == "once"
    other = idempotency_key_of(request(("Idempotency-Key", "once")), CHAT, b"{ }")
    assert other is not None
    assert other.asked != found.asked


@pytest.mark.parametrize("values", [[""], ["é"], ["x" * 256], ["once", "once"], ["a", "b"]])
def test_anything_but_one_usable_key_is_refused_by_its_name(values: list[str]) -> None:
    with pytest.raises(Refused) as caught:
        idempotency_key_of(request(*(("Idempotency-Key", each) for each in values)), CHAT, b"{}")
    assert (caught.value.case, caught.value.param) == (Case.INVALID_VALUE, "Idempotency-Key")


@settings(deadline=None)
@given(st.text(max_size=200))
def test_no_header_brings_anything_but_a_value_or_a_refusal(text: str) -> None:
    names = ("Authorization", "x-quota-tag", "x-stainless-retry-count", "x-client-request-id")
    sent = request(*((name, text) for name in names))
    bearer_key(sent)
    assert 0 <= sdk_retry_of(sent) <= 1000
    assert len(client_id_of(sent) or "") <= 128
    try:
        assert len(tag_of(sent) or "") <= 64
    except Refused:
        return
