"""A port that is ours before anybody listens on it, and that several processes of ours then share.

Linux lets processes of one user listen on one port, each with SO_REUSEPORT, and deals the
connections out among them; so it would let a second gateway join the first in silence. A
reservation is what refuses it. It is bound as a port that nobody shares, and only then opened to
those who do: whoever comes later and reserves, or listens without SO_REUSEPORT, is told that the
address is in use. Nothing is ever accepted here, and who listens is not known.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


class AddressTaken(Exception):
    """The port is in use, or may not be opened; the text names it."""

    def __init__(self, where: str, error: OSError) -> None:
        super().__init__(f"cannot listen on {where}: {error.strerror or error}")


def url_of(host: str, port: int) -> str:
    """Where a server can be reached, given the host it was told to listen on."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def reserved(host: str, port: int) -> Iterator[int]:
    """Hold the port for as long as the block lasts: its number, also when 0 was asked for.

    AddressTaken when somebody listens there or has reserved it.
    """
    with ExitStack() as stack:
        try:
            for family, kind, protocol, _, address in socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            ):
                held = stack.enter_context(socket.socket(family, kind, protocol))
                _bind(held, (address[0], port, *address[2:]))
                port = int(held.getsockname()[1])  # a name of several addresses has one port
        except OSError as error:
            raise AddressTaken(f"{host}:{port}", error) from error
        yield port


def _bind(held: socket.socket, address: tuple[str | int, ...]) -> None:
    if held.family == socket.AF_INET6:
        held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    # While we bind: connections that have just ended there do not count, listeners do.
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(address)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
