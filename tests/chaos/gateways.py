"""One gateway of the world: its configuration, and its processes, which may be killed or frozen.

It is the product's own `serve` with its own jobs process, told to reach every server through a link
of the bench. Whatever kills it, it is started again until it is ready, as an orchestrator would.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from gateway.adapters.embedded.run_as import die_with_parent
from gateway.adapters.embedded.waiting import comes_true
from gateway.config import Settings, load
from tests.gateway.running_gateway import MODEL, ROOT, merged, processes_of
from tests.gateway.standin_process import UPSTREAM_KEY

LEASE_MS, GRACE_MS, HEARTBEAT_MS = 4000, 500, 500
SMALL, LARGE = "free", "full"
LARGE_TOKENS = 1_000_000_000
# Long enough for a busy machine, and short beside the faults.
DEADLINE_MS = 1000
DRAIN_S = 1
_POLL_S, _AGAIN_S, _END_S = 0.02, 0.3, 30.0


@dataclass(frozen=True, slots=True)
class Servers:
    """Where a gateway finds the others."""

    redis: str
    postgres: str
    upstream: str


def configuration(servers: Servers, state_dir: Path, small_tokens: int) -> dict[str, Any]:
    """The configuration that ships, with these servers and with waits that suit a short run."""
    shipped = yaml.safe_load((ROOT / "config.yaml").read_text())
    ours = {
        "listen": dict.fromkeys(("proxy", "ops", "admin"), "127.0.0.1:0"),
        "state_dir": str(state_dir),
        "redis": {"url": servers.redis, "deadline_ms": DEADLINE_MS},
        "ledger": {"url": servers.postgres},
        "canary": None,  # the auditor knows every call
        "lease": {"ms": LEASE_MS, "grace_ms": GRACE_MS, "heartbeat_ms": HEARTBEAT_MS},
        "client_gone": {"drain_s": DRAIN_S, "drains_max": 4},
        "clients": {"request_s": 10, "unread_s": 10},
        "upstreams": {
            "openai": {
                **shipped["upstreams"]["openai"],
                "base_url": servers.upstream,
                "api_key": UPSTREAM_KEY,
                "user_header": "X-Quota-User",
                "connect_s": 2,
                "idle_s": 3,
            }
        },
        "models": {MODEL: {**shipped["models"][MODEL], "until": None}},
        "plan": {"tiers": {SMALL: {"tokens": small_tokens}, LARGE: {"tokens": LARGE_TOKENS}}},
        "identity": {"keys": {"pepper": "the-pepper-of-the-fault-bench"}},
    }
    return merged(shipped, ours)


class Gateway:
    """`place` has its files; `entry` is what Python runs: the product, as a rule."""

    def __init__(self, number: int, place: Path, config: Any, entry: Sequence[str]) -> None:
        place.mkdir()
        self.number, self.place = number, place
        self._config, self._entry = place / "config.yaml", entry
        self._config.write_text(yaml.safe_dump(config, sort_keys=False))
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0
        self._frozen: set[int] = set()
        self.proxy = ""  # its address while it is ready

    @property
    def settings(self) -> Settings:
        return load(self._config, environment())

    @property
    def spilled(self) -> Sequence[str]:
        """Its files of settlements that Redis has not confirmed, or that nobody can read."""
        return sorted(str(path) for path in (self.place / "state" / "spill").glob("*"))

    async def start(self) -> None:
        """Start it, over and over until it is ready."""
        while True:
            if await self._comes_up():
                return
            await asyncio.sleep(_AGAIN_S)

    async def _comes_up(self) -> bool:
        self._starts += 1
        stdout = self.place / f"stdout-{self._starts}"
        process = self._launched(stdout)
        while process.poll() is None:
            first, newline, _ = stdout.read_text().partition("\n")
            if newline:
                words = first.split()
                self.proxy = dict(word.split("=", 1) for word in words[1:])["proxy"]
                return True
            await asyncio.sleep(_POLL_S)
        return False

    def _launched(self, stdout: Path) -> subprocess.Popen[bytes]:
        with stdout.open("wb") as out, (self.place / "log").open("ab") as log:
            log.write(f"--- start {self._starts}\n".encode())
            self._process = subprocess.Popen(
                [sys.executable, *self._entry, "serve", "--config", str(self._config)],
                cwd=self.place,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                start_new_session=True,
                preexec_fn=partial(die_with_parent, signal.SIGTERM, os.getpid()),
            )
        return self._process

    async def kill(self) -> None:
        """SIGKILL of the supervisor, and with it of all others; returns when all are gone."""
        self.proxy = ""
        self._signal_all(signal.SIGKILL)
        process = self._process
        if process is not None:
            await comes_true(
                lambda: process.poll() is not None and not processes_of(self.place), _END_S
            )
        self._frozen.clear()

    def kill_one(self, name: str) -> bool:
        """SIGKILL of one process, which its family starts again. False when it is not there."""
        killed = [pid for pid in self._named(name) if _signalled(pid, signal.SIGKILL)]
        return bool(killed)

    def freeze(self, name: str | None) -> bool:
        """SIGSTOP of one process, or of all."""
        pids = list(processes_of(self.place)) if name is None else self._named(name)
        stopped = [pid for pid in pids if _signalled(pid, signal.SIGSTOP)]
        self._frozen.update(stopped)
        return bool(stopped)

    def go_on(self) -> None:
        """SIGCONT of whatever was stopped."""
        for pid in self._frozen:
            _signalled(pid, signal.SIGCONT)
        self._frozen.clear()

    def _named(self, name: str) -> list[int]:
        pids = []
        for pid in processes_of(self.place):
            with suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().strip() == name:
                    pids.append(pid)
        return pids

    def _signal_all(self, number: signal.Signals) -> None:
        for pid in processes_of(self.place):
            _signalled(pid, number)


def _signalled(pid: int, number: signal.Signals) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def environment() -> dict[str, str]:
    """Ours, without what would configure a gateway."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("QUOTA_")}
    for name in ("OPENAI_API_KEY", "REDIS_URL", "DATABASE_URL"):
        kept.pop(name, None)
    if "QUOTA_EMBEDDED" in os.environ:
        kept["QUOTA_EMBEDDED"] = os.environ["QUOTA_EMBEDDED"]
    return {**kept, "PYTHONPATH": str(ROOT), "NO_PROXY": "*", "no_proxy": "*"}
