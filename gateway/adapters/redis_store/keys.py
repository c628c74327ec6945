"""Every name of a key in Redis; no other module and no script makes one.

All keys of a payer share the slot of their shard through the hash tag, so that each script is
legal on Redis Cluster. A payer appears as a digest: raw text never names a key. The key space, with
types and owners, is described in `lua/README.md`.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.core.identity import account_digest, shard_of

SCHEMA_VERSION = 1


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
    of_shard: ShardKeys

    def member(self, rid: str) -> str:
        """How a hold is named in the leases and among the kept endings."""
        return f"{self.name} {rid}"


def shard_keys(shard: int) -> ShardKeys:
    """The keys of one shard."""
    prefix = f"qg:{{{shard:02d}}}:"
    return ShardKeys(prefix + "m", prefix + "l", prefix + "x", prefix + "o")


def account_keys(payer: str, shards: int) -> AccountKeys:
    """The keys of one payer among `shards` shards."""
    return keys_of_name(account_digest(payer), shard_of(payer, shards))


def keys_of_name(name: str, shard: int) -> AccountKeys:
    """The keys of an account known by its digest, as a lease names it."""
    prefix = f"qg:{{{shard:02d}}}:"
    return AccountKeys(name, shard, f"{prefix}a:{name}", f"{prefix}h:{name}", shard_keys(shard))
