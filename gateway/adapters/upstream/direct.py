"""The Upstream port, spoken by this package itself: HTTP/1.1 over a pool of connections.

A call takes the connection of its origin that was freed last, or opens one. `site` says how many
may wait, and how many may be open. Nothing of the environment is read but what TLS needs
(SSL_CERT_FILE): no proxy, no netrc.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import Any

from gateway.adapters.upstream.answer import Answer
from gateway.adapters.upstream.dialing import verified_tls
from gateway.adapters.upstream.origin import Origin
from gateway.adapters.upstream.site import Site
from gateway.adapters.upstream.wheel import Wheel
from gateway.ports.upstream import UpstreamCall


class DirectUpstream:
    """Fulfils ports.upstream.Upstream for all its origins. Made inside a running loop."""

    def __init__(self, origins: Mapping[str, Origin]) -> None:
        self.wheel = Wheel()
        is_tls = any(origin.base_url.startswith("https:") for origin in origins.values())
        tls = verified_tls() if is_tls else None
        self.sites = {name: Site(name, origin, self.wheel, tls) for name, origin in origins.items()}
        self.wheel.start()

    def send(self, call: UpstreamCall) -> Coroutine[Any, Any, Answer]:
        """See the port."""
        return self.sites[call.upstream].send(call)

    async def close(self) -> None:
        """Close all connections, those in use too."""
        await self.wheel.stop()
