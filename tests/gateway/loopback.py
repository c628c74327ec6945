"""Plain HTTP to a server on this machine, byte for byte where a test needs it."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

_WAIT_S = 30.0


@dataclass(frozen=True)
class Reply:
    """An answer read to its end; the names of headers in small letters."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @cached_property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        """The error object, which must be there."""
        return self.json["error"]

    @property
    def code(self) -> tuple[int, str]:
        """Status and code of an error."""
        return self.status, self.error["code"]


def ask(
    url: str,
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """One request on a connection of its own."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=_WAIT_S)
    try:
        target = parts._replace(scheme="", netloc="").geturl()
        connection.request(method, target, body, dict(headers or {}))
        return _read(connection.getresponse())
    finally:
        connection.close()


def send_raw(url: str, *pieces: bytes) -> Reply:
    """These bytes and no others; pieces that the server does not want any more are left out."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    with socket.create_connection((parts.hostname, parts.port or 80), _WAIT_S) as connection:
        for piece in pieces:
            try:
                connection.sendall(piece)
            except (BrokenPipeError, ConnectionResetError):
                break
        response = http.client.HTTPResponse(connection)
        try:
            response.begin()
            return _read(response)
        finally:
            response.close()


def _read(response: http.client.HTTPResponse) -> Reply:
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Reply(response.status, headers, response.read())
