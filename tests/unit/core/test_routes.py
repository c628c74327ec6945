"""Only declared routes match, byte for byte; whatever else a request line says is refused."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.core.refusal import Case, Refused
from gateway.core.routes import CHAT, MODEL, MODELS, match_route

HOSTILE = [
    # absolute form, authority form, another host
    "http://api.openai.com/v1/chat/completions",
    "https://127.0.0.1:8790/v1/chat/completions",
    "//v1/chat/completions",
    "//evil.example/v1/chat/completions",
    "///v1/chat/completions",
    "evil.example:443",
    "*",
    "",
    "v1/chat/completions",
    # encoded slashes, dots, backslashes, nothings
    "/v1%2fchat/completions",
    "/v1%2Fchat%2Fcompletions",
    "/%76%31/chat/completions",
    "/v1/chat/completion%73",
    "/v1/%2e/chat/completions",
    "/v1/%2e%2e/v1/chat/completions",
    "/v1/chat/completions%00",
    "/v1/chat/completions%3fa",
    "/v1/chat/completions%23",
    "/v1/chat%5ccompletions",
    "/v1/chat/completions%20",
    "/v1/chat/completions%0d%0aHost:%20evil.example",
    "/v1/chat/completions%252f",
    # raw ones
    "/v1/chat/completions\0",
    "/v1\\chat\\completions",
    "\\v1\\chat\\completions",
    "/v1/chat/completions ",
    " /v1/chat/completions",
    "/v1/chat/completions\n",
    "/v1/chat/completions\r\nHost: evil.example",
    "/v1/chat/completions\t",
    "/v1/chat/completions#fragment",
    # parameters, dot segments, empty segments
    "/v1/chat/completions;a=b",
    "/v1;a/chat/completions",
    "/v1/chat/completions;",
    "/./v1/chat/completions",
    "/v1/./chat/completions",
    "/v1/../v1/chat/completions",
    "/v1/chat/completions/.",
    "/v1/chat/completions/..",
    "/v1/chat/x/../completions",
    "/v1//chat/completions",
    "/v1/chat//completions",
    "/v1/chat/completions/",
    "/v1/chat/completions//",
    # case, look-alikes, near misses
    "/V1/chat/completions",
    "/v1/Chat/Completions",
    "/v1/chat/completion",
    "/v1/chat/completionss",
    "/v1/chat",
    "/v1",
    "/",
    "/v1/chat/c\u043empletions",
    "/v1/chat/completions\u200b",
    "/v1/chat/completions\udc80",
    "/openai/v1/chat/completions",
    "/v1/v1/chat/completions",
    # what would reach objects of the one upstream account
    "/v1/chat/completions/chatcmpl-1",
    "/v1/chat/completions/chatcmpl-1/messages",
    "/v1/files",
    "/v1/files/file-1/content",
    "/v1/responses",
    "/v1/threads",
    "/v1/assistants",
    "/v1/batches",
    "/v1/vector_stores",
    "/v1/containers",
    "/v1/fine_tuning/jobs",
    "/v1/organization/admin_api_keys",
    "/v1/embeddings",
    "/v1/completions",
    "/v1/realtime",
]
HOSTILE_MODELS = [
    *("/v1/models/", "/v1/models//", "/v1/models/a/", "/v1/models/a/b", "/v1/models/."),
    *("/v1/models/..", "/v1/models/...", "/v1/models/%2e%2e", "/v1/models/a%2fb"),
    *("/v1/models/a%00", "/v1/models/a\0", "/v1/models/a;b", "/v1/models/a\\b", "/v1/models/a b"),
    *("/v1/models/a\n", "/v1/models/\u0430", "/v1/models/" + "a" * 129, "/V1/models/a"),
    *("//v1/models/a", "http://h/v1/models/a", "/v1/Models", "/v1/models/a#b", "/v1/models/a,b"),
]
METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "CONNECT", "TRACE"]
OPEN = {("POST", "/v1/chat/completions"), ("GET", "/v1/models")}


@pytest.mark.parametrize(
    ("method", "target", "name", "parameter"),
    [
        ("POST", "/v1/chat/completions", "chat", ""),
        ("POST", "/v1/chat/completions?api-version=1", "chat", ""),
        ("POST", "/v1/chat/completions?", "chat", ""),
        ("POST", "/v1/chat/completions?a=/../%2e%2e//x", "chat", ""),
        ("GET", "/v1/models", "models", ""),
        ("GET", "/v1/models/gpt-4o-mini", "model", "gpt-4o-mini"),
        ("GET", "/v1/models/ft:gpt-4o:org::id", "model", "ft:gpt-4o:org::id"),
        ("GET", "/v1/models/..a", "model", "..a"),
    ],
)
def test_a_declared_route_matches(method: str, target: str, name: str, parameter: str) -> None:
    route, found = match_route(method, target)
    assert (route.name, found) == (name, parameter)


@pytest.mark.parametrize("target", HOSTILE + HOSTILE_MODELS)
def test_a_hostile_target_never_matches(target: str) -> None:
    for method in METHODS:
        with pytest.raises(Refused) as caught:
            match_route(method, target)
        assert caught.value.case is Case.ROUTE_NOT_AVAILABLE
        caught.value.message.encode("utf-8")  # fit for the answer, whatever the target was


@pytest.mark.parametrize("method", [*METHODS, "get", "post", "Post", "", "POST "])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models"])
def test_only_the_declared_method_matches(method: str, path: str) -> None:
    if (method, path) in OPEN:
        assert match_route(method, path)
    else:
        with pytest.raises(Refused):
            match_route(method, path)


PIECES = st.sampled_from(
    [
        *("/v1", "/chat", "/completions", "/models", "/gpt-4o", "/", "//", ".", "..", "%2e", "%2f"),
        *("%00", "\\", ";", "?", "#", " ", "\0", "http://h", "V1", "\u0430", "a"),
    ]
)
TARGETS = st.lists(PIECES, max_size=8).map("".join) | st.text(max_size=30)


@settings(deadline=None)
@given(st.sampled_from(METHODS) | st.text(max_size=5), TARGETS)
@example("POST", "/v1/chat/completions")
@example("GET", "/v1/models/a?b")
def test_whatever_matches_is_a_declared_path_byte_for_byte(method: str, target: str) -> None:
    try:
        route, parameter = match_route(method, target)
    except Refused:
        return
    assert method == route.method
    assert target.partition("?")[0] == route.path.replace("{model}", parameter)
    assert not parameter or re.fullmatch(r"[A-Za-z0-9._:-]+", parameter)


def test_the_upstream_path_is_the_table_s_own() -> None:
    assert CHAT.upstream_path == "/chat/completions"
    assert (MODELS.upstream_path, MODEL.upstream_path) == ("", "")
    assert {route.charge for route in (MODELS, MODEL)} == {"free"}


def test_a_refusal_says_what_is_available_and_bounds_what_it_repeats() -> None:
    with pytest.raises(Refused) as caught:
        match_route("GET", "/" + "x" * 10_000)
    assert "POST /v1/chat/completions" in caught.value.message
    assert "GET /v1/models" in caught.value.message
    assert len(caught.value.message) < 400


def refused_words(method: str, target: str) -> str:
    with pytest.raises(Refused) as caught:
        match_route(method, target)
    return caught.value.message


def test_the_refusal_of_an_operation_that_openai_has_tells_its_reason() -> None:
    assert refused_words("POST", "/v1/files?purpose=batch").startswith(
        "POST /v1/files is not available through this gateway: "
        "files of all users would lie in one account. Available: POST /v1/chat/completions, "
    )


@pytest.mark.parametrize("target", ["/v1/telepathy", "/v1/files/", "/v1/%66iles", "//v1/files"])
def test_the_refusal_of_any_other_path_does_not(target: str) -> None:
    assert refused_words("POST", target).startswith(
        f"POST {target} is not available through this gateway. Available: "
    )


def test_a_reason_does_not_let_more_of_a_path_into_the_message() -> None:
    long = "/v1/files" + "/file-1" * 1_000
    shown = f"POST {long[:100]} is not available through this gateway: files of all users"
    assert refused_words("POST", long).startswith(shown)
    assert refused_words("POST", "/v1/files/\u0430").startswith("POST /v1/files/? is not")
