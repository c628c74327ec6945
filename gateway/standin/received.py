"""What arrived: the newest request, and how many requests and bytes came to each path.

Counted at arrival, before anything is judged or even read to its end, and for unknown paths too:
so a test can prove that nothing got here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web

from gateway.standin.calls import decoded

# Paths are the caller's choice; those beyond this many are counted together.
PATHS_MAX = 1_000
OTHER_PATHS = "other"


class Arrivals(msgspec.Struct):
    """Requests to one path, and the bytes of those bodies that were read to their end."""

    requests: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Received:
    """Everything that arrived since the last reset, but for requests to the stand-in itself."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._paths: dict[str, Arrivals] = {}
        self._last: _Request | None = None

    async def read(self, request: web.Request) -> bytes:
        """Count this request and read its body."""
        path = f"{request.method} {request.rel_url.raw_path}"
        if path not in self._paths and len(self._paths) >= PATHS_MAX:
            path = OTHER_PATHS
        arrivals = self._paths.setdefault(path, Arrivals())
        arrivals.requests += 1
        body = await request.read()
        arrivals.bytes += len(body)
        headers = {name.lower(): value for name, value in request.headers.items()}
        self._last = _Request(request.method, request.path_qs, headers, body)
        return body

    def paths(self) -> dict[str, Arrivals]:
        """By "METHOD /path"; the living data, for JSON at once."""
        return self._paths

    def last(self) -> dict[str, Any] | None:
        """The newest request that was read to its end, or None."""
        last = self._last
        if last is None:
            return None
        body = decoded(last.body)
        return {
            "method": last.method,
            "path": last.path,
            "headers": last.headers,
            "body": last.body.decode(errors="replace") if body is None else body,
        }
