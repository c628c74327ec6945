"""Requests as bytes, ready to go out (RESP).

hiredis packs in C; by hand in Python it takes twice as long. What the calls of one payer have in
common, the script and its keys, is packed once and kept for those who called last. Nothing here
knows what the arguments mean.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import hiredis

from gateway.adapters.redis_store.calls import Keys

_HEADS_KEPT = 16384  # three or four scripts of some thousand payers, at most 12 MB
pack: Any = hiredis.pack_command  # typed for one part only


def packed(*parts: str | bytes | int) -> bytes:
    """One request as it goes out."""
    request: bytes = pack(parts)
    return request


@lru_cache(_HEADS_KEPT)
def head_of(sha: str, keys: Keys, args_count: int) -> tuple[bytes, int]:
    """A script's request up to its arguments, and where these begin when they are packed alone.
    It is what a payer's calls have in common, packed once."""
    request = packed("EVALSHA", sha, len(keys), *keys)
    count = 3 + len(keys) + args_count
    head = b"*%d\r\n" % count + request[request.index(b"\n") + 1 :]
    return head, len(b"*%d\r\n" % args_count)
