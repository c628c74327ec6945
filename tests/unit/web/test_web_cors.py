"""Which pages may call: a preflight is answered without a key, an answer says who may read it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from gateway.core.refusal import Case, Refused
from gateway.web.cors import EXPOSED, Cors
from gateway.web.http_request import HttpRequest
from tests.fakes.http_request import read_as

PAGE, OTHER = "https://app.example.org", "https://evil.example.org"
LISTED, ANY, NONE = Cors(frozenset({PAGE})), Cors(frozenset({"*"})), Cors(frozenset())
WANTED = "authorization, content-type, x-stainless-lang"


def asking(origin: str | None, method: str = "POST", **headers: str) -> HttpRequest:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if origin is not None:
        named["Origin"] = origin
    return read_as(make_mocked_request(method, "/v1/chat/completions", CIMultiDict(named)))


def preflight(origin: str | None, names: str = WANTED) -> HttpRequest:
    return asking(
        origin,
        "OPTIONS",
        Access_Control_Request_Method="POST",
        Access_Control_Request_Headers=names,
    )


def test_a_listed_page_may_call_and_send_what_it_likes() -> None:
    answer = LISTED.preflight(preflight(PAGE))
    assert answer is not None
    assert answer.status == 204
    assert dict(answer.headers)["Access-Control-Allow-Methods"] == "GET, POST, PUT"
    assert dict(answer.headers)["Access-Control-Allow-Headers"] == WANTED
    assert int(dict(answer.headers)["Access-Control-Max-Age"]) == 7200


@pytest.mark.parametrize("origin", [OTHER, "null", PAGE + "/", PAGE.upper(), "http" + PAGE[5:], ""])
def test_another_page_is_told_why_not(origin: str) -> None:
    with pytest.raises(Refused) as caught:
        LISTED.preflight(preflight(origin))
    assert caught.value.case is Case.ORIGIN_NOT_ALLOWED
    assert "cors.origins" in caught.value.message
    assert LISTED.headers(asking(origin)) == [("Vary", "Origin")]


def test_without_a_list_no_page_may_call() -> None:
    assert NONE.preflight(preflight(PAGE)) is None
    assert NONE.headers(asking(PAGE)) == []


def test_what_is_no_preflight_goes_on() -> None:
    assert LISTED.preflight(asking(PAGE, "POST")) is None
    assert LISTED.preflight(asking(PAGE, "OPTIONS")) is None
    assert LISTED.preflight(preflight(None)) is None


@pytest.mark.parametrize("names", ["", "a\tb", "x" * 2049, "a;b", "caf\xe9"])
def test_names_that_are_none_are_not_written_back(names: str) -> None:
    answer = LISTED.preflight(preflight(PAGE, names))
    assert answer is not None
    assert "Access-Control-Allow-Headers" not in dict(answer.headers)


def test_an_answer_may_be_read_by_the_page_that_asked() -> None:
    headers = dict(LISTED.headers(asking(PAGE)))
    assert headers["Access-Control-Allow-Origin"] == PAGE
    assert headers["Vary"] == "Origin"
    assert "Access-Control-Allow-Credentials" not in headers
    assert LISTED.headers(asking(None)) == [("Vary", "Origin")]


def test_where_all_pages_may_call_no_page_is_named() -> None:
    headers = dict(ANY.headers(asking(OTHER)))
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert "Vary" not in headers
    assert ANY.preflight(preflight("null")) is not None


def test_every_header_that_the_gateway_can_send_may_be_read() -> None:
    folder = Path(__file__).parents[3] / "gateway" / "web"
    sent = {
        name
        for path in (folder / "quota_headers.py", folder / "error_body.py")
        for name in re.findall(r'(?:yield |\()"([A-Za-z-]+)", ', path.read_text("utf-8"))
    }
    assert sent - {"Content-Type", "Server"} <= set(EXPOSED)
    assert {"x-quota-remaining-tokens", "Retry-After", "x-should-retry"} <= sent
