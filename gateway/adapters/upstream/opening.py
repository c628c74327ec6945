"""Which adapter speaks to which origin.

`direct` does, unless the environment names a proxy for the origin's URL (HTTPS_PROXY, HTTP_PROXY,
ALL_PROXY, with the exceptions of NO_PROXY), which only `session` can go through. It is decided
once, at the start. Of netrc nothing is read, so no entry there can take the place of the key.
"""

from __future__ import annotations

import logging
from collections.abc import Coroutine, Mapping
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from gateway.adapters.upstream.direct import DirectUpstream
from gateway.adapters.upstream.origin import Origin
from gateway.adapters.upstream.session import SessionUpstream
from gateway.ports.upstream import Upstream, UpstreamAnswer, UpstreamCall

_log = logging.getLogger("gateway.upstream")


class UnfitProxy(Exception):
    """The environment names a proxy that cannot be gone through; the text says what to do."""


class Upstreams:
    """Fulfils ports.upstream.Upstream with both adapters. Made inside a running loop."""

    def __init__(self, origins: Mapping[str, Origin], proxies: Mapping[str, str]) -> None:
        behind = {name: origin for name, origin in origins.items() if name in proxies}
        self._direct = DirectUpstream({name: origins[name] for name in origins.keys() - behind})
        self._session = SessionUpstream(behind, proxies) if behind else None
        self._by_name: dict[str, Upstream] = {**self._direct.sites}
        if self._session is not None:
            self._by_name |= dict.fromkeys(behind, self._session)

    def send(self, call: UpstreamCall) -> Coroutine[Any, Any, UpstreamAnswer]:
        """See the port."""
        return self._by_name[call.upstream].send(call)

    async def close(self) -> None:
        """Close all connections; calls on them fail, those of `direct` with UpstreamCutOff."""
        await self._direct.close()
        if self._session is not None:
            await self._session.close()


def open_upstream(origins: Mapping[str, Origin]) -> Upstreams:
    """All origins, each by its adapter. UnfitProxy is raised for one that cannot be used."""
    proxies = proxies_of(origins)
    for name, proxy in proxies.items():
        where = urlsplit(proxy).hostname
        _log.info("upstream %s is reached through the proxy on %s", name, where)
    return Upstreams(origins, proxies)


def proxies_of(origins: Mapping[str, Origin]) -> dict[str, str]:
    """By the names of the origins that are behind one; UnfitProxy."""
    proxies: dict[str, str] = {}
    for name, origin in origins.items():
        proxy = proxy_of(origin.base_url)
        if proxy is None:
            continue
        where = urlsplit(proxy)
        if where.scheme not in ("http", "https") or not where.hostname:
            raise UnfitProxy(
                f"the environment names a proxy for upstream '{name}' whose URL does not begin "
                f"with http:// or https://; name another, or except the host in NO_PROXY"
            )
        proxies[name] = proxy
    return proxies


def proxy_of(url: str) -> str | None:
    """The proxy that the environment names for a URL, or None."""
    parts = urlsplit(url)
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if proxy is None or proxy_bypass(parts.netloc):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"
