"""A Redis that keeps its connections and answers nothing: its process, stopped."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import redis


def redis_pid(url: str) -> int:
    """The server's process, as it says itself."""
    with redis.Redis.from_url(url) as client:
        info: Any = client.info("server")
    return int(info["process_id"])


@contextmanager
def frozen(url: str) -> Iterator[Callable[[], None]]:
    """Silent in the block, until it is told to go on or the block ends."""
    pid = redis_pid(url)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield lambda: os.kill(pid, signal.SIGCONT)
    finally:
        os.kill(pid, signal.SIGCONT)
