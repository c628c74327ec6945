"""How many connections a port has, in all and from one address, and whether one more may come.

Each costs memory and a descriptor, whoever opened it and whatever it asks; so both numbers are
bounded by the configuration. What is said to one that may not come is not known here.
"""

from __future__ import annotations

import logging
from collections import Counter

_log = logging.getLogger("gateway.http")


class Crowd:
    """Counts who came in and has not left. `per_peer_max` None: an address may have them all."""

    def __init__(self, connections_max: int, per_peer_max: int | None) -> None:
        self._connections_max = connections_max
        self._per_peer_max = connections_max if per_peer_max is None else per_peer_max
        self._of_peer: Counter[str] = Counter()
        self._all = 0
        self._is_said = False

    def enter(self, peer: str) -> bool:
        """True: it counts until it leaves. False: it is one too many."""
        if self._all >= self._connections_max or self._of_peer[peer] >= self._per_peer_max:
            if not self._is_said:  # once, until there is room again: each line costs time too
                self._is_said = True
                _log.warning("too many connections: %d, %s has %d", *self._figures(peer))
            return False
        self._all += 1
        self._of_peer[peer] += 1
        return True

    def leave(self, peer: str) -> None:
        """Of one that was let in."""
        self._all -= 1
        self._of_peer[peer] -= 1
        if not self._of_peer[peer]:
            del self._of_peer[peer]
        self._is_said = False

    def _figures(self, peer: str) -> tuple[int, str, int]:
        return self._all, peer, self._of_peer[peer]
