"""Requests as bytes, ready to go out (RESP).

hiredis packs in C; by hand in Python it takes twice as long. What the calls of one payer have in
common, the script and its keys, is packed once and kept for those who called last. Nothing here
knows what the arguments mean.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import hiredis

from gateway.adapters.redis_store.calls import Args, Keys
from gateway.adapters.redis_store.scripts import Script

_HEADS_KEPT = 16384  # three or four scripts of some thousand payers, at most 12 MB
_pack: Any = hiredis.pack_command  # typed for one part only


def packed(*parts: str | bytes | int) -> bytes:
    """One request as it goes out."""
    request: bytes = _pack(parts)
    return request


def packed_call(script: Script, keys: Keys, args: Args) -> bytes:
    """A script's request. What a payer's calls have in common is packed once."""
    head, begin = _head(script.sha, keys, len(args))
    request: bytes = head + _pack(args)[begin:]
    return request


@lru_cache(_HEADS_KEPT)
def _head(sha: str, keys: Keys, args_count: int) -> tuple[bytes, int]:
    """All before the arguments, and where these begin when they are packed alone."""
    request = packed("EVALSHA", sha, len(keys), *keys)
    count = 3 + len(keys) + args_count
    head = b"*%d\r\n" % count + request[request.index(b"\n") + 1 :]
    return head, len(b"*%d\r\n" % args_count)
