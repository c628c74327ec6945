"""A whole gateway as a process of its own, and the ways to look at it from outside.

The configuration is the one that ships, on embedded stores in a directory of the test, with every
upstream a stand-in that survives the gateway. Users may be made in bulk from inside, because a
command costs a second; whatever a test is about goes through the real command line and HTTP.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import yaml
from prometheus_client.parser import text_string_to_metric_families

from gateway.adapters.embedded.run_as import die_with_parent
from gateway.adapters.postgres.connection import open_pool
from gateway.adapters.postgres.reports import ExportFilter, PostgresReports
from gateway.adapters.prometheus_metrics import ProxyMetrics
from gateway.app.embedded import ledger_url_of
from gateway.app.secrets_of_state import admin_token_of, pepper_of
from gateway.app.stores import Stores, open_stores
from gateway.config import Settings, load
from tests.gateway.loopback import Reply, ask
from tests.gateway.standin_process import UPSTREAM_KEY, StandInProcess
from tests.gateway.waiting_for import until
from tests.new_ledger import put_new_ledger

ROOT = Path(__file__).resolve().parents[2]
T = TypeVar("T")
Row = dict[str, Any]

# A key that the stand-in does not know, and a port where nobody listens, each behind a model.
WRONG_KEY = "sk-wrong-a1b2c3d4e5f6g7h8"
MODEL, MODEL_WITH_WRONG_KEY, MODEL_WITHOUT_UPSTREAM = "gpt-4o-mini", "gpt-4.1", "gpt-4.1-mini"
MODEL_THAT_COUNTS_NOTHING = "gpt-4o"  # its upstream is declared `stream_usage: false`
_DOWN = "http://127.0.0.1:9/v1"  # the discard port, which no machine of today opens
_START_S, _STOP_S, _COMMAND_S, _ROWS_S, _POLL_S = 60.0, 40.0, 60.0, 20.0, 0.02


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, section by section."""
    result = dict(base)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result


