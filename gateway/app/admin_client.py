"""The admin API as a command reaches it: a gateway far away, the one beside it, or its own.

Beside a running gateway of the same state directory it goes over a socket that nobody else may
open. Where none runs, the same application answers on a socket of the command's own, over the
stores. So there is one way to change things, and every change is audited alike. Imports little: a
command beside a gateway needs no store.
"""

from __future__ import annotations

import asyncio
import getpass
import http.client
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from gateway.app.secrets_of_state import admin_socket, admin_token_of
from gateway.config import Settings

_ANSWER_S = 120.0
_BASE = "/admin/v1"
Connect = Callable[[], http.client.HTTPConnection]


class AdminRefused(Exception):
    """The admin API has refused; the text is its own. `status` and `code` are for programs."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class AdminAway(Exception):
    """The admin API cannot be reached, or what answers is not it."""


@dataclass(frozen=True, slots=True)
class Far:
    """A gateway by its address, and the token for it."""

    url: str
    token: str


class AdminClient:
    """Asks the admin API, each time on a new connection, and follows it nowhere else. AdminRefused:
    it says no; AdminAway: it says nothing."""

    def __init__(self, connect: Connect, where: str, token: str) -> None:
        self._connect = connect
        self._where = where
        self._headers = {"Authorization": f"Bearer {token}", "X-Quota-Login": getpass.getuser()}

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        query: Mapping[str, str] | None = None,
        once_key: str | None = None,
    ) -> dict[str, Any]:
        """The answer to a request; `path` is what follows /admin/v1."""
        target = f"{_BASE}{path}" + (f"?{urlencode(query)}" if query else "")
        raw = None if body is None else msgspec.json.encode(body)
        headers = self._headers | ({} if once_key is None else {"Idempotency-Key": once_key})

        def exchange() -> tuple[int, bytes]:
            with closing(self._connect()) as connection:
                connection.request(method, target, raw, headers)
                response = connection.getresponse()
                return response.status, response.read()

        try:
            # In a thread: where no gateway runs, it is this process that answers.
            return self._answer(*await asyncio.to_thread(exchange))
        except (OSError, http.client.HTTPException) as error:
            raise AdminAway(f"{self._where} cannot be reached: {error}") from error

    async def pages(self, path: str, query: Mapping[str, str]) -> AsyncIterator[dict[str, Any]]:
        """The rows of a list, to its end."""
        asked = dict(query) | {"limit": "200"}
        while True:
            page = await self.ask("GET", path, query=asked)
            for row in page["data"]:
                yield row
            if page.get("next_cursor") is None:
                return
            asked["cursor"] = page["next_cursor"]

    def _answer(self, status: int, raw: bytes) -> dict[str, Any]:
        try:
            answer = msgspec.json.decode(raw, type=dict[str, Any])
            if status < 300:
                return answer
            told = answer["error"]
            raise AdminRefused(status, told["code"], told["message"])
        except (msgspec.MsgspecError, KeyError, TypeError) as error:
            text = f"{self._where} does not answer as the admin API does (HTTP {status})"
            raise AdminAway(text) from error


def part(text: str) -> str:
    """A text as one part of a path."""
    return quote(text, safe="")


@asynccontextmanager
async def far_client(far: Far) -> AsyncIterator[AdminClient]:
    """The gateway at an address."""
    try:
        parts = urlsplit(far.url)
        kind = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}.get(
            parts.scheme
        )
        host, port = parts.hostname, parts.port
    except ValueError:
        kind = host = port = None
    if kind is None or host is None:
        raise AdminAway(f"{far.url!r} is no address: expected one like http://127.0.0.1:8792")
    connection, address = kind, host
    yield AdminClient(
        lambda: connection(address, port, timeout=_ANSWER_S), far.url.rstrip("/"), far.token
    )


@asynccontextmanager
async def near_client(settings: Settings) -> AsyncIterator[AdminClient]:
    """The gateway of this state directory, or, while none runs, its stores."""
    if _answers(admin_socket(settings)):
        yield _client_on(admin_socket(settings), settings)
        return
    from gateway.app.admin_desk import admin_of, nothing_runs
    from gateway.app.command_stores import opened_for_command
    from gateway.web.servers import listen_unix

    async with opened_for_command(settings, "cli") as stores:
        ours = admin_socket(settings).with_name(f"admin-{os.getpid()}.sock")
        listener = await listen_unix(admin_of(settings, stores, nothing_runs), ours)
        try:
            yield _client_on(ours, settings)
        finally:
            await listener.close()
            ours.unlink(missing_ok=True)


def _client_on(path: Path, settings: Settings) -> AdminClient:
    return AdminClient(lambda: _UnixConnection(path), "the gateway", admin_token_of(settings))


def _answers(path: Path) -> bool:
    """Whether somebody listens; a gateway that was killed leaves its socket behind."""
    try:
        with closing(_UnixConnection(path)) as connection:
            connection.connect()
    except OSError:
        return False
    return True


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("gateway", timeout=_ANSWER_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_ANSWER_S)
        self.sock.connect(str(self._path))
