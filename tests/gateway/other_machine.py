"""A network namespace that sees this machine as another machine does: through one wire, a veth.

Nothing of it is left after the block, also when the test fails; a name and an address of its own
keep workers apart. It needs the right to make one: root, or sudo without a question.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

# Asks on the other side: (host, port, path) each, answered by status and text, or by the error.
_ASK = """
import http.client, json, sys
answers = []
for host, port, path in json.loads(sys.stdin.read()):
    connection = http.client.HTTPConnection(host, port, timeout=20)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        answers.append([response.status, response.read().decode()])
    except OSError as error:
        answers.append([0, type(error).__name__])
    finally:
        connection.close()
print(json.dumps(answers))
"""


@dataclass(frozen=True)
class OtherMachine:
    """`address` is this machine's, as the other one knows it."""

    address: str
    _inside: tuple[str, ...]

    def ask(self, *places: tuple[str, int, str]) -> list[tuple[int, str]]:
        """Ask from there: (host, port, path). Status 0: the name of the error."""
        done = subprocess.run(
            [*self._inside, sys.executable, "-c", _ASK],
            input=json.dumps(places),
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return [(status, text) for status, text in json.loads(done.stdout)]


def _root(environ: Mapping[str, str]) -> list[str] | None:
    """The words that make a command root's; None when there are none."""
    if os.geteuid() == 0:
        return []
    words = ["sudo", "-n"]
    if shutil.which("sudo", path=environ.get("PATH")) is None:
        return None
    return words if subprocess.run([*words, "true"], capture_output=True).returncode == 0 else None


@contextmanager
def other_machine(missing: Callable[[str], NoReturn]) -> Iterator[OtherMachine]:
    """One for the block."""
    root = _root(os.environ)
    if root is None or shutil.which("ip") is None:
        missing("a network namespace needs root and ip (Debian package iproute2)")
    number = os.getpid() % 2**14
    name, here, there = f"qg-{os.getpid()}", f"qgh{number}", f"qgt{number}"
    # 198.18.0.0/15 is for tests of networks (RFC 2544); a net of four addresses for each process.
    net = f"198.18.{number // 64}"
    ours, theirs = (f"{net}.{number % 64 * 4 + host}" for host in (1, 2))

    def ip(*words: str) -> None:
        subprocess.run([*root, "ip", *words], check=True, capture_output=True, timeout=20)

    try:
        ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        missing(f"no network namespace could be made: {error.stderr.decode().strip()}")
    try:
        ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
        ip("address", "add", f"{ours}/30", "dev", here)
        ip("link", "set", here, "up")
        ip("-netns", name, "address", "add", f"{theirs}/30", "dev", there)
        ip("-netns", name, "link", "set", there, "up")
        yield OtherMachine(ours, (*root, "ip", "netns", "exec", name))
    finally:
        ip("netns", "delete", name)  # and the wire with it
