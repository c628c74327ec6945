"""Each operation of OpenAI's API is open or refused for a reason: tables, list and document agree.

The checks are functions that return what is wrong, and each is shown something wrong, so that a
check which finds nothing cannot pass for tables in order.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from gateway.core import routes
from gateway.core.operations import REFUSALS, refusal_for
from gateway.core.refusal import Case, Refused
from gateway.core.routes import Route, match_route

Operation = tuple[str, str]  # method, and path with its parameters' names, below /v1

LIST = Path(__file__).with_name("openai_operations.txt").read_text()
DOCUMENT = (Path(__file__).resolve().parents[3] / "docs" / "routes.md").read_text()

# Open by decision, but not in the table of routes yet. A test fails for one that is in both.
NOT_YET_ADDED: dict[Operation, str] = {
    ("POST", "/responses"): "metered",
    ("POST", "/completions"): "metered",
    ("POST", "/embeddings"): "metered",
    ("POST", "/moderations"): "free",
}


def as_operation(line: str) -> Operation:
    method, path = line.split(" ")
    return method, path


LISTED = [as_operation(line) for line in LIST.splitlines() if not line.startswith("#")]
IN_TABLE: dict[Operation, str] = {
    (route.method, route.path.removeprefix("/v1")): route.charge
    for route in vars(routes).values()
    if isinstance(route, Route)
}
OPEN = IN_TABLE | NOT_YET_ADDED


def concrete(path: str) -> str:
    """A path as a caller sends it, with something that looks like an id for each parameter."""
    return "/v1" + re.sub(r"\{\w+\}", "ft:gpt-4o_a.b-1", path)


def undecided(operations: Iterable[Operation]) -> list[Operation]:
    """Those neither open nor refused, asked for as listed or as called."""
    return [
        (method, path)
        for method, path in operations
        if (method, path) not in OPEN
        and not (refusal_for(method, "/v1" + path) and refusal_for(method, concrete(path)))
    ]


def idle_patterns(operations: Iterable[Operation]) -> set[str]:
    """The patterns that decide on none of these, so that they are misspelt, outdated or hidden."""
    deciding = {refusal_for(method, concrete(path)) for method, path in operations}
    return {refusal.pattern for refusal in REFUSALS if refusal not in deciding}


def shadowed(operations: Iterable[Operation]) -> list[Operation]:
    """Those that a refusal matches."""
    return [
        (method, path)
        for method, path in operations
        if refusal_for(method, "/v1" + path) or refusal_for(method, concrete(path))
    ]


# --- the tables ----------------------------------------------------------------------------


def test_every_operation_of_the_list_has_a_decision() -> None:
    assert not undecided(LISTED)


def test_an_operation_without_a_decision_is_found() -> None:
    new = [("POST", "/telepathy"), ("DELETE", "/embeddings"), ("PUT", "/chat/completions")]
    assert undecided([*LISTED, *new]) == new


def test_every_pattern_refuses_something_that_there_is() -> None:
    assert not idle_patterns(LISTED)


def test_a_pattern_that_refuses_nothing_is_found() -> None:
    without = [(method, path) for method, path in LISTED if not path.startswith("/skills")]
    assert idle_patterns(without) == {"/skills"}
    without = [operation for operation in LISTED if operation != ("DELETE", "/models/{model}")]
    assert idle_patterns(without) == {"DELETE /models/{id}"}


def test_no_open_operation_is_refused() -> None:
    assert not shadowed(OPEN)


def test_an_open_operation_that_is_refused_is_found() -> None:
    wrong = [("POST", "/files"), ("GET", "/responses/{response_id}")]
    assert shadowed([*OPEN, *wrong]) == wrong


def test_what_is_open_is_an_operation_of_openai_and_stated_once() -> None:
    assert OPEN.keys() <= set(LISTED)
    assert not NOT_YET_ADDED.keys() & IN_TABLE.keys(), "take these out of NOT_YET_ADDED"


def test_a_pattern_is_there_once_and_a_reason_is_a_clause() -> None:
    patterns = [refusal.pattern for refusal in REFUSALS]
    assert len(set(patterns)) == len(patterns)
    for refusal in REFUSALS:
        assert re.fullmatch(r"[a-z][\w ,]{8,70}[a-z]", refusal.reason)


# --- what a caller is told -----------------------------------------------------------------


def refused_words(method: str, target: str) -> str:
    with pytest.raises(Refused) as caught:
        match_route(method, target)
    assert caught.value.case is Case.ROUTE_NOT_AVAILABLE
    return caught.value.message


def test_each_refused_operation_is_refused_with_its_reason_and_each_open_one_matches() -> None:
    for method, path in LISTED:
        if (method, path) in IN_TABLE:
            assert match_route(method, concrete(path))
        elif (method, path) not in NOT_YET_ADDED:
            refusal = refusal_for(method, concrete(path))
            assert refusal is not None
            words = f" is not available through this gateway: {refusal.reason}. Available: "
            assert words in refused_words(method, concrete(path) + "?a=b")


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        ("POST /realtime/client_secrets", "it hands out a key"),
        ("GET /realtime", "its session stays open"),
        ("POST /responses/input_tokens", "it reads stored files"),
        ("POST /responses/compact", "this version does not meter it"),
        ("POST /responses/resp_1/cancel", "stored objects"),
        ("GET /responses", "its session stays open"),
        ("GET /chat/completions/chatcmpl-1/messages", "stored objects"),
        ("POST /fine_tuning/alpha/graders/run", "this version does not meter it"),
        ("POST /fine_tuning/jobs/ftjob-1/pause", "its jobs work on"),
        ("DELETE /models/ft:gpt-4o:org::id", "it administers the account"),
        ("PUT /files/file-1", "files of all users"),
    ],
)
def test_the_narrow_pattern_decides_before_the_wide(operation: str, reason: str) -> None:
    method, path = as_operation(operation)
    refusal = refusal_for(method, "/v1" + path)
    assert refusal is not None
    assert refusal.reason.startswith(reason)


@pytest.mark.parametrize(
    "path",
    [
        *("/files", "/v1", "/v1/", "/v1/files/", "/v1//files", "//v1/files", "/v1/filesx"),
        *("/v1/file", "/v1/FILES", "/V1/files", "/v1/%66iles", "/v1/files%2Fa", "/v1/files/a b"),
        *("/v1/files/.", "/v1/files/..", "/v1/./files", "/v1/x/../files", "/v1/files/a/../b"),
        *("/v1/files\n", "/v1/files/a\n", "/v1/files\0", "/v1/files#a", "/v1/files;a", "v1/files"),
        *("/v1/files/\u0430", "/v1/files/" + "a" * 129, "http://h/v1/files", "/x/v1/files", ""),
        *("/v1/chat", "/v1/embeddings/a", "/v1/models/", "/v1/telepathy"),
    ],
)
def test_an_unknown_path_is_refused_without_a_reason(path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        assert "is not available through this gateway. Available: " in refused_words(method, path)


def test_a_pattern_with_a_method_is_for_that_method_alone() -> None:
    assert refusal_for("GET", "/v1/responses")
    for method, path in [
        ("PUT", "/v1/responses"),
        ("PUT", "/v1/models/a"),
        ("get", "/v1/responses"),
    ]:
        assert refusal_for(method, path) is None


# --- the list and the document -------------------------------------------------------------

CALLED = re.compile(
    r'self\._(get|post|put|patch|delete)(?:_api_list)?\(\s*(?:path_template\(\s*)?"(/[^"?]+)'
)
SOCKET = re.compile(r'(?:\bb|path_template\()"(/\w[^"]*)"')


def unnamed(operations: Iterable[Operation]) -> set[Operation]:
    """The same with `{}` for each parameter, whose names differ between descriptions."""
    return {(method, re.sub(r"\{\w+\}", "{}", path)) for method, path in operations}


def called_by(source: str) -> Iterator[Operation]:
    """What a module of the SDK calls; its WebSockets open with GET."""
    for function in re.split(r"\n    (?:async )?def ", source):
        if function.startswith("_prepare_url"):
            yield from (("GET", path) for path in SOCKET.findall(function))
        named = re.search(r'method="(\w+)"', function)
        for verb, path in CALLED.findall(function):
            yield (named.group(1) if named else verb).upper(), path


def test_the_list_has_every_operation_of_the_installed_sdk() -> None:
    package = importlib.util.find_spec("openai")
    assert package is not None
    assert package.origin is not None
    modules = Path(package.origin).parent.joinpath("resources").rglob("*.py")
    called = unnamed(found for module in modules for found in called_by(module.read_text()))
    assert len(called) > 300, "the SDK is written in another way now: read it anew"
    missing = called - unnamed(LISTED)
    assert not missing, "add these to openai_operations.txt, and decide"


def test_a_new_operation_of_the_sdk_is_found() -> None:
    source = """
    def create(self):
        return self._post("/telepathy?beta=true", body={})

    async def list(self, id):
        return self._get_api_list(
            path_template("/telepathy/{id}/thoughts", id=id), method="post"
        )

    def _prepare_url(self):
        return path.rstrip(b"/") + b"/telepathy/stream"
