"""The gateway as users run it: `serve` with its shipped configuration, stores, jobs and metrics.

Only what must differ does: ports, the state directory, where the upstreams are, and tiers so large
that no limit plays a role. Users and keys are made in bulk. At the end the ledger must hold as many
rows as answers were given, and `ledger verify` must find no difference.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from bench.processes import ROOT, BenchError, Started, children_of, pin, python
from gateway.adapters.postgres.reports import ExportFilter
from gateway.adapters.prometheus_metrics import ProxyMetrics
from gateway.app.secrets_of_state import pepper_of
from gateway.app.stores import open_stores
from gateway.config import Settings, load

UPSTREAM_KEY = "sk-bench-0123456789abcdefghijklmnopqrstuvwxyz0123456789"
ROOM_TOKENS = 10**12
_COMMAND_S = 120.0
_HIDDEN = ("OPENAI_API_KEY", "REDIS_URL", "DATABASE_URL")


class GatewayStack:
    """One gateway over one state directory."""

    def __init__(self, place: Path, upstream: str, env: Mapping[str, str] | None = None) -> None:
        self._place, self._config = place, place / "config.yaml"
        self._env = dict(env or {})
        self._config.write_text(yaml.safe_dump(self._configuration(upstream), sort_keys=False))
        kept = {name: value for name, value in os.environ.items() if name not in _HIDDEN}
        self._settings: Settings = load(
            self._config, {k: v for k, v in kept.items() if not k.startswith("QUOTA_")}
        )
        self._process: Started | None = None
        self.port = 0

    def _configuration(self, upstream: str) -> dict[str, Any]:
        shipped: dict[str, Any] = yaml.safe_load((ROOT / "config.yaml").read_text())
        listen = dict.fromkeys(("proxy", "ops", "admin"), "127.0.0.1:0")
        shipped["listen"] |= listen
        shipped["state_dir"] = str(self._place / "state")
        # A machine with other work to do may keep Redis waiting; what a call costs is the same.
        shipped["redis"] |= {"url": "embedded", "deadline_ms": 5000}
        shipped["ledger"]["url"] = "embedded"
        shipped["upstreams"]["openai"] |= {"base_url": f"{upstream}/v1", "api_key": UPSTREAM_KEY}
        shipped["plan"]["tiers"]["full"]["tokens"] = ROOM_TOKENS
        return shipped

    def start(self, *options: str) -> None:
        """Run until it says that traffic is accepted."""
        argv = python("gateway", "serve", "--config", str(self._config), *options)
        self._process = Started("gateway", argv, self._place, self._env)
        places = dict(word.split("=", 1) for word in self._process.said)
        self.port = urlsplit(places["proxy"]).port or 0

    def workers(self) -> list[int]:
        """The processes that answer calls."""
        if self._process is None:
            raise BenchError("the gateway was not started")
        children = children_of(self._process.pid)
        return [pid for pid, command in children.items() if "proxy-process" in command]

    def pin_workers(self, core: int) -> None:
        """Give the proxy a core; everything else stays where it is."""
        for pid in self.workers():
            pin(pid, core)

    def stop(self) -> None:
        """End it, well."""
        if self._process is not None and self._process.stop():
            raise BenchError(f"the gateway ended badly:\n{self._process.log()[-2000:]}")
        self._process = None

    def new_keys(self, users: int, name: str = "room") -> list[str]:
        """Keys of new users on the tier `full`."""

        async def make() -> list[str]:
            async with self._stores() as stores:
                accounts, pepper = stores.accounts(self._settings), pepper_of(self._settings)
                keys = []
                for number in range(users):
                    user_id = f"{name}-{number}"
                    await accounts.create_user(user_id, "full")
                    keys.append((await accounts.create_key(user_id, pepper)).key)
                return keys

        return asyncio.run(make())

    def rows_of_usage(self) -> int:
        """How many calls the ledger has booked, once all is drained: part of `verdict`."""

        async def count() -> int:
            async with self._stores() as stores:
                rows = stores.reports.export(ExportFilter())
                return sum([1 async for row in rows if row["kind"] == "usage"])

        return asyncio.run(count())

    def verdict(self) -> dict[str, Any]:
        """What `quota-gateway ledger verify` says, after waiting for what is still open."""
        done = subprocess.run(
            python(
                *("gateway", "ledger", "verify", "--config", str(self._config)),
                *("--json", "--wait", "30"),
            ),
            cwd=self._place,
            env={**os.environ, "PYTHONPATH": str(ROOT), **self._env},
            capture_output=True,
            text=True,
            timeout=_COMMAND_S,
        )
        if not done.stdout:
            raise BenchError(f"ledger verify failed:\n{done.stderr}")
        return dict(json.loads(done.stdout))

    def _stores(self) -> Any:
        return open_stores(self._settings, ProxyMetrics(()), "bench")
