"""The shared connection on servers of the test's own: each way in, on both loops, and each way to
fail."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest
import redis
import uvloop

from gateway.adapters.redis_store.calls import open_connections
from gateway.adapters.redis_store.fast_calls import FastCalls
from gateway.core.quota.settle import SettleCode
from gateway.ports.quota_store import StoreUnavailable
from gateway.ports.tasks import spawn
from tests.contract.quota_samples import (
    PAYER,
    SCRIPTS,
    Opened,
    ask,
    bring,
    open_store,
    rid_of,
    settlement,
)
from tests.contract.redis_peer import ECHO

_CERTIFICATE = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    " -subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout key.pem -out cert.pem"
)
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


@pytest.fixture
def started(missing: Callable[[str], NoReturn], tmp_path: Path) -> Iterator[Any]:
    """Starts a server with these options; its process."""
    running: list[subprocess.Popen[bytes]] = []

    def start(url: str, *options: str) -> subprocess.Popen[bytes]:
        command = shutil.which("redis-server")
        if command is None:
            missing("redis-server is not on this machine")
        words = [command, "--port", "0", "--save", "", "--dir", str(tmp_path), *options]
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        running.append(process)
        until_s = time.monotonic() + 10
        while True:
            with suppress(redis.ConnectionError), redis.Redis.from_url(url) as client:
                client.ping()
                return process
            if process.poll() is not None:
                missing(f"redis-server cannot be started with {' '.join(options)}")
            assert time.monotonic() < until_s, "no server"

    yield start
    for process in running:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def run_on(loop: str, main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main)


# --- every way in --------------------------------------------------------------------------------


async def works(url: str) -> None:
    """Calls of many payers at once, cancelled at random: every reply reaches its own caller."""
    chance = random.Random(url.split(":")[0])
    async with open_store(url) as opened:
        await bring(opened.store)

        async def call(number: int) -> int:
            held = await opened.store.reserve(ask(number, output_wanted=10 + number))
            assert held.hold_tokens == 110 + number
            ended = await (await opened.store.settle(settlement(number)))
            assert ended.code is SettleCode.SETTLED
            return number

        answered = 0
        for first in range(0, 300, 30):
            calls = [spawn(call(first + n), "call", awaited=True) for n in range(30)]
            for _ in range(chance.randrange(20)):
                await asyncio.sleep(0)
                chance.choice(calls).cancel()
            for told in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(told, int | asyncio.CancelledError), told
                answered += isinstance(told, int)
        assert answered > 100
        # What `big` carries is beyond every buffer on the way.
        big = "x" * 3_000_000
        for number in range(3):
            rid = rid_of(number)
            assert await opened.calls.run(ECHO, (), (rid, big), rid) == [1, rid.encode()]
        assert await opened.calls.command("PING") == b"PONG"
    with redis.Redis.from_url(url) as client:
        assert client.dbsize() > 0  # in the database that the URL names


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("way", ["tcp", "unix", "password", "user", "tls"])
def test_each_way_in_works_on_each_loop(
    started: Callable[..., Any], tmp_path: Path, way: str, loop: str
) -> None:
    port = str(free_port())
    options: tuple[str, ...] = ("--port", port)
    url = f"redis://127.0.0.1:{port}/3"
    if way == "unix":
        options, url = ("--unixsocket", f"{tmp_path}/s"), f"unix://{tmp_path}/s?db=3"
    elif way == "password":
        options, url = (*options, "--requirepass", "se cret"), url.replace("//", "//:se%20cret@")
    elif way == "user":
        rights = "--user gw on >p:w ~qg:* +@all --user default off"
        options = (*options, *rights.split())
        url = url.replace("//", "//gw:p%3Aw@")
    elif way == "tls":
        subprocess.run(_CERTIFICATE.split(), cwd=tmp_path, check=True, capture_output=True)
        options = ("--tls-port", port, "--tls-auth-clients", "no", "--tls-cert-file", "cert.pem")
        options = (*options, "--tls-key-file", "key.pem", "--tls-ca-cert-file", "cert.pem")
        url = f"rediss://localhost:{port}/3?ssl_ca_certs={tmp_path}/cert.pem"
    started(url, *options)
    run_on(loop, works(url))


def be_busy() -> None:
    time.sleep(0.3)


async def stalls(url: str) -> None:
    """The reply comes while this process is busy for longer than the deadline."""
    async with open_store(url, deadline_s=0.1) as opened:
        await opened.calls.command("SCRIPT", "LOAD", ECHO.source)
        for number in range(5):
            reply = await opened.calls.send(ECHO, (), (rid_of(number),), rid_of(number), list)
            be_busy()
            assert await reply == [1, rid_of(number).encode()]


@pytest.mark.parametrize("loop", LOOPS)
def test_a_process_that_stalls_does_not_blame_redis_on_any_loop(redis_url: str, loop: str) -> None:
    run_on(loop, stalls(redis_url))


async def test_a_wrong_password_is_told_and_nothing_is_sent(
    started: Callable[..., Any], tmp_path: Path
) -> None:
    url = f"unix://{tmp_path}/s?password="
    started(url + "right", "--unixsocket", f"{tmp_path}/s", "--requirepass", "right")
    async with open_store(url + "wrong") as opened:
        for told in await asyncio.gather(
            *(opened.store.reserve(ask(number)) for number in range(5)), return_exceptions=True
        ):
            assert isinstance(told, StoreUnavailable)
            assert "invalid username-password pair" in str(told)


# --- every way to fail ---------------------------------------------------------------------------


@pytest.fixture
def own(started: Callable[..., Any], tmp_path: Path) -> tuple[str, Any]:
    """A server to kill or to stop: its URL and process."""
    url = f"unix://{tmp_path}/s"
    return url, started(url, "--unixsocket", f"{tmp_path}/s")


@asynccontextmanager
async def busy(url: str, deadline_s: float) -> AsyncIterator[Opened]:
    async with open_store(url, deadline_s) as opened:
        for script in SCRIPTS.values():
            await opened.calls.command("SCRIPT", "LOAD", script.source)
        await bring(opened.store)
        yield opened


async def outcomes(opened: Opened, numbers: Sequence[int]) -> list[Any]:
    found: list[Any] = await asyncio.gather(
        *(opened.store.reserve(ask(number)) for number in numbers), return_exceptions=True
    )
    return found


async def test_a_server_that_is_killed_fails_what_is_under_way_at_once(
    own: tuple[str, Any], started: Callable[..., Any], tmp_path: Path
) -> None:
    url, process = own
    async with busy(url, 60.0) as opened:
        os.kill(process.pid, signal.SIGSTOP)  # so that none is answered before
        under_way = spawn(outcomes(opened, range(500)), "calls", awaited=True)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        os.kill(process.pid, signal.SIGKILL)
        for told in await asyncio.wait_for(under_way, 30):
            assert isinstance(told, StoreUnavailable)
        process.wait()
        (tmp_path / "s").unlink()
        with pytest.raises(StoreUnavailable):
            await opened.store.reserve(ask(501))
        started(url, "--unixsocket", f"{tmp_path}/s")
        await bring(opened.store)
        assert all(each.hold_tokens for each in await outcomes(opened, range(50)))


async def test_a_server_that_is_stopped_costs_each_call_its_deadline_and_no_more(
    own: tuple[str, Any],
) -> None:
    url, process = own
    async with busy(url, 0.3) as opened:
        os.kill(process.pid, signal.SIGSTOP)
        for first in (0, 50, 100):  # over the line that is there, and while one is sought
            began_s = time.monotonic()
            for told in await outcomes(opened, range(first, first + 50)):
                assert isinstance(told, StoreUnavailable)
            assert 0.3 <= time.monotonic() - began_s < 2.0
        os.kill(process.pid, signal.SIGCONT)
        until_s = time.monotonic() + 10
        while any(isinstance(told, StoreUnavailable) for told in await outcomes(opened, [200])):
            assert time.monotonic() < until_s
        assert {told.hold_tokens for told in await outcomes(opened, range(200, 250))} == {150}


async def test_a_server_that_forgets_its_scripts_under_load_is_given_each_once(
    redis_url: str,
) -> None:
    async with busy(redis_url, 10.0) as opened:
        with redis.Redis.from_url(redis_url) as client:
            client.script_flush()
            client.config_resetstat()

            async def both(number: int) -> SettleCode:
                await opened.store.reserve(ask(number))
                await opened.store.extend(PAYER, rid_of(number), 0, 60_000)
                return (await (await opened.store.settle(settlement(number)))).code

            codes = await asyncio.gather(*(both(number) for number in range(200)))
            assert set(codes) == {SettleCode.SETTLED}
            assert client.info("commandstats")["cmdstat_script|load"]["calls"] == 3


async def test_closing_fails_what_is_under_way_and_what_waits(own: tuple[str, Any]) -> None:
    url, process = own
    os.kill(process.pid, signal.SIGSTOP)
    calls = FastCalls(open_connections(url, 60.0), 60.0, lambda script, seconds: None)
    waiting = spawn(calls.command("PING"), "ping", awaited=True)
    await asyncio.sleep(0)
    await calls.aclose()
    with pytest.raises(StoreUnavailable):
        await waiting
