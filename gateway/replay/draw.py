"""Who sends each row of a trace, and how: drawn by chance, the same for the same seed.

A trace has no users, so they are drawn from a Zipf distribution: user 1 is the busiest. Only
`Random.random()` is used, whose sequence Python promises to keep from version to version.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from typing import Final

ZIPF_EXPONENT: Final = 1.0
"""User k sends in proportion to 1/k, Zipf's law in its plain form. Of 60 users the busiest six
then send half of everything: skewed as users are, and yet the quietest still sends dozens of 19,366
requests, so every user's figures are put to the test."""

_STREAM_SHARE = 0.5  # of all requests
_ASKS_USAGE_SHARE = 0.5  # of the streams: applications do both, and the gateway treats them apart


def deal_tiers(tiers: Sequence[str], users: int, seed: int) -> list[str]:
    """The tier of each user, the busiest first.

    Tiers are dealt like cards: every hand of as many users as there are tiers gets each tier once,
    in an order that chance decides. So each tier has busy users and quiet ones.
    """
    chance = Random(f"tiers {seed}")
    dealt: list[str] = []
    while len(dealt) < users:
        dealt += sorted(tiers, key=lambda _: chance.random())
    return dealt[:users]


@dataclass(frozen=True, slots=True)
class Drawn:
    """How one row is sent. `user` counts from 0; `asks_usage` is for streams only."""

    user: int
    stream: bool
    asks_usage: bool


class Draw:
    """Draws for row after row. Each row takes the same number of draws, whatever they say."""

    def __init__(self, users: int, seed: int) -> None:
        self._chance = Random(f"rows {seed}")
        self._below = list(accumulate(rank**-ZIPF_EXPONENT for rank in range(1, users + 1)))

    def next(self) -> Drawn:
        """How the next row is sent."""
        user, stream, asks_usage = (self._chance.random() for _ in range(3))
        is_stream = stream < _STREAM_SHARE
        return Drawn(
            user=bisect(self._below, user * self._below[-1], hi=len(self._below) - 1),
            stream=is_stream,
            asks_usage=is_stream and asks_usage < _ASKS_USAGE_SHARE,
        )
