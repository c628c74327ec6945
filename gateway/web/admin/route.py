"""One route of the admin API: what it takes, what it answers, and who may ask for it.

A table of these is all there is: the server answers by it and the OpenAPI description is made from
it, so the two cannot drift apart. Unknown fields are refused wherever something is read.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeAlias

import msgspec
from aiohttp import web
from msgspec import Meta

from gateway.core.identity import USER_ID_PATTERN
from gateway.core.operators import SCOPES, Operator, Scope
from gateway.flow.once import Intent, Once, Settle
from gateway.web.admin.problem import Problem, invalid, not_found

BODY_BYTES_MAX = 2**20
PAGE_ROWS_MAX = 200
_SHOWN_CHARS = 140
_BODY_S = 30.0
_NAMES = re.compile(r"\{(\w+)\}")
_ONCE_KEY = re.compile(r"[!-~]{1,255}")
_UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
# What may stand in a path: other than this names nothing that there could be.
PATH_PATTERNS = {
    "user_id": USER_ID_PATTERN.pattern,
    "team_id": USER_ID_PATTERN.pattern,
    "key_id": _UUID,
    "token_id": _UUID,
}

Rows: TypeAlias = Annotated[int, Meta(ge=1, le=PAGE_ROWS_MAX, description="rows a page")]
Cursor: TypeAlias = Annotated[str, Meta(max_length=500, description="`next_cursor` of a page")]
BookStruct: TypeAlias = Callable[[str, Intent], Awaitable[msgspec.Struct]]


class Asks(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that is read from a request begins here: what is not named is refused."""


class PageAsked(Asks, frozen=True, kw_only=True):
    """A page of a list."""

    limit: Rows = 50
    cursor: Cursor | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was let through and read. `query` and `body` are of the route's types."""

    operator: Operator
    path: Mapping[str, str]
    query: Any
    body: Any
    once: Once
    once_key: str = ""
    digest: bytes = b""

    async def booked(self, settle: Settle, book: BookStruct) -> bytes:
        """The answer of a route that makes money: made once for the request's key."""

        async def encoded(event_id: str, intent: Intent) -> bytes:
            return msgspec.json.encode(await book(event_id, intent))

        asked_by = self.operator.token_id, self.once_key
        return await self.once.answer(asked_by, self.digest, settle, encoded)


Handle: TypeAlias = Callable[[Asked], Awaitable["msgspec.Struct | bytes"]]


@dataclass(frozen=True, slots=True)
class Takes:
    """The types of a query and of a body; None: there is none. `once`: an Idempotency-Key must
    come with it."""

    query: type[Asks] | None = None
    body: type[msgspec.Struct] | None = None
    once: bool = False


@dataclass(frozen=True, slots=True)
class Gives:
    """The type of a good answer, with its status."""

    body: type[msgspec.Struct]
    status: int = 200


@dataclass(frozen=True, slots=True)
class Route:
    """`METHOD /path`; `needs` are the scopes that a token must have, with spaces between them;
    `says` is its line in the description."""

    at: str
    needs: str
    says: str
    gives: Gives
    handle: Handle = field(compare=False)
    takes: Takes = field(default_factory=Takes)

    @property
    def method(self) -> str:
        return self.at.partition(" ")[0]

    @property
    def path(self) -> str:
        return self.at.partition(" ")[2]

    @property
    def scopes(self) -> list[Scope]:
        """The scopes it needs."""
        words = self.needs.split()
        return [scope for scope in SCOPES if scope in words]

    @property
    def names(self) -> list[str]:
        """The names in its path."""
        return _NAMES.findall(self.path)


async def read(route: Route, request: web.Request, operator: Operator, once: Once) -> Asked:
    """What a request asks of a route. Problem when it is not what the route takes."""
    for name, value in request.match_info.items():
        if not re.fullmatch(PATH_PATTERNS[name], value):
            raise not_found(f"there is no {name.removesuffix('_id')} '{value[:_SHOWN_CHARS]}'")
    raw = await _whole_body(request)
    query, body = _query(route, request), _body(route, raw)
    path = dict(request.match_info)
    if not route.takes.once:
        return Asked(operator, path, query, body, once)
    given = request.headers.getall("Idempotency-Key", [])
    if len(given) != 1 or not _ONCE_KEY.fullmatch(given[0]):
        raise Problem(
            400,
            "idempotency_key_required",
            "this books something: send an Idempotency-Key of your own (1 to 255 printable ASCII "
            "characters), and the same one when you repeat the request",
            param="Idempotency-Key",
        )
    content = msgspec.json.encode(body, order="sorted")
    digest = hashlib.sha256(b"\n".join((request.method.encode(), request.path.encode(), content)))
    return Asked(operator, path, query, body, once, given[0], digest.digest())


async def _whole_body(request: web.Request) -> bytes:
    """The body. Problem when it does not come in time, or is not what its head says."""
    try:
        async with asyncio.timeout(_BODY_S):
            return await request.read()
    except TimeoutError as error:
        message = f"the body did not arrive within {_BODY_S:g} s: send it again"
        raise Problem(408, "request_timeout", message) from error
    except (web.RequestPayloadError, ConnectionError) as error:
        message = "the body cannot be read as its headers say: send it as it is"
        raise Problem(400, "invalid_http", message) from error


def _query(route: Route, request: web.Request) -> Any:
    given = dict(request.query)
    if len(given) != len(request.query):
        raise invalid("a parameter of the query stands there twice: send it once")
    kind = route.takes.query or Asks
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise _misfit("the query", error) from error


def _body(route: Route, raw: bytes) -> Any:
    kind = route.takes.body
    if kind is None:
        if raw:
            raise invalid("this route takes no body: send none")
        return None
    try:
        return msgspec.json.decode(raw.decode(), type=kind)
    except msgspec.ValidationError as error:
        raise _misfit("the body", error) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        message = f"the body is not JSON in UTF-8 ({error}): send an object"
        raise Problem(400, "invalid_json", message) from error


def _misfit(where: str, error: msgspec.ValidationError) -> Problem:
    """msgspec says what it expected and where: `… - at `$.name``."""
    message, _, place = str(error).partition(" - at `$.")
    place = place.rstrip("`")
    return invalid(f"{where}{place and f', {place}'}: {message}", place or None)
