"""How values travel: the texts that scripts take as arguments, and what they answer of packs.

An argument that is not given is empty. Many numbers are one argument, with a space between them: a
script takes them apart faster than Redis hands them over. Lua knows no larger whole number than
2^53, which is checked there.
"""

from __future__ import annotations

from functools import lru_cache

from gateway.core.quota.entitle import Pack
from gateway.core.quota.reserve import Limits

SERVER_CLOCK = ""  # the scripts' last argument: no clock of ours
NONE = ""  # an argument that is not given
# Whole numbers as one argument, in half the time of joining.
SEVEN, TWELVE = (" ".join(["%d"] * count) for count in (7, 12))


def given(value: int | None) -> int | str:
    """The number, or that there is none."""
    return NONE if value is None else value


@lru_cache(1024)
def beside_the_month(limits: Limits) -> str:
    """All limits of a call but the month's; kept, because a tier's calls have the same."""
    return joined(
        limits.member_tokens, limits.tier_period_start_ms, limits.nano_gbp, limits.concurrent,
        limits.requests_a_minute, limits.tokens_a_minute, 1 if limits.shadow else None,
    )  # fmt: skip


@lru_cache(1024)
def joined(*values: int | None) -> str:
    """Numbers that come again and again, as one argument."""
    return " ".join([str(given(value)) for value in values])


def told(packs: tuple[Pack, ...]) -> str:
    """Packs for a script."""
    return ",".join(f"{pack.pack_id} {pack.tokens} {pack.ends_ms}" for pack in packs)


def packs_of(text: str) -> tuple[Pack, ...]:
    """What a snapshot says of the packs."""
    items = (item.split(" ") for item in text.split(",") if item)
    return tuple(Pack(pack_id, int(left), int(ends_ms)) for pack_id, left, ends_ms in items)
