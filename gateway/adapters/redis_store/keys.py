"""Every name of a key in Redis; no other module and no script makes one.

All keys of a payer share the slot of their shard through the hash tag, so that each script is
legal on Redis Cluster. A payer appears as a digest: raw text never names a key. The key space, with
types and owners, is described in `lua/README.md`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from gateway.core.idempotency import answer_name
from gateway.core.identity import account_digest, member_digest, shard_of

SCHEMA_VERSION = 3

# Two digests and eight names cost 8 us; some 2 KB for each of the payers who called last.
_PAYERS_KEPT = 8192


@dataclass(frozen=True, slots=True)
class ShardKeys:
    """The keys a shard has once."""

    meta: str
    leases: str
    endings: str
    outbox: str


@dataclass(frozen=True, slots=True)
class AccountKeys:
    """The keys of one payer, with those of its shard."""

    name: str
    shard: int
    account: str
    holds: str
    packs: str
    of_shard: ShardKeys

    def member(self, rid: str) -> str:
        """How a hold is named in the leases and among the kept endings."""
        return f"{self.name} {rid}"


@dataclass(frozen=True, slots=True)
class HoldKeys:
    """What the scripts that make and end a hold take as their keys, each in its order. `name` is
    the account's."""

    name: str
    reserve: tuple[str, ...]
    settle: tuple[str, ...]


def shard_keys(shard: int) -> ShardKeys:
    """The keys of one shard."""
    prefix = f"qg:{{{shard:02d}}}:"
    return ShardKeys(prefix + "m", prefix + "l", prefix + "x", prefix + "o")


@lru_cache(_PAYERS_KEPT)
def account_keys(payer: str, shards: int) -> AccountKeys:
    """The keys of one payer among `shards` shards."""
    return keys_of_name(account_digest(payer), shard_of(payer, shards))


@lru_cache(_PAYERS_KEPT)
def member_keys(payer: str, member: str, shards: int) -> AccountKeys:
    """The keys of one member of a team: an account beside the team's, in the same shard."""
    return keys_of_name(member_digest(payer, member), shard_of(payer, shards))


def keys_of_name(name: str, shard: int) -> AccountKeys:
    """The keys of an account known by its digest, as a lease names it."""
    prefix = f"qg:{{{shard:02d}}}:"
    return AccountKeys(
        name=name,
        shard=shard,
        account=f"{prefix}a:{name}",
        holds=f"{prefix}h:{name}",
        packs=f"{prefix}k:{name}",
        of_shard=shard_keys(shard),
    )


@lru_cache(_PAYERS_KEPT)
def hold_keys(payer: str, tier: str, member: str | None, shards: int) -> HoldKeys:
    """The keys of one payer's calls; `member` is who calls, where the payer is a team."""
    of_member = () if member is None else (member_keys(payer, member, shards).account,)
    return hold_keys_of(account_keys(payer, shards), tier, of_member)


def hold_keys_of(keys: AccountKeys, tier: str, of_member: tuple[str, ...]) -> HoldKeys:
    """The same where the account is known by its digest. `of_member`: the member's account."""
    shard, last = keys.of_shard, (keys.packs, tier_key(tier, keys.shard), *of_member)
    return HoldKeys(
        keys.name,
        (shard.meta, keys.account, keys.holds, shard.leases, *last),
        (shard.meta, keys.account, keys.holds, shard.leases, shard.outbox, shard.endings, *last),
    )


@lru_cache(1024)
def tier_key(tier: str, shard: int) -> str:
    """The sums of one tier in one shard. A tier's name comes from the configuration."""
    return f"qg:{{{shard:02d}}}:t:{tier}"


def answer_key(user_id: str, key: str, shards: int) -> str:
    """What is remembered under a user's idempotency key. In the user's own slot, whoever pays."""
    return f"qg:{{{shard_of(user_id, shards):02d}}}:i:{answer_name(user_id, key)}"


KEYS_BEGIN = "qg:{"


def shard_of_key(key: str) -> int:
    """The shard that any of our keys is in."""
    return int(key[len(KEYS_BEGIN) : key.index("}")])


ACCOUNTS_PATTERN = "qg:{*}:a:*"
_ACCOUNT_KEY = re.compile(r"qg:\{(\d+)\}:a:(.+)")


def account_of_key(key: str) -> tuple[str, int]:
    """Name and shard of the account under `key`; ValueError when it is no account's key."""
    found = _ACCOUNT_KEY.fullmatch(key)
    if found is None:
        raise ValueError(f"{key!r} is not the key of an account")
    return found.group(2), int(found.group(1))
