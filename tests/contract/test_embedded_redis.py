"""What only the embedded Redis promises: nothing is evicted, everything is on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from gateway.adapters.embedded import EmbeddedError, start_redis
from gateway.adapters.embedded.engines import REDIS, Choice, pick


@pytest.fixture(params=["system", "wheel"])
def engine(request: pytest.FixtureRequest, missing: Callable[[str], NoReturn]) -> Choice:
    choice: Choice = request.param
    try:
        pick(REDIS, choice, Path("nowhere"), None)
    except EmbeddedError as error:
        missing(str(error))
    return choice


async def test_it_appends_evicts_nothing_and_listens_on_no_port(
    engine: Choice, tmp_path: Path
) -> None:
    server = await start_redis(tmp_path, engine)
    async with redis.asyncio.Redis.from_url(server.url, decode_responses=True) as client:
        settings = await client.config_get("*")
        assert (await client.info("persistence"))["aof_enabled"] == 1
    await server.stop()
    wanted = {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "save": "",
        "port": "0",
        "unixsocketperm": "700",
        "dir": str(tmp_path / "redis"),
    }
    assert {name: settings[name] for name in wanted} == wanted


async def test_it_is_ready_only_when_its_file_is_read(engine: Choice, tmp_path: Path) -> None:
    entries = 50_000  # some 30 MB, which it does not read between two pings
    server = await start_redis(tmp_path, engine)
    async with redis.asyncio.Redis.from_url(server.url) as client:
        fill = client.register_script(
            "for n = 1, ARGV[1] do redis.call('SET', n, string.rep('x', 500)) end"
        )
        await fill(args=[entries])
    await server.stop()
    server = await start_redis(tmp_path, engine)
    once = Retry(NoBackoff(), 0)  # by default the client itself waits while the server loads
    async with redis.asyncio.Redis.from_url(server.url, retry=once) as client:
        assert await client.dbsize() == entries
    await server.stop()


async def test_a_failed_start_shows_what_the_server_said(engine: Choice, tmp_path: Path) -> None:
    server = await start_redis(tmp_path, engine)
    await server.stop()
    manifest = tmp_path / "redis/appendonlydir/appendonly.aof.manifest"
    whole = manifest.read_bytes()
    manifest.write_text("no manifest at all\n")
    with pytest.raises(EmbeddedError, match=r"redis ended while starting(.|\n)*AOF manifest"):
        await start_redis(tmp_path, engine)
    manifest.write_bytes(whole)
    server = await start_redis(tmp_path, engine)  # the failure left neither lock nor process
    await server.stop()


async def test_data_of_unknown_origin_are_not_opened(engine: Choice, tmp_path: Path) -> None:
    server = await start_redis(tmp_path, engine)
    await server.stop()
    (tmp_path / "redis/ENGINE").unlink()
    with pytest.raises(EmbeddedError, match="ENGINE, which tells what wrote the data"):
        await start_redis(tmp_path, engine)
