"""The outside of a proxy worker: its upstreams, and who collects the money where anybody does.

Both hold connections and keys, so they are kept over a reload that changes neither, and closed when
the last call that may use them has ended.
"""

from __future__ import annotations

from typing import Protocol

from gateway.adapters.upstream.opening import open_upstream
from gateway.app.payments import open_provider
from gateway.app.proxy_terms import origins_of
from gateway.config import Settings
from gateway.ports.payments import PaymentProvider
from gateway.ports.upstream import Upstream


class OpenUpstream(Upstream, Protocol):
    """One that holds connections."""

    async def close(self) -> None: ...


class Outside:
    """What calls go out through. Made inside a running loop."""

    def __init__(self, upstream: OpenUpstream, provider: PaymentProvider | None) -> None:
        self.upstream, self.provider = upstream, provider
        self._is_closed = False

    async def cut(self) -> None:
        """End what is under way upstream."""
        await self.upstream.close()

    async def close(self) -> None:
        """End everything; may be called twice."""
        await self.cut()
        if self.provider is not None and not self._is_closed:
            await self.provider.close()
        self._is_closed = True


def open_outside(settings: Settings) -> Outside:
    """As the settings have it; UnfitProxy."""
    return Outside(open_upstream(origins_of(settings)), open_provider(settings))


def is_same_outside(before: Settings, after: Settings) -> bool:
    """Whether nothing changes for calls that go out."""
    same_upstreams = origins_of(before) == origins_of(after)
    return same_upstreams and before.stripe == after.stripe
