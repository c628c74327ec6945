"""The model's side of the proxy.

An upstream is asked once: after a byte of the request left, nothing repeats it (promise I13). The
errors say what is known about that, because it decides whether a hold is released quietly or leaves
a row for comparing with the invoice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec


class UpstreamUnreachable(Exception):
    """No connection: the upstream saw nothing of the request."""


class UpstreamBroke(Exception):
    """The connection ended early; the upstream may have done the work."""


class UpstreamCutOff(UpstreamBroke):
    """This gateway ended it, because it has to stop itself."""


class UpstreamSilent(Exception):
    """Nothing came for as long as the configuration allows; it may still be working."""


class UpstreamCall(msgspec.Struct, frozen=True, gc=False):
    """One request: to which upstream by name, which path under its base, on whose behalf.

    `model` is its name there, for upstreams that have it in their paths.
    """

    upstream: str
    model: str
    path: str
    body: bytes
    rid: str
    user_id: str


class UpstreamHead(msgspec.Struct, frozen=True, gc=False):
    """Status and the headers that may be relayed or booked; all others stay behind."""

    status: int
    content_type: str
    retry_after: str | None
    upstream_id: str | None
    relayed: tuple[tuple[str, str], ...]


Take = Callable[[bytes], bool]
"""Takes a piece of a body, at once; False when it wants no more for now. It may raise."""


class UpstreamAnswer(Protocol):
    """An answer whose head has come. UpstreamBroke and UpstreamSilent may come from the body."""

    @property
    def head(self) -> UpstreamHead: ...

    async def read(self) -> bytes:
        """The whole body."""
        ...

    async def pour(self, take: Take) -> bool:
        """Hand each piece of the body to `take` as it arrives, without a turn of the caller in
        between. True: that was all. False: `take` wants no more; pour again for what follows.
        What `take` raises is raised here."""
        ...

    async def close(self) -> None:
        """Give the connection back, or drop it when the body was not read to its end."""
        ...


class Upstream(Protocol):
    """Whoever answers calls: OpenAI, or something that speaks like it."""

    async def send(self, call: UpstreamCall) -> UpstreamAnswer:
        """Send once and wait for the head of the answer."""
        ...
