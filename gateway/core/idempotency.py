"""Repeated calls: what stands under a client's `Idempotency-Key`, and what a repetition gets.

A key belongs to one user and to one request, told by a digest of its route and body. While its
first call runs the key is taken; afterwards it stands for that call's answer, as long as it is
kept. What cost nothing is not remembered. Who remembers, and for how long, is not known here.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import msgspec

from gateway.core.identity import account_digest
from gateway.core.refusal import Case, Refused

HEADER = "Idempotency-Key"
KEY_CHARS_MAX = 255
_IN_PROGRESS_RETRY_S = 2  # most answers take a few seconds

State = Literal["running", "kept", "not_kept"]


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A client's key, and a digest of what was asked under it."""

    text: str
    asked: bytes


class Remembered(msgspec.Struct, frozen=True, omit_defaults=True):
    """What stands under a user's key: the call that came first, and its answer if that is kept.

    `status`, `content_type` and `body` are the answer's in the state "kept", else empty.
    "not_kept": it was answered and charged.
    """

    user_id: str
    key: str
    rid: str
    asked: bytes
    state: State = "running"
    status: int = 0
    content_type: str = ""
    body: bytes = b""


class RememberedError(ValueError):
    """Bytes that no release known here has written."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Remembered)


def encode_remembered(remembered: Remembered) -> bytes:
    """Its bytes; the same whenever it is encoded."""
    return _encoder.encode(remembered)


def decode_remembered(raw: bytes) -> Remembered:
    """The reverse; RememberedError when the bytes are something else."""
    try:
        return _decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RememberedError(f"what is remembered cannot be read: {error}") from None


def answer_name(user_id: str, key: str) -> str:
    """22 characters that name a user's key in the store. A user id holds no line break, so no two
    users share a name, nor does a payer have one."""
    return account_digest(f"{user_id}\n{key}")


def read_key(text: str, route: str, body: bytes) -> IdempotencyKey:
    """The key of a request with this header, to this route, with this body; Refused when it is
    malformed. Only a repetition byte by byte is the same request: SDKs repeat so."""
    if not (0 < len(text) <= KEY_CHARS_MAX and text.isascii() and text.isprintable()):
        raise Refused(
            Case.INVALID_VALUE,
            f"Invalid value for '{HEADER}': expected one header of 1 to {KEY_CHARS_MAX} printable "
            "ASCII characters.",
            param=HEADER,
        )
    digest = hashlib.blake2b(f"{route}\n".encode(), digest_size=16)
    digest.update(body)
    return IdempotencyKey(text, digest.digest())


def refusal_of(first: Remembered, asked: bytes) -> Refused | None:
    """Why a repetition gets no answer; None when the kept one is its answer."""
    if first.asked != asked:
        return Refused(
            Case.IDEMPOTENCY_KEY_REUSED,
            f"This {HEADER} was used for another request (request id {first.rid}). A changed "
            "request needs a new key.",
            param=HEADER,
        )
    if first.state == "running":
        return Refused(
            Case.IDEMPOTENCY_IN_PROGRESS,
            f"The first request with this {HEADER} (request id {first.rid}) is still being "
            "answered. Repeat it in a moment.",
            param=HEADER,
            retry_after_s=_IN_PROGRESS_RETRY_S,
        )
    if first.state == "not_kept":
        return Refused(
            Case.IDEMPOTENCY_ANSWER_GONE,
            f"The first request with this {HEADER} was answered and charged (request id "
            f"{first.rid}), but its answer was not kept: it was too large, or a stream that did "
            "not come to its end. To ask, and pay, again, send a new key.",
            param=HEADER,
        )
    return None
