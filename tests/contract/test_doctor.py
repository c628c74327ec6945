"""`doctor` on real stores: what it finds, what it advises, and that nothing stops it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
import redis
import yaml

from gateway.adapters.postgres.migrate import packaged_migrations
from gateway.cli.main import main

SHIPPED = Path(__file__).parents[2] / "config.yaml"
UPSTREAM_KEY, PASSWORD = "sk-of-the-doctors-tests", "pass-of-the-doctors-tests"
NOWHERE = "127.0.0.1:9"  # the discard port, which no machine of today opens
NEWEST = packaged_migrations()[-1].name
Found = dict[str, tuple[str, str, str]]
Asked = Callable[[Mapping[str, Any]], tuple[int, Found]]


@pytest.fixture
def doctor(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Asked:
    """Its exit code, and by check the state, what was found, and the advice."""
    for name in ("REDIS_URL", "DATABASE_URL", "QUOTA_PEPPER", "QUOTA_PUBLIC_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", UPSTREAM_KEY)

    def ask(changes: Mapping[str, Any]) -> tuple[int, Found]:
        document = yaml.safe_load(SHIPPED.read_text())
        own = {
            "state_dir": str(tmp_path / "state"),
            "listen": {"proxy": "127.0.0.1:8790", "ops": NOWHERE, "admin": "127.0.0.1:8792"},
            "identity": {"keys": {"pepper": "a-pepper-of-these-tests"}},
        }
        file = tmp_path / "config.yaml"
        file.write_text(yaml.safe_dump({**document, **own, **changes}))
        code = main(["doctor", "--config", str(file), "--json"])
        printed = capsys.readouterr().out
        assert UPSTREAM_KEY not in printed
        assert PASSWORD not in printed
        said = json.loads(printed)
        assert (code == 1) == (said["state"] == "wrong")
        return code, {
            each["check"]: (each["state"], each["found"], each["advice"] or "")
            for each in said["findings"]
        }

    return ask


def run(url: str, *statements: str) -> None:
    async def execute() -> None:
        connection = await asyncpg.connect(url)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(execute())


def test_good_stores_are_found_good_and_warnings_fail_nothing(
    doctor: Asked, redis_url: str, ledger_url: str
) -> None:
    run(ledger_url, "SELECT prepare_ledger_partitions(now())")
    code, found = doctor({"redis": {"url": redis_url}, "ledger": {"url": ledger_url}})
    assert code == 0
    states = {check: state for check, (state, _, _) in found.items()}
    for check in ("configuration", "state_dir", "redis clock", "postgres", "postgres clock"):
        assert states[check] == "ok", found[check]
    for check in ("postgres schema", "postgres partitions", "upstreams.openai", "prices", "pepper"):
        assert states[check] == "ok", found[check]
    assert found["postgres schema"][1] == f"at {NEWEST}"
    assert "postgres privileges" not in found
    assert states["mail"] == states["public_url"] == states["processes"] == "warning"
    assert "appendonly" in found["redis"][2] or states["redis"] == "ok"


def test_what_is_not_there_is_told_and_stops_nothing(doctor: Asked) -> None:
    code, found = doctor(
        {
            "redis": {"url": f"redis://:{PASSWORD}@{NOWHERE}/0"},
            "ledger": {"url": f"postgresql://me:{PASSWORD}@{NOWHERE}/quota"},
            "notify": {"smtp": {"host": "127.0.0.1", "port": 9, "from": "q@example.org"}},
        }
    )
    assert code == 1
    for check, key in (("redis", "redis.url"), ("postgres", "ledger.url")):
        state, text, advice = found[check]
        assert (state, NOWHERE in text) == ("wrong", True)
        assert key in advice
    assert found["mail"][:1] == ("wrong",)
    assert found["processes"][0] == "warning"
    assert found["prices"][0] == "ok"


def test_a_redis_that_evicts_is_wrong(doctor: Asked, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            code, found = doctor({"redis": {"url": redis_url}})
        finally:
            client.config_set("maxmemory-policy", "noeviction")
    assert (code, found["redis"][0]) == (1, "wrong")
    assert "Set it to noeviction" in found["redis"][1]


def test_a_database_without_a_schema_is_to_be_migrated(doctor: Asked, postgres_url: str) -> None:
    code, found = doctor({"ledger": {"url": postgres_url}})
    state, text, advice = found["postgres schema"]
    assert (code, state) == (0, "warning")
    assert "empty" in text
    assert "quota-gateway migrate" in advice


def test_the_ledger_is_looked_through(doctor: Asked, ledger_url: str) -> None:
    """What waits, was sent and was given up; events not booked; a login that may too little."""
    run(
        ledger_url,
        "INSERT INTO users (user_id, payer, tier, anchor_day, zone) "
        "VALUES ('ann', 'ann', 'free', 1, 'UTC')",
        "INSERT INTO notifications (user_id, payer, period, kind, at) "
        "VALUES ('ann', 'ann', now(), 'exhausted', now())",
        "INSERT INTO deliveries (notification_id, channel, address, state, sent_at) "
        "SELECT notification_id, 'email', address, state, sent FROM notifications, (VALUES "
        "('a@example.org', 'sent', timestamptz '2026-11-03T04:05:06Z'), "
        "('b@example.org', 'dead', NULL), ('c@example.org', 'pending', NULL)) "
        "AS made (address, state, sent)",
        "DROP ROLE IF EXISTS doctors_reader",
        "CREATE ROLE doctors_reader LOGIN",
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO doctors_reader",
    )
    parts = urlsplit(ledger_url)
    reader = parts._replace(netloc=f"doctors_reader@{parts.netloc.rpartition('@')[2]}").geturl()
    try:
        code, found = doctor(
            {
                "ledger": {"url": reader},
                "notify": {"smtp": {"host": "127.0.0.1", "port": 9, "from": "q@example.org"}},
            }
        )
    finally:
        run(ledger_url, "DROP OWNED BY doctors_reader", "DROP ROLE doctors_reader")
    assert (code, found["postgres privileges"][0]) == (1, "wrong")
    lacking = found["postgres privileges"][1]
    assert "INSERT on ledger" in lacking
    assert "ownership of ledger" in lacking
    assert "SELECT on ledger" not in lacking
    assert "exhausted at 2026-11-03 04:05:06 UTC; waiting 1, given up 1" in found["mail"][1]


def test_a_configuration_that_is_not_in_order_is_all_there_is_to_say(doctor: Asked) -> None:
    code, found = doctor({"version": 7})
    assert code == 1
    assert list(found) == ["configuration"]
    assert found["configuration"][0] == "wrong"
