"""Everything that a comparison needs, started: upstreams, the gateway, and pass-throughs beside it.

What is measured has a core of its own, and only one of them is loaded at a time; all else, this
process with the load included, shares the other core. The pass-through runs on the same event loop
as the gateway, whichever that is.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bench.lanes import UPSTREAM_KEY, Callers, Lane, models_of
from bench.nginx import Nginx
from bench.processes import BenchError, Process, cores, free_port, kept_on, loop_of, pin, python
from bench.requests import Shape, requests
from bench.stack import GatewayStack

USERS = 256


@dataclass(frozen=True, slots=True)
class Subject:
    """Something that answers requests. `pids`: whose time counts, none for a direct call.

    `beside`: what else works for it. `requests`: what can be sent to it.
    """

    name: str
    port: int
    pids: tuple[int, ...] = ()
    beside: tuple[int, ...] = ()


class Rig:
    """The running whole. Made by `comparison` or `whole_comparison`."""

    def __init__(self, place: Path, lanes: Sequence[Lane], env: Mapping[str, str]) -> None:
        self.place, self.env = place, env
        self._lanes = {lane.name: lane for lane in lanes}
        self._models = models_of(lanes)
        self._bares: dict[str, Subject] = {}
        self._keys: dict[Callers, list[str]] = {}
        self._stack = ExitStack()
        self._core, other = cores()
        self._stack.enter_context(kept_on(other))
        self.answered = self.cut_max = 0
        self.bare_loop = ""  # of the pass-through; empty: that of the gateway
        self._gateway = GatewayStack(place, lanes, env)

    def start(self) -> None:
        """Start the gateway. `stop` must follow, also when this fails."""
        self._stack.callback(self._gateway.stop)
        self._gateway.start()
        self._gateway.pin_workers(self._core)
        self.loop = loop_of(self._gateway.workers()[0])

    def stop(self) -> None:
        """End all that was started here."""
        self._stack.close()

    def gateway(self) -> Subject:
        """The gateway, for any lane."""
        stack = self._gateway
        return Subject("gateway", stack.port, stack.workers(), stack.beside())

    def bare(self, lane: str) -> Subject:
        """A pass-through to this lane's upstream, started at the first call."""
        if lane not in self._bares:
            port, name, loop = free_port(), f"bare-{lane}", self.bare_loop or self.loop
            argv = python("bench.bare", str(port), self.url(lane), UPSTREAM_KEY, loop)
            process = Process(name, argv, self.place, self.env)
            self._stack.callback(process.stop)
            process.ready()
            self.on_core(process.pid)
            self._bares[lane] = Subject("bare", port, (process.pid,))
        return self._bares[lane]

    def url(self, lane: str) -> str:
        """Where the upstream of this lane is."""
        return self._lanes[lane].url

    def on_core(self, pid: int) -> None:
        """Let this process run where the gateway and the pass-throughs do."""
        pin(pid, self._core)

    def direct(self, lane: str) -> Subject:
        """The upstream itself."""
        return Subject("direct", urlsplit(self.url(lane)).port or 0)

    def requests(self, lane: str, body_bytes: int, stream: bool = False) -> list[bytes]:
        """Requests of all users that this lane is for."""
        callers = self._lanes[lane].callers
        if callers not in self._keys:
            self._keys[callers] = self._gateway.new_keys(USERS, callers)
        shape = Shape(body_bytes, stream, self._models[lane])
        return requests(shape, self._keys[callers])

    def check_books(self) -> str:
        """What can be said of them; BenchError unless every answer is booked and all agree."""
        booked = self._gateway.calls_booked(self.answered)
        agrees, cut = self._gateway.agrees(), booked - self.answered
        if not agrees or not 0 <= cut <= self.cut_max:
            raise BenchError(
                f"the books do not agree: {self.answered} answers, {booked} calls in the ledger; "
                f"ledger verify: {'clean' if agrees else 'they differ'}"
            )
        broken_off = f", {cut} of them broken off by wrk at its end" if cut else ""
        counted = f"{self.answered:,} answers, {booked:,} calls in the ledger{broken_off}"
        return f"`ledger verify` was clean: {counted}"


@contextmanager
def comparison() -> Iterator[Rig]:
    """With an upstream of our own for the lanes `plain` and `stream`; needs no other program."""
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qg-bench-")))
        url, _ = started_upstream(stack, place)
        rig = Rig(place, (Lane("plain", url), Lane("stream", url)), {})
        stack.callback(rig.stop)
        rig.start()
        yield rig


@contextmanager
def whole_comparison() -> Iterator[Rig]:
    """With nginx for the lanes `plain`, `tls` and `near`; our own upstream for `stream`."""
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qg-bench-")))
        with kept_on(cores()[1]):
            nginx = Nginx(place)
        stack.callback(nginx.stop)
        url, _ = started_upstream(stack, place)
        lanes = (
            Lane("plain", nginx.plain),
            Lane("tls", nginx.tls),
            Lane("near", f"{nginx.plain}/near", "near"),
            Lane("stream", url),
        )
        rig = Rig(place, lanes, {"SSL_CERT_FILE": str(nginx.certificate)})
        stack.callback(rig.stop)
        rig.start()
        yield rig


def started_upstream(stack: ExitStack, place: Path, *options: str) -> tuple[str, Process]:
    """Our own upstream on the core of all else, until the stack closes: its URL, the process."""
    port = free_port()
    with kept_on(cores()[1]):
        argv = python("bench.upstream", "--port", str(port), *options)
        process = Process("upstream", argv, place, {})
    stack.callback(process.stop)
    process.ready()
    return f"http://127.0.0.1:{port}", process
