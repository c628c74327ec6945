"""The gateway as users run it: `serve` with its shipped configuration, stores, jobs and metrics.

Only what must differ does: ports, the state directory, where the upstreams are, and a tier so large
that no limit plays a role. Users and keys are made in bulk. At the end the ledger must hold as many
rows as answers were given, and `ledger verify` must find no difference.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from bench.lanes import Callers, Lane, configured
from bench.processes import (
    ROOT,
    BenchError,
    Process,
    family_of,
    listening,
    pin,
    python,
    with_tree,
)
from gateway.adapters.prometheus_metrics import ProxyMetrics
from gateway.app.embedded import redis_url_of
from gateway.app.secrets_of_state import pepper_of
from gateway.app.stores import Stores, open_stores
from gateway.config import Settings, load

_TIERS: dict[Callers, str] = {"room": "full", "near": "lite"}
_ROOM_TOKENS, _NEAR_TOKENS = 10**12, 10**6
# Below the 8,192 that are held for an answer, so each call is held at less; above the least, 2,048.
_LEFT_TOKENS = 6000
_AT_ONCE = 8
_COMMAND_S, _BOOKING_S = 120.0, 5.0
_ROWS = 10_000
_HIDDEN = ("OPENAI_API_KEY", "REDIS_URL", "DATABASE_URL")


class GatewayStack:
    """One gateway over one state directory in `place`; it may be stopped and started again."""

    def __init__(
        self,
        place: Path,
        lanes: Sequence[Lane],
        env: Mapping[str, str],
        changes: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """`changes`: keys of sections of the configuration that are to be otherwise."""
        self._place, self._config, self._env = place, place / "config.yaml", dict(env)
        self._config.write_text(
            yaml.safe_dump(self._configuration(lanes, changes or {}), sort_keys=False)
        )
        kept = {k: v for k, v in os.environ.items() if k not in _HIDDEN and k[:6] != "QUOTA_"}
        self._settings: Settings = load(self._config, kept)
        self._process: Process | None = None
        self.port = 0

    @property
    def redis_url(self) -> str:
        """Its own Redis."""
        return redis_url_of(self._settings)

    @property
    def shards(self) -> int:
        """How many it has."""
        return self._settings.redis.shards

    def _configuration(
        self, lanes: Sequence[Lane], changes: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, Any]:
        shipped: dict[str, Any] = yaml.safe_load((ROOT / "config.yaml").read_text())
        shipped["listen"] |= dict.fromkeys(("proxy", "ops", "admin"), "127.0.0.1:0")
        shipped["state_dir"] = str(self._place / "state")
        # A machine with other work to do may keep Redis waiting; what a call costs is the same.
        shipped["redis"] |= {"url": "embedded", "deadline_ms": 5000}
        shipped["ledger"]["url"] = "embedded"
        shipped["canary"] = None  # every row is one of the load's
        for section, keys in changes.items():
            shipped[section] |= keys
        tiers = shipped["plan"]["tiers"]
        tiers["full"]["tokens"], tiers["lite"]["tokens"] = _ROOM_TOKENS, _NEAR_TOKENS
        return {**shipped, **configured(shipped, lanes)}

    def start(self, *options: str) -> None:
        """Run until it says that traffic is accepted."""
        argv = python("gateway", "serve", "--config", str(self._config), *options)
        self._process = Process("gateway", argv, self._place, self._env)
        places = dict(word.split("=", 1) for word in self._process.ready())
        self.port = urlsplit(places["proxy"]).port or 0

    def stop(self) -> None:
        """End it, well. Nothing when it does not run."""
        process, self._process = self._process, None
        if process is not None and process.stop():
            raise BenchError(f"the gateway ended badly:\n{process.log()}")

    def workers(self) -> tuple[int, ...]:
        """The processes that answer calls."""
        return listening(self._family(), self.port)

    def beside(self) -> tuple[int, ...]:
        """All others: the supervisor, the jobs, Redis, Postgres."""
        workers = self.workers()
        return tuple(pid for pid in self._family() if pid not in workers)

    def _family(self) -> tuple[int, ...]:
        if self._process is None:
            raise BenchError("the gateway was not started")
        return family_of(self._process.pid)

    def pin_workers(self, core: int) -> None:
        """Give the proxy a core; everything else stays where it is."""
        for pid in self.workers():
            pin(pid, core)

    # --- users -----------------------------------------------------------------------------

    def new_keys(self, users: int, callers: Callers) -> list[str]:
        """Keys of as many new users."""

        async def make() -> list[str]:
            async with self._stores() as stores:
                keys: list[str] = []
                for first in range(0, users, _AT_ONCE):
                    several = range(first, min(first + _AT_ONCE, users))
                    made = (self._new_key(stores, callers, number) for number in several)
                    keys += await asyncio.gather(*made)
                return keys

        return asyncio.run(make())

    async def _new_key(self, stores: Stores, callers: Callers, number: int) -> str:
        accounts, user_id = stores.accounts(self._settings), f"{callers}-{number}"
        await accounts.create_user(user_id, _TIERS[callers])
        if callers == "near":
            used = _NEAR_TOKENS - _LEFT_TOKENS
            await accounts.set_used(user_id, used, "near the limit", "bench")
        return (await accounts.create_key(user_id, pepper_of(self._settings))).key

    # --- the books -------------------------------------------------------------------------

    def calls_booked(self, wanted: int) -> int:
        """How many calls the ledger has booked, once `wanted` are, or none came for a while."""

        async def settled() -> int:
            async with self._stores() as stores:
                booked, before = await _calls(stores), -1
                while booked < wanted and booked != before:
                    await asyncio.sleep(_BOOKING_S)
                    booked, before = await _calls(stores), booked
                return booked

        return asyncio.run(settled())

    def agrees(self) -> bool:
        """What `quota-gateway ledger verify` says, after waiting for what is still open."""
        words = ("ledger", "verify", "--config", str(self._config), "--json", "--wait", "30")
        done = subprocess.run(
            python("gateway", *words),
            cwd=self._place,
            env={**with_tree(), **self._env},
            capture_output=True,
            text=True,
            timeout=_COMMAND_S,
        )
        if not done.stdout:
            raise BenchError(f"ledger verify failed:\n{done.stderr}")
        return bool(json.loads(done.stdout)["agrees"])

    def _stores(self) -> AbstractAsyncContextManager[Stores]:
        return open_stores(self._settings, ProxyMetrics(()), "bench")


async def _calls(stores: Stores) -> int:
    """Calls with an entry; one that was mended has two and counts once."""
    rids: set[str] = set()
    after: str | None = None
    while charges := await stores.reports.charges(after, _ROWS):
        after = charges[-1].event_id
        rids.update(charge.rid for charge in charges)
    return len(rids)