"""
    assert list(called_by(source)) == [
        ("POST", "/telepathy"),
        ("POST", "/telepathy/{id}/thoughts"),
        ("GET", "/telepathy/stream"),
    ]


def test_the_list_is_in_order() -> None:
    assert sorted(set(LISTED), key=lambda operation: operation[::-1]) == LISTED


def documented(columns: int) -> list[list[str]]:
    """The rows of the document's table of so many columns, without its head."""
    rows = [line.strip("| ").split(" | ") for line in DOCUMENT.splitlines() if line[:1] == "|"]
    return [row for row in rows if len(row) == columns and "`" in row[columns - 2]]


def test_the_document_says_what_is_open_and_what_is_refused_and_why() -> None:
    opened = {row[0].strip("`").replace(" /v1", " "): row[1] for row in documented(2)}
    assert opened == {f"{method} {path}": charge for (method, path), charge in OPEN.items()}
    told = [
        (pattern, reason)
        for _, patterns, reason in documented(3)
        for pattern in re.findall(r"`([^`]+)`", patterns)
    ]
    assert told == [(refusal.pattern, refusal.reason) for refusal in REFUSALS]


def test_the_document_has_the_date_and_the_size_of_the_list() -> None:
    made = re.search(r"^# Made on (\d{4}-\d\d-\d\d)", LIST, re.MULTILINE)
    assert made is not None
    assert f"{len(LISTED)} operations that OpenAI had on {made.group(1)}" in DOCUMENT
