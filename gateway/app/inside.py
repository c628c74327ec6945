"""Asking a process of this gateway on its inside socket: how it is, or to take a configuration.

Only this user can open the sockets. A process that does not answer is no error here: who asks says
what that means.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import aiohttp

from gateway.adapters.embedded import socket_dir
from gateway.config import Settings


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and within what time it must be answered."""

    path: str
    within_s: float
    method: str = "GET"
    text: str | None = None


def inside_socket(settings: Settings, process: str) -> Path:
    """The unix socket on which a process answers."""
    return socket_dir(settings.state_dir) / f"{process}.sock"


async def ask_inside(settings: Settings, process: str, question: Question) -> tuple[int, str]:
    """Status and text; status 0, and why, when there was no answer."""
    connector = aiohttp.UnixConnector(str(inside_socket(settings, process)))
    timeout = aiohttp.ClientTimeout(total=question.within_s)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.request(
                question.method, f"http://{process}{question.path}", data=question.text
            ) as response,
        ):
            return response.status, await response.text()
    except TimeoutError:
        return 0, f"it did not answer within {question.within_s:g} s"
    except (aiohttp.ClientError, OSError):
        return 0, "it does not run, or not yet"
