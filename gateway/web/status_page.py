"""`/quota/`: the status page, and the script by which applications show the same in their own.

Files of the package, read once, each with the headers that keep a page with a key in it shut:
nothing from another host, nothing inline, no form that is sent, no frame but where the operator
says so. They tell nothing about anybody, so they need no key; figures come from `/quota/v1`.
What the figures mean is not known here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from gateway.core.refusal import Case, Refused
from gateway.web.front import Visit
from gateway.web.http_request import HttpRequest
from gateway.web.quota_headers import SERVER
from gateway.web.response import Header, Response, Whole

BEGINNING: Final = "/quota"
FOLDER: Final = Path(__file__).parent / "page"
INDEX: Final = "index.html"
TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors {frames}"
)


class StatusPage:
    """Answers with these files and no others. `frame_origins` may show the page in a frame."""

    def __init__(self, frame_origins: Iterable[str]) -> None:
        policy = _POLICY.format(frames=" ".join(sorted(frame_origins)) or "'none'")
        self._files = {
            f"{BEGINNING}/{'' if path.name == INDEX else path.name}": _File(path, policy)
            for path in FOLDER.iterdir()
            if path.suffix in TYPES
        }

    async def handle(self, request: HttpRequest, visit: Visit) -> Response:
        """A file, or that the client has it already; Refused when there is none."""
        visit.route = "quota_page"
        path = request.raw_path.partition("?")[0]
        if path == BEGINNING:  # as a person types it; relative, for it may lie under another path
            headers: list[Header] = [("Location", "quota/"), SERVER, ("x-request-id", visit.rid)]
            return Whole(308, headers)
        file = self._files.get(path) if request.method in ("GET", "HEAD") else None
        if file is None:
            shown = f"{request.method} {path[:100]}".encode("ascii", "replace").decode()
            raise Refused(
                Case.ROUTE_NOT_AVAILABLE,
                f"{shown} is not available through this gateway. The status page is {BEGINNING}/.",
            )
        return file.answer(request, visit.rid)


class _File:
    """One file in memory. It may be kept, and is asked for by its tag, so that a page never runs
    with a script of another version."""

    def __init__(self, path: Path, policy: str) -> None:
        self._body = path.read_bytes()
        self._tag = f'"{hashlib.sha256(self._body).hexdigest()[:32]}"'
        self._headers: list[Header] = [
            ("Content-Type", TYPES[path.suffix]),
            SERVER,
            ("Cache-Control", "no-cache"),
            ("ETag", self._tag),
            ("Content-Security-Policy", policy),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
        ]

    def answer(self, request: HttpRequest, rid: str) -> Whole:
        headers = [*self._headers, ("x-request-id", rid)]
        if self._is_known(request.headers.getall("If-None-Match", [])):
            return Whole(304, headers)
        return Whole(200, headers, self._body)

    def _is_known(self, fields: Iterable[str]) -> bool:
        """RFC 9110, section 13.1.2: a list of tags, compared weakly, or `*`."""
        tags = {tag.strip().removeprefix("W/") for field in fields for tag in field.split(",")}
        return not tags.isdisjoint((self._tag, "*"))
