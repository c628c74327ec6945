"""What `redis.url` says where Redis is more than one server.

`redis+cluster://[user:password@]host:port[,host:port...]` names some nodes of a cluster, any of
which knows all others; `rediss+cluster://` speaks TLS to each. `redis+sentinel://[...]/name[/db]`
names Sentinels and what they call the master. Each node, and the master, is then an ordinary server
with the same user, password and parameters. Nothing is connected here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from redis.asyncio.connection import parse_url

_CLUSTER, _SENTINEL = ("redis+cluster", "rediss+cluster"), "redis+sentinel"
_NODE_PORT, _SENTINEL_PORT = 6379, 26379


@dataclass(frozen=True, slots=True)
class _Parts:
    scheme: str
    user: str  # with its @, or nothing
    hosts: tuple[str, ...]  # with or without a port
    path: str
    query: str  # with its ?, or nothing


@dataclass(frozen=True, slots=True)
class SentinelPlace:
    """Where the Sentinels are, how to log in there, and what to ask them for. `options` are those
    of a connection to the master, as redis-py names them."""

    sentinels: tuple[tuple[str, int], ...]
    login: Mapping[str, str]
    service: str
    options: Mapping[str, Any]


def is_cluster(url: str) -> bool:
    """Whether it names nodes of a cluster."""
    return url.partition("://")[0] in _CLUSTER


def is_sentinel(url: str) -> bool:
    """Whether it names Sentinels."""
    return url.partition("://")[0] == _SENTINEL


def node_urls(url: str) -> tuple[str, ...]:
    """An ordinary URL for each node that the URL of a cluster names."""
    hosts = (_address(host, _NODE_PORT) for host in _split(url).hosts)
    return tuple(node_url(url, *address) for address in hosts)


def node_url(url: str, host: str, port: int) -> str:
    """The ordinary URL of one node of that cluster."""
    parts = _split(url)
    scheme = parts.scheme.partition("+")[0]
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{parts.user}{shown}:{port}{parts.query}"


def sentinel_place(url: str) -> SentinelPlace:
    """What the URL of a Sentinel says. Its parameters `sentinel_username` and `sentinel_password`
    are for the Sentinels, user and password before the @ for the server they name."""
    parts = _split(url)
    service, _, database = parts.path.partition("/")
    as_of_one = parse_url(f"redis://{parts.user}sentinel/{database}{parts.query}")
    options: dict[str, Any] = {**as_of_one}
    del options["host"]
    names = ("username", "password")
    given = dict(parse_qsl(parts.query[1:]))
    login = {name: given[f"sentinel_{name}"] for name in names if f"sentinel_{name}" in given}
    for name in names:
        options.pop(f"sentinel_{name}", None)
    addresses = tuple(_address(host, _SENTINEL_PORT) for host in parts.hosts)
    return SentinelPlace(addresses, login, service, options)


def _split(url: str) -> _Parts:
    scheme, _, rest = url.partition("://")
    user, at, place = rest.rpartition("@")
    place, mark, query = place.partition("?")
    hosts, _, path = place.partition("/")
    return _Parts(scheme, user + at, tuple(hosts.split(",")), path, mark + query)


def _address(host: str, port: int) -> tuple[str, int]:
    name, colon, given = host.rpartition(":")
    if not colon or given.endswith("]"):
        return host.strip("[]"), port
    return name.strip("[]"), int(given)
