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
    request = packed(*args) if args else b"*0\r\n"
    return _head(script.sha, tuple(keys), len(args)) + request[request.index(b"\n") + 1 :]


@lru_cache(_HEADS_KEPT)
def _head(sha: str, keys: tuple[str, ...], args_count: int) -> bytes:
    request = packed("EVALSHA", sha, len(keys), *keys)
    count = 3 + len(keys) + args_count
    return b"*%d\r\n" % count + request[request.index(b"\n") + 1 :]
