"""Who a call belongs to: users, payers, API keys and their digests.

A key is 256 random bits, shown once; the stores know only its HMAC-SHA-256 digest under the
server's pepper, so a dump of every store holds no usable key. Randomness comes from the caller.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, field
from functools import lru_cache

from gateway.core.overrides import NO_OVERRIDES, Overrides
from gateway.core.period import Calendar

KEY_PREFIX = "qg_"
KEY_RANDOM_BYTES = 32
_BLOCK_BYTES = 64  # of SHA-256
_PAYERS_KEPT = 20_000  # about 3 MB
_EMAIL_CHARS_MAX = 320  # RFC 3696, erratum 1690: 64 before the @, 255 after it
USER_ID_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+-]{0,127}")


@dataclass(frozen=True, slots=True)
class Identity:
    """One user as the ledger knows it at revision `rev`.

    `payer` is whose account is charged: the user itself, or its team. Tier, revision, calendar and
    `limits` are the payer's; `member_rev` and `member_limits` are the user's own, in a team only.
    A revision rises with every change of entitlement; a reserve made under another one is answered
    STALE. `tier_set_ms`: when the tier was last decided here; claims that are older do not count.
    `is_service`: read by a service key, which speaks for other users, at `/quota/v1` only.
    """

    user_id: str
    payer: str
    tier: str
    rev: int
    calendar: Calendar
    member_rev: int | None = None
    email: str | None = None
    is_team: bool = False
    is_blocked: bool = False
    limits: Overrides = NO_OVERRIDES
    member_limits: Overrides = NO_OVERRIDES
    tier_set_ms: int = field(default=0, compare=False)
    is_service: bool = False

    @property
    def member(self) -> str | None:
        """The user as a member of its team; None where the user pays for themselves."""
        return member_of(self.payer, self.user_id)


def valid_user_id(user_id: str) -> bool:
    """True for 1 to 128 letters, digits and `._:@+-`, opening with a letter or digit.

    Control characters, spaces and braces stay out because ids travel into headers, logs and mails.
    """
    return USER_ID_PATTERN.fullmatch(user_id) is not None


def valid_email(email: str) -> bool:
    """Whether this can be written to, as far as its look tells: printable, one @ with something on
    each side. It travels into headers of mails, so no space or control character."""
    name, at, domain = email.rpartition("@")
    return bool(
        at and name and domain and len(email) <= _EMAIL_CHARS_MAX
        and email.isprintable() and " " not in email and "," not in email
    )  # fmt: skip


def format_key(random_bytes: bytes) -> str:
    """The API key made of 32 random bytes, as the user sees it."""
    if len(random_bytes) != KEY_RANDOM_BYTES:
        raise ValueError(f"a key is made of {KEY_RANDOM_BYTES} bytes, not {len(random_bytes)}")
    return KEY_PREFIX + base64.urlsafe_b64encode(random_bytes).rstrip(b"=").decode()


def key_digest(key: str, pepper: bytes) -> bytes:
    """The 32 bytes by which a key is found in the stores; useless without the pepper."""
    begun_inner, begun_outer = _keyed(pepper)
    inner, outer = begun_inner.copy(), begun_outer.copy()
    inner.update(key.encode())
    outer.update(inner.digest())
    return outer.digest()


@lru_cache(maxsize=4)
def _keyed(pepper: bytes) -> tuple[hashlib._Hash, hashlib._Hash]:
    """What of a digest does not depend on the key: both hashes of an HMAC (RFC 2104), after the
    pepper. The `hmac` module takes half as long again to do the rest."""
    block = pepper if len(pepper) <= _BLOCK_BYTES else hashlib.sha256(pepper).digest()
    block = block.ljust(_BLOCK_BYTES, b"\0")
    inner, outer = (bytes([byte ^ pad for byte in block]) for pad in (0x36, 0x5C))
    return hashlib.sha256(inner), hashlib.sha256(outer)


def member_of(payer: str, user_id: str) -> str | None:
    """The user as a member of a team; None where the user pays for themselves."""
    return None if user_id == payer else user_id


def account_digest(payer: str) -> str:
    """22 characters that name a payer in Redis: never the raw text, always the same length."""
    digest = hashlib.blake2b(payer.encode(), digest_size=16).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def member_digest(payer: str, member: str) -> str:
    """The same for one member of a team. A user id holds no slash, so no payer is named so."""
    return account_digest(f"{payer}/{member}")


@lru_cache(_PAYERS_KEPT)
def shard_of(payer: str, shards: int) -> int:
    """The shard (0 … shards-1) of a payer: a stable hash, the same in every process and release."""
    digest = hashlib.blake2b(payer.encode(), digest_size=8, person=b"qg-shard").digest()
    return int.from_bytes(digest, "big") % shards
