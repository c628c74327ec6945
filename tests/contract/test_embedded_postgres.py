"""What only the embedded Postgres promises: crash leftovers heal, and root can run it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import asyncpg
import pytest

from gateway.adapters.embedded import EmbeddedError, start_postgres
from gateway.adapters.embedded.engines import POSTGRES, Choice, pick
from gateway.adapters.embedded.waiting import comes_true

NOBODY = 65534
OWNER = Path(__file__).with_name("embedded_owner.py")
AS_ROOT_IN_A_NAMESPACE = ("unshare", "--user", "--map-root-user")


@pytest.fixture(params=["system", "wheel"])
def engine(request: pytest.FixtureRequest, missing: Callable[[str], NoReturn]) -> Choice:
    choice: Choice = request.param
    try:
        pick(POSTGRES, choice, Path("nowhere"), None)
    except EmbeddedError as error:
        missing(str(error))
    return choice


def _owner(state_dir: Path, engine: Choice, *prefix: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*prefix, sys.executable, str(OWNER), "postgres", str(state_dir), engine],
        env={**os.environ, "PYTHONPATH": str(OWNER.parents[2])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _stranger() -> subprocess.Popen[bytes]:
    """A living process of the user as whom Postgres runs, so that Postgres could signal it."""
    return subprocess.Popen(["sleep", "60"], user=NOBODY if os.geteuid() == 0 else None)


def _skip_without_namespaces() -> None:
    probe = subprocess.run([*AS_ROOT_IN_A_NAMESPACE, "true"], check=False, capture_output=True)
    if probe.returncode != 0:
        pytest.skip("user namespaces are barred here")


async def _ask(url: str, *questions: str) -> list[str]:
    connection = await asyncpg.connect(url)
    try:
        return [str(await connection.fetchval(question)) for question in questions]
    finally:
        await connection.close()


async def test_it_keeps_its_promises_to_the_disk_and_listens_on_no_port(
    engine: Choice, tmp_path: Path
) -> None:
    server = await start_postgres(tmp_path, engine)
    shown = await _ask(
        server.url,
        *("SHOW fsync", "SHOW synchronous_commit", "SHOW listen_addresses", "SHOW timezone"),
        *("SHOW server_encoding", "SELECT current_user"),
        "SELECT datcollate FROM pg_database WHERE datname = current_database()",
    )
    await server.stop()
    assert shown == ["on", "on", "", "UTC", "UTF8", "quota", "C"]


async def test_a_cluster_half_made_when_its_owner_was_killed_is_made_again(
    engine: Choice, tmp_path: Path
) -> None:
    unfinished = tmp_path / "postgres/data.unfinished"
    with _owner(tmp_path, engine) as process:
        assert await comes_true((unfinished / "base").exists, 20.0)
        process.kill()
    assert unfinished.exists()
    server = await start_postgres(tmp_path, engine)
    assert await _ask(server.url, "SELECT 1") == ["1"]
    await server.stop()
    assert not unfinished.exists()


async def test_a_pid_file_that_names_a_stranger_does_not_stop_it(
    engine: Choice, tmp_path: Path
) -> None:
    server = await start_postgres(tmp_path, engine)
    pid_file = tmp_path / "postgres/data/postmaster.pid"
    with _stranger() as stranger:
        left = pid_file.read_text().replace(str(server.pid), str(stranger.pid), 1)
        os.kill(server.pid, signal.SIGKILL)
        await server.stop()
        pid_file.write_text(left)
        server = await start_postgres(tmp_path, engine)
        assert stranger.poll() is None
        stranger.kill()
    await server.stop()


async def test_a_failed_start_shows_what_the_server_said(engine: Choice, tmp_path: Path) -> None:
    server = await start_postgres(tmp_path, engine)
    await server.stop()
    settings = tmp_path / "postgres/data/postgresql.conf"
    whole = settings.read_bytes()
    settings.write_text("no setting at all\n")
    with pytest.raises(EmbeddedError, match=r"postgres ended while starting(.|\n)*syntax error"):
        await start_postgres(tmp_path, engine)
    settings.write_bytes(whole)
    server = await start_postgres(tmp_path, engine)  # the failure left neither lock nor process
    await server.stop()


async def test_root_runs_it_as_nobody_in_a_directory_that_only_root_can_enter(
    engine: Choice, tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can start it as root")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    server = await start_postgres(closed / "state", engine)
    assert os.stat(f"/proc/{server.pid}").st_uid == NOBODY
    assert await _ask(server.url, "SELECT 1") == ["1"]
    await server.stop()
    assert closed.stat().st_mode & 0o777 == 0o700
    assert (closed / "state/postgres").stat().st_uid == 0


async def test_root_without_a_second_user_runs_it_in_a_namespace(
    engine: Choice, tmp_path: Path
) -> None:
    _skip_without_namespaces()
    for _ in range(2):
        with _owner(tmp_path, engine, *AS_ROOT_IN_A_NAMESPACE) as process:
            assert process.stdout is not None
            said = process.stdout.readline()
            process.kill()
            assert '"pid"' in said
    server = await start_postgres(tmp_path, engine)  # and the data can be handed over
    assert await _ask(server.url, "SELECT 1") == ["1"]
    await server.stop()
