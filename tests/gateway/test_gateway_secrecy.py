"""The upstream's key appears nowhere but upstream; a user's key appears nowhere at all."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path

import asyncpg
import redis

from gateway.adapters.embedded import postgres_url, redis_url
from tests.gateway.loopback import ask
from tests.gateway.running_gateway import (
    MODEL_WITH_WRONG_KEY,
    WRONG_KEY,
    RunningGateway,
    processes_of,
    prompt,
)
from tests.gateway.standin_process import UPSTREAM_KEY


def everything_in_redis(gateway: RunningGateway) -> str:
    said: list[str] = []
    # Kept answers are no text, but what might be a secret in them would be.
    readable = {"decode_responses": True, "encoding_errors": "backslashreplace"}
    with redis.Redis.from_url(redis_url(gateway.state_dir), **readable) as client:
        readers = {
            "hash": client.hgetall,
            "stream": client.xrange,
            "string": client.get,
            "zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        }
        for key in client.scan_iter():
            said.append(f"{key} {readers[client.type(key)](key)}")
    return "\n".join(said)


def everything_in_postgres(gateway: RunningGateway) -> str:
    async def read() -> str:
        connection = await asyncpg.connect(postgres_url(gateway.state_dir))
        try:
            names = await connection.fetch(
                "SELECT relname FROM pg_class"
                " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
            )
            said = io.BytesIO()
            for (name,) in names:
                await connection.copy_from_table(name, output=said)
            return said.getvalue().decode()
        finally:
            await connection.close()

    return asyncio.run(read())


def files_with(place: Path, text: str) -> list[Path]:
    """The files below `place` in which the text stands."""
    found = []
    for path in place.rglob("*"):
        if path.is_file() and text.encode() in path.read_bytes():
            found.append(path.relative_to(place))
    return found


def a_session_of_calls(gateway: RunningGateway, key: str) -> str:
    """Calls of every ending; all that the client was told."""
    bodies = [
        prompt("Hello"),
        prompt("Hello", stream=True),
        prompt("Hello", model=MODEL_WITH_WRONG_KEY),
        prompt("@stand-in status=500"),
        prompt("@stand-in status=429 code=insufficient_quota"),
        prompt("@stand-in write=100 cut_after=2", stream=True),
        prompt("@stand-in write=100 cut_after=2"),
        {"model": "gpt-7"},
    ]
    replies = [gateway.chat(key, body) for body in bodies]
    return "\n".join(f"{reply.headers} {reply.text}" for reply in replies)


def test_no_key_is_to_be_found_anywhere_after_a_session_of_calls(gateway: RunningGateway) -> None:
    user, key = gateway.new_user()
    told = a_session_of_calls(gateway, key)
    assert gateway.chat(key, "Hello", {"Idempotency-Key": "kept"}).status == 200
    upstream = gateway.stand_in.last()
    assert upstream["headers"]["authorization"] == f"Bearer {UPSTREAM_KEY}"
    assert key not in json.dumps(upstream)
    gateway.ledger_rows(user, 6)
    places = {
        "answers": told,
        "log": gateway.stderr.read_text() + gateway.stdout.read_text(),
        "metrics": ask(f"{gateway.ops}/metrics").text,
        "admin": json.dumps(gateway.shown(user)),
        "redis": everything_in_redis(gateway),
        "postgres": everything_in_postgres(gateway),
        "command lines": "\n".join(processes_of(gateway.place).values()),
        "check-config": gateway.command("check-config", "--json").stdout,
    }
    # The search does find what is there.
    assert user in places["redis"]
    assert "Your words arrived" in places["redis"], "answers are kept there, so it was searched"
    assert user in places["postgres"]
    assert user in places["admin"]
    assert "gpt-4o-mini" in places["check-config"]
    assert files_with(gateway.state_dir, user)
    # Of a wrong key the upstream's own refusal shows the first eight characters.
    for secret in (UPSTREAM_KEY, WRONG_KEY, WRONG_KEY[:8], key):
        assert [name for name, text in places.items() if secret in text] == []
        assert files_with(gateway.state_dir, secret) == []
