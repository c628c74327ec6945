"""Keys of an issuer that publishes them: fetched beside the calls, kept while that fails.

A call whose token names a key that is here waits for nothing. One that names another waits for one
look at the issuer, of which there is at most one in half a minute, whoever asks: so neither many
false names nor a slow issuer are felt. What cannot be renewed for a day proves nothing any more.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Collection

from gateway.adapters.tokens.keys import Key, NoKeys, PublicKey, find_key, read_keys
from gateway.ports.clock import Clock
from gateway.ports.tasks import spawn
from gateway.ports.tokens import TokensUnavailable

_PAUSE_S = 30.0  # between two looks for calls, and after a look that failed
_PAUSE_WITHOUT_S = 2.0  # the latter while there is no key at all, so nobody can call
_RENEWED_S = 300.0  # a withdrawn key is noticed within this
_KEPT_S = 86_400.0  # a set that could not be renewed for so long is dropped
_log = logging.getLogger("gateway.tokens")

Fetch = Callable[[str], Awaitable[bytes]]


class KeysNotFetched(Exception):
    """The issuer did not give its keys; the text says why."""


class RemoteKeys:
    """Fulfils keys.Keys. `fetch` gives the bytes at the address, or raises KeysNotFetched."""

    def __init__(self, url: str, algorithms: Collection[str], fetch: Fetch, clock: Clock) -> None:
        self._url = url
        self._algorithms = frozenset(algorithms)
        self._fetch = fetch
        self._clock = clock
        self._keys: frozenset[PublicKey] = frozenset()
        self._next_s = self._fetched_s = -math.inf
        self._looking: asyncio.Task[None] | None = None
        self.withdrawals = 0

    def find(self, kid: str | None, algorithm: str) -> Key | None:
        return find_key(self._keys, kid, algorithm)

    async def renew(self) -> None:
        """Look at the issuer for a call, unless that was done just now; all wait for one look."""
        now_s = self._clock.monotonic_s()
        if self._looking is None and now_s >= self._next_s:
            self._next_s = now_s + _PAUSE_S
            self._begin()
        if self._looking is not None:
            await asyncio.wait({self._looking})
        if not self._keys:
            raise TokensUnavailable(f"there are no keys of {self._url} yet")

    async def renew_forever(self) -> None:
        """Keep the set as the issuer has it, whether anybody calls or not."""
        while True:
            began_s = self._clock.monotonic_s()
            await asyncio.wait({self._looking or self._begin()})
            if self._fetched_s >= began_s:
                await asyncio.sleep(_RENEWED_S)
            else:
                await asyncio.sleep(_PAUSE_S if self._keys else _PAUSE_WITHOUT_S)

    def _begin(self) -> asyncio.Task[None]:
        self._looking = spawn(self._look(), f"fetch {self._url}")
        return self._looking

    async def _look(self) -> None:
        try:
            self._take(read_keys(await self._fetch(self._url), self._algorithms))
            self._fetched_s = self._clock.monotonic_s()
        except (KeysNotFetched, NoKeys) as error:
            _log.warning("the keys of %s were not renewed: %s", self._url, error)
            if self._clock.monotonic_s() - self._fetched_s >= _KEPT_S:
                self._take(frozenset())
        finally:
            self._looking = None

    def _take(self, keys: frozenset[PublicKey]) -> None:
        if self._keys - keys:
            self.withdrawals += 1
            _log.warning("%d keys of %s were withdrawn", len(self._keys - keys), self._url)
        self._keys = keys
