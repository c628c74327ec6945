"""What both embedded stores promise, with each engine: they keep data, they never run twice on the
same data, and they end exactly when their owner ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import asyncpg
import pytest
import redis.asyncio

from gateway.adapters.embedded import (
    EmbeddedError,
    RunningServer,
    postgres_url,
    redis_url,
    socket_dir,
    start_postgres,
    start_redis,
)
from gateway.adapters.embedded.engines import POSTGRES, REDIS, Choice, Kind, pick
from gateway.adapters.embedded.place import claim
from gateway.adapters.embedded.process import Launch, exited, launch
from gateway.adapters.embedded.waiting import comes_true

ROOT = Path(__file__).parents[2]
NOBODY = 65534
END_S = 10.0  # a deadline, not a wait: servers end in milliseconds


async def _redis_add(url: str, value: str) -> None:
    async with redis.asyncio.Redis.from_url(url) as client:
        await client.set(value, 1)


async def _redis_kept(url: str) -> list[str]:
    async with redis.asyncio.Redis.from_url(url) as client:
        return sorted([key.decode() async for key in client.scan_iter()])


async def _postgres_add(url: str, value: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE IF NOT EXISTS kept (value text)")
    await connection.execute("INSERT INTO kept VALUES ($1)", value)
    await connection.close()


async def _postgres_kept(url: str) -> list[str]:
    connection = await asyncpg.connect(url)
    rows = await connection.fetch("SELECT value FROM kept ORDER BY value")
    await connection.close()
    return [row["value"] for row in rows]


@dataclass(frozen=True, slots=True)
class Store:
    name: str
    kind: Kind
    engine: Choice
    start: Callable[[Path, Choice], Awaitable[RunningServer]]
    url: Callable[[Path], str]
    add: Callable[[str, str], Awaitable[None]]
    kept: Callable[[str], Awaitable[list[str]]]


def _redis(engine: Choice) -> Store:
    return Store("redis", REDIS, engine, start_redis, redis_url, _redis_add, _redis_kept)


def _postgres(engine: Choice) -> Store:
    add, kept = _postgres_add, _postgres_kept
    return Store("postgres", POSTGRES, engine, start_postgres, postgres_url, add, kept)


STORES = (_redis("system"), _redis("wheel"), _postgres("system"), _postgres("wheel"))


@pytest.fixture(params=STORES, ids=lambda store: f"{store.name}-{store.engine}")
def store(request: pytest.FixtureRequest, missing: Callable[[str], NoReturn]) -> Store:
    found: Store = request.param
    try:
        pick(found.kind, found.engine, Path("nowhere"), None)
    except EmbeddedError as error:
        missing(str(error))
    return found


@dataclass(frozen=True, slots=True)
class Owner:
    """The process of embedded_owner.py and the first line that it printed."""

    process: subprocess.Popen[str]
    said: dict[str, Any]

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell_to_stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()


def owner_process(store: Store, state_dir: Path, **extra: str) -> subprocess.Popen[str]:
    script = Path(__file__).with_name("embedded_owner.py")
    return subprocess.Popen(
        [sys.executable, str(script), store.name, str(state_dir), store.engine],
        env={**os.environ, "PYTHONPATH": str(ROOT), **extra},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )


@asynccontextmanager
async def owner(store: Store, state_dir: Path, **extra: str) -> AsyncIterator[Owner]:
    """Such a process, up to its first line; at the end it and its server are gone."""
    with owner_process(store, state_dir, **extra) as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline() or "{}")
        try:
            yield Owner(process, said)
        finally:
            process.kill()
            ended = await comes_true(lambda: "pid" not in said or gone(said["pid"]), END_S)
            if not ended:
                os.kill(said["pid"], signal.SIGKILL)
    assert ended


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"  # ended, and waiting for an init that may not care


def skip_if_nobody_cannot_run(binary: Path) -> None:
    command = [str(binary), "--version"]
    try:
        subprocess.run(command, user=NOBODY, group=NOBODY, check=True, stdout=subprocess.DEVNULL)
    except PermissionError:
        pytest.skip(f"{binary} lies where a plain user cannot reach it")


async def test_data_survive_stop_and_start(store: Store, tmp_path: Path) -> None:
    for value in ("first", "second", "third"):
        server = await store.start(tmp_path, store.engine)
        assert server.url == store.url(tmp_path)
        await store.add(server.url, value)
        await server.stop()
        assert gone(server.pid)
        assert not server.is_alive()
    server = await store.start(tmp_path, store.engine)
    assert await store.kept(server.url) == ["first", "second", "third"]
    await server.stop()


async def test_data_survive_a_killed_server(store: Store, tmp_path: Path) -> None:
    server = await store.start(tmp_path, store.engine)
    await store.add(server.url, "written just before")
    os.kill(server.pid, signal.SIGKILL)
    await server.stop()
    server = await store.start(tmp_path, store.engine)
    assert await store.kept(server.url) == ["written just before"]
    await server.stop()


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
async def test_the_server_ends_with_its_owner_however_that_ends(
    store: Store, tmp_path: Path, ending: signal.Signals
) -> None:
    async with owner(store, tmp_path) as owned:
        await store.add(owned.said["url"], "kept")
        owned.process.send_signal(ending)
        owned.process.wait()
        assert await comes_true(lambda: gone(owned.said["pid"]), END_S)
    server = await store.start(tmp_path, store.engine)
    assert await store.kept(server.url) == ["kept"]
    await server.stop()


async def test_a_start_waits_for_the_server_that_a_killed_owner_left(
    store: Store, tmp_path: Path
) -> None:
    async with owner(store, tmp_path) as owned:
        await store.add(owned.said["url"], "kept")
        owned.process.kill()
        owned.process.wait()
        server = await store.start(tmp_path, store.engine)
        assert gone(owned.said["pid"])
        assert await store.kept(server.url) == ["kept"]
        await server.stop()


async def test_a_second_launcher_is_refused_and_told_who_is_first(
    store: Store, tmp_path: Path
) -> None:
    async with owner(store, tmp_path) as first:
        with pytest.raises(EmbeddedError, match=f"in use by the process {first.process.pid}"):
            await store.start(tmp_path, store.engine)
        await store.add(first.said["url"], "undisturbed")
        first.tell_to_stop()
        assert first.line() == "stopped"
        server = await store.start(tmp_path, store.engine)
        async with owner(store, tmp_path) as second:
            assert f"in use by the process {os.getpid()}" in second.said["error"]
        assert await store.kept(server.url) == ["undisturbed"]
        await server.stop()


async def test_a_ctrl_c_at_the_terminal_leaves_the_server_to_its_owner(
    store: Store, tmp_path: Path
) -> None:
    async with owner(store, tmp_path) as owned:
        os.killpg(owned.process.pid, signal.SIGINT)
        assert owned.line() == "interrupted"
        assert os.getsid(owned.said["pid"]) != os.getsid(owned.process.pid)
        await store.add(owned.said["url"], "after the interrupt")
        owned.tell_to_stop()
        assert owned.line() == "stopped"
        assert owned.process.wait() == 0
        assert gone(owned.said["pid"])


async def test_a_long_state_directory_works(store: Store, tmp_path: Path) -> None:
    state_dir = tmp_path / ("long " * 20) / ("longer " * 20)
    short = socket_dir(state_dir)
    assert state_dir not in short.parents
    try:
        server = await store.start(state_dir, store.engine)
        assert short.stat().st_mode & 0o777 == 0o700
        await store.add(server.url, "kept")
        assert await store.kept(store.url(state_dir)) == ["kept"]
        await server.stop()
    finally:
        shutil.rmtree(short)


async def test_a_socket_directory_that_others_may_write_is_refused(
    store: Store, tmp_path: Path
) -> None:
    socket_dir(tmp_path).mkdir()
    socket_dir(tmp_path).chmod(0o777)
    with pytest.raises(EmbeddedError, match="nobody else may write"):
        await store.start(tmp_path, store.engine)


async def test_only_the_owner_can_reach_the_socket(store: Store, tmp_path: Path) -> None:
    server = await store.start(tmp_path, store.engine)
    assert socket_dir(tmp_path).stat().st_mode & 0o777 == 0o700
    assert [p.stat().st_mode & 0o777 for p in socket_dir(tmp_path).glob("*") if p.is_socket()] == [
        0o700
    ]
    await server.stop()


async def test_a_server_does_not_inherit_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    held = await claim(tmp_path)
    said = tmp_path / "log"
    child = launch(Launch(("env",), tmp_path, said, signal.SIGKILL, held.server.fileno()))
    assert await exited(child, END_S)
    held.release()
    assert "LC_ALL=C" in said.read_text()
    assert "sk-secret" not in said.read_text()


async def test_data_of_another_engine_are_refused_and_their_own_engine_is_found(
    store: Store, tmp_path: Path, missing: Callable[[str], NoReturn]
) -> None:
    other: Choice = "wheel" if store.engine == "system" else "system"
    try:
        mark = pick(store.kind, other, tmp_path, None).mark
    except EmbeddedError as error:
        missing(str(error))
    if pick(store.kind, store.engine, tmp_path, None).mark == mark:
        pytest.skip("system and wheel are of one major version here: either may open the data")
    server = await store.start(tmp_path, store.engine)
    await store.add(server.url, "kept")
    await server.stop()
    with pytest.raises(EmbeddedError, match=r"were written by .*; found \(") as refused:
        await store.start(tmp_path, other)
    assert "move" in str(refused.value)
    server = await store.start(tmp_path, "any")
    assert f"({store.engine})" in server.engine
    assert await store.kept(server.url) == ["kept"]
    await server.stop()


async def test_the_environment_forces_the_engine(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUOTA_EMBEDDED", str(store.engine))
    server = await store.start(tmp_path, "any")
    await server.stop()
    assert f"({store.engine})" in server.engine
    monkeypatch.setenv("QUOTA_EMBEDDED", "docker")
    with pytest.raises(EmbeddedError, match="'docker'; set it to system or wheel"):
        await store.start(tmp_path, "any")


async def test_a_start_outside_the_main_thread_is_refused(store: Store, tmp_path: Path) -> None:
    def start() -> None:
        async def begin() -> None:
            await store.start(tmp_path, store.engine)

        asyncio.run(begin())

    with pytest.raises(EmbeddedError, match="main thread"):
        await asyncio.to_thread(start)


async def test_a_plain_user_can_run_it(store: Store) -> None:
    if os.geteuid() != 0:
        pytest.skip("a plain user runs all of these tests already")
    skip_if_nobody_cannot_run(pick(store.kind, store.engine, Path("nowhere"), None).binary)
    with tempfile.TemporaryDirectory() as place:
        os.chown(place, NOBODY, NOBODY)
        for value in ("first", "second"):
            async with owner(store, Path(place), OWNER_UID=str(NOBODY)) as owned:
                assert os.stat(f"/proc/{owned.said['pid']}").st_uid == NOBODY
                await store.add(owned.said["url"], value)
                owned.tell_to_stop()
                assert owned.line() == "stopped"
        async with owner(store, Path(place), OWNER_UID=str(NOBODY)) as owned:
            assert await store.kept(owned.said["url"]) == ["first", "second"]