def processes_of(place: Path) -> dict[int, str]:
    """Living processes that work in `place` or were told of it, by pid."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            inside = Path(os.readlink(entry / "cwd")).is_relative_to(place)
        except OSError:
            continue
        if command and (inside or str(place) in command):
            found[int(entry.name)] = command
    return found


def _name_of(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


class RunningGateway:
    """One gateway over one state directory; it may be stopped, killed and started again.

    It begins with a ready-made empty ledger, unless it is told to make its own."""

    def __init__(
        self, place: Path, stand_in: StandInProcess, changes: Mapping[str, Any] | None = None
    ) -> None:
        self.place, self.stand_in = place.resolve(), stand_in
        self.state_dir, self.config = self.place / "state", self.place / "config.yaml"
        self.stdout, self.stderr = self.place / "stdout", self.place / "stderr"
        self.proxy = self.ops = self.admin = ""
        self.config.write_text(yaml.safe_dump(self._configuration(changes or {}), sort_keys=False))
        kept = {k: v for k, v in os.environ.items() if not k.startswith("QUOTA_")}
        for name in ("OPENAI_API_KEY", "REDIS_URL", "DATABASE_URL"):
            kept.pop(name, None)
        if "QUOTA_EMBEDDED" in os.environ:
            kept["QUOTA_EMBEDDED"] = os.environ["QUOTA_EMBEDDED"]
        self.has_ready_made_ledger, self.is_lent = True, False
        self.environment = {**kept, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
        self.settings: Settings = load(self.config, self.environment)
        self._process: subprocess.Popen[bytes] | None = None

    def _configuration(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        shipped = yaml.safe_load((ROOT / "config.yaml").read_text())
        true = {
            **shipped["upstreams"]["openai"],
            "base_url": self.stand_in.url,
            "api_key": UPSTREAM_KEY,
            "user_header": "X-Quota-User",
        }
        ours = {
            "listen": dict.fromkeys(("proxy", "ops", "admin"), "127.0.0.1:0") | {"body_mib_max": 1},
            "state_dir": str(self.state_dir),
            # Tests share their machine: a slow answer of Redis is not what they are about.
            "redis": {"url": "embedded", "deadline_ms": 5000},
            "ledger": {"url": "embedded"},
            "canary": None,  # so that counts are those of the test
            "upstreams": {
                "openai": true,
                "wrong_key": {**true, "api_key": WRONG_KEY},
                "down": {**true, "base_url": _DOWN},
                "no_usage": {**true, "stream_usage": False},
            },
            "models": {
                MODEL_WITH_WRONG_KEY: {"upstream": "wrong_key"},
                MODEL_WITHOUT_UPSTREAM: {"upstream": "down"},
                MODEL_THAT_COUNTS_NOTHING: {"upstream": "no_usage"},
            },
        }
        return merged(merged(shipped, ours), changes)

    # --- its life --------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """The supervisor's."""
        assert self._process is not None
        return self._process.pid

    def start(self, *options: str) -> RunningGateway:
        """`serve` until it says that traffic is accepted."""
        if self.has_ready_made_ledger and self.settings.ledger.url.is_embedded:
            put_new_ledger(self.state_dir)
        with self.stdout.open("wb") as stdout, self.stderr.open("ab") as stderr:
            self._process = process = subprocess.Popen(
                self._argv("serve", "--config", str(self.config), *options),
                cwd=self.place,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
                preexec_fn=partial(die_with_parent, signal.SIGTERM, os.getpid()),
            )

        def ready() -> list[str]:
            assert process.poll() is None, f"serve ended: {self.stderr.read_text()}"
            first = self.stdout.read_text().partition("\n")
            return first[0].split() if first[1] else []

        words = until(ready, _START_S, "the gateway to be ready")
        assert words[0] == "ready"
        places = dict(word.split("=", 1) for word in words[1:])
        self.proxy, self.ops, self.admin = places["proxy"], places["ops"], places["admin"]
        return self

    def ended(self) -> int:
        """Wait until it has ended by itself; the exit code."""
        assert self._process is not None
        return self._process.wait(_STOP_S)

    def whole_screen(self) -> str:
        """What `--demo` printed, once its last line is there; before that ''."""
        text = self.stdout.read_text()
        return text if "Ctrl-C stops everything." in text else ""

    def stop(self) -> None:
        """SIGTERM; it must end by itself, well, and leave nothing running."""
        assert self._process is not None
        assert not self.is_lent, "whoever comes next needs it"
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(_STOP_S)
        log = self.stderr.read_text()
        assert code == 0, log
        assert "Traceback" not in log, log
        self.nothing_runs()

    def kill(self) -> None:
        """SIGKILL of the supervisor; the others must follow by themselves."""
        assert self._process is not None
        assert not self.is_lent, "whoever comes next needs it"
        self._process.kill()
        self._process.wait(_STOP_S)
        self.nothing_runs()

    def end(self) -> None:
        """After the tests: stop if it still runs; whatever happens, leave nothing behind."""
        try:
            if self._process is not None and self._process.poll() is None:
                self.stop()
        finally:
            for pid in processes_of(self.place):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if self._process is not None:
                self._process.wait(_STOP_S)

    def nothing_runs(self) -> None:
        """Wait until no process of this gateway is left."""
        until(lambda: not processes_of(self.place), _STOP_S, "all processes to end")

    def child(self, name: str) -> int:
        """The pid of a process by its name: proxy-1 and so on, jobs, family."""
        names = {pid: _name_of(pid) for pid in processes_of(self.place)}
        found = [pid for pid, found in names.items() if found == name]
        assert len(found) == 1, names
        return found[0]

    # --- the command line ------------------------------------------------------------------

    def _argv(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "gateway", *words]

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The real command line beside the running gateway."""
        return subprocess.run(
            self._argv(*words, "--config", str(self.config)),
            cwd=self.place,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=_COMMAND_S,
        )

    def cli(self, *words: str) -> Any:
        """A command that must succeed, and what it printed as JSON."""
        done = self.command(*words, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    # --- the stores, from inside -----------------------------------------------------------

    def in_stores(self, work: Callable[[Stores], Awaitable[T]]) -> T:
        """Run `work` with the gateway's own stores, on a loop of its own."""

        async def run() -> T:
            async with open_stores(self.settings, ProxyMetrics(()), "tests") as stores:
                return await work(stores)

        return _beside(run)

    def new_user(self, tier: str = "free", used: int | None = None) -> tuple[str, str]:
        """(id, key) of a user nobody else knows."""
        user_id = f"user-{uuid.uuid4().hex[:12]}"

        async def make(stores: Stores) -> str:
            accounts = stores.accounts(self.settings)
            await accounts.create_user(user_id, tier)
            if used is not None:
                await accounts.set_used(user_id, used, "set up", "tests")
            return (await accounts.create_key(user_id, pepper_of(self.settings))).key

        return user_id, self.in_stores(make)

    def ledger_rows(self, user_id: str, rows: int = 1) -> list[Row]:
        """The user's entries in their order, as soon as there are `rows` of them."""

        async def read() -> list[Row]:
            pool = await open_pool(ledger_url_of(self.settings))
            try:
                wanted, deadline_s = ExportFilter(user_id=user_id), time.monotonic() + _ROWS_S
                while True:
                    found = [row async for row in PostgresReports(pool).export(wanted)]
                    if len(found) >= rows or time.monotonic() > deadline_s:
                        return found
                    await asyncio.sleep(_POLL_S)
            finally:
                pool.terminate()

        found = _beside(read)
        assert len(found) == rows, found
        return found

    # --- HTTP ------------------------------------------------------------------------------

    def chat(self, key: str, body: Any, headers: Mapping[str, str] | None = None) -> Reply:
        """One chat completion. A str is the prompt; bytes go as they are."""
        if isinstance(body, str):
            body = prompt(body)
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return ask(
            f"{self.proxy}/v1/chat/completions",
            "POST",
            raw,
            {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
            | dict(headers or {}),
        )

    def shown(self, user_id: str) -> Any:
        """The user at this moment, by the admin port."""
        token = {"Authorization": f"Bearer {admin_token_of(self.settings)}"}
        reply = ask(f"{self.admin}/admin/v1/users/{user_id}", headers=token)
        assert reply.status == 200, reply
        return reply.json

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels; 0 when there is none."""
        text = ask(f"{self.ops}/metrics").text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == f"quota_gateway_{name}" and labels.items() <= sample.labels.items()
        )


@contextmanager
def running_gateway(
    stand_in: StandInProcess, changes: Mapping[str, Any] | None = None, *options: str
) -> Iterator[RunningGateway]:
    """One that runs while the block lasts, in a directory of its own."""
    with tempfile.TemporaryDirectory(prefix="qg-") as place:
        gateway = RunningGateway(Path(place), stand_in, changes)
        try:
            gateway.start(*options).is_lent = True
            yield gateway
        finally:
            gateway.is_lent = False
            gateway.end()


def _beside(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run it on a loop of its own; the test may have one already."""
    with ThreadPoolExecutor(1) as other_thread:
        return other_thread.submit(lambda: asyncio.run(work())).result()


def prompt(text: str, **fields: Any) -> dict[str, Any]:
    """The body of a chat request with one message."""
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], **fields}


class MakeGateway(Protocol):
    """A gateway of the test's own, not started yet, with changes to the configuration."""

    def __call__(self, **changes: Any) -> RunningGateway: ...
