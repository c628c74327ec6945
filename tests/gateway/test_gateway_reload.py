"""SIGHUP under load: one gateway, whose configuration changes while streams and connections go on.

The tests stand in the order of its life and share it: each leaves the configuration in force.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from tests.gateway.loopback import ask
from tests.gateway.running_gateway import RunningGateway, merged, prompt, running_gateway
from tests.gateway.standin_process import StandInProcess
from tests.gateway.waiting_for import until

NAMES = {"proxy-1", "proxy-2", "jobs"}
USED, LESS = 5_000, 3_000
CHUNKS = 40


@pytest.fixture(scope="module")
def own(other_stand_in: StandInProcess) -> Iterator[RunningGateway]:
    with running_gateway(other_stand_in, {"workers": 2}) as running:
        yield running


def change(gateway: RunningGateway, changes: Mapping[str, Any]) -> str:
    """Lay these over the file; the text that it had."""
    before = gateway.config.read_text()
    new = merged(yaml.safe_load(before), changes)
    gateway.config.write_text(yaml.safe_dump(new, sort_keys=False))
    return before


def reload(gateway: RunningGateway, result: str) -> None:
    """SIGHUP, until it has ended so."""
    before = gateway.metric("config_reloads_total", result=result)
    os.kill(gateway.pid, signal.SIGHUP)

    def ended() -> bool:
        return gateway.metric("config_reloads_total", result=result) == before + 1

    until(ended, 30, f"a reload to be {result}: {gateway.stderr.read_text()[-2000:]}")


def versions(gateway: RunningGateway) -> dict[str, str]:
    said = ask(f"{gateway.ops}/configuration").json
    return {name: each["version"] for name, each in said.items() if each is not None}


class Client:
    """One connection, which is kept."""

    def __init__(self, gateway: RunningGateway, key: str) -> None:
        self._key = key
        self._connection = http.client.HTTPConnection(urlsplit(gateway.proxy).netloc, timeout=30)
        self._connection.connect()
        self._socket = self._connection.sock

    def ask(self, body: Mapping[str, Any]) -> http.client.HTTPResponse:
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        self._connection.request("POST", "/v1/chat/completions", json.dumps(body).encode(), headers)
        return self._connection.getresponse()

    def call(self, body: Mapping[str, Any]) -> tuple[int, Any]:
        response = self.ask(body)
        status, said = response.status, json.loads(response.read())
        assert self._connection.sock is self._socket, "the connection was closed"
        return status, said

    def close(self) -> None:
        self._connection.close()


def test_new_settings_bind_the_next_call_and_leave_what_runs_alone(own: RunningGateway) -> None:
    user, key = own.new_user(used=USED)
    others = own.new_user("full")[1]
    before = own.metric("decisions_total", decision="admitted")
    with closing(Client(own, key)) as streaming, closing(Client(own, key)) as kept:
        assert kept.call(prompt("Hello"))[0] == 200
        words = f"@stand-in write={CHUNKS * 4} hold=reload hold_after=5"
        stream = streaming.ask(prompt(words, stream=True))
        own.stand_in.await_held("reload")
        new_model = {**yaml.safe_load(own.config.read_text())["models"]["gpt-4o-mini"]}
        upstream = {"base_url": own.stand_in.url, "api_key": "${NEW_KEY:-of-nobody}"}
        old = change(
            own,
            {
                "plan": {"tiers": {"free": {"tokens": LESS}}},
                "models": {"brand-new": {**new_model, "upstream": "new"}},
                "upstreams": {"new": upstream},
            },
        )
        said = own.command("check-config", "--diff")
        assert said.returncode == 0, said.stderr
        assert f"plan.tiers.free.tokens: 100,000 → {LESS:,}" in said.stdout
        assert "of-nobody" not in said.stdout
        old_version = own.settings.version
        assert versions(own) == dict.fromkeys(NAMES, old_version)
        reload(own, "ok")
        assert yaml.safe_load(old) != yaml.safe_load(own.config.read_text())
        (new_version,) = set(versions(own).values())
        assert new_version != old_version

        status, said = kept.call(prompt("Hello"))
        assert (status, said["error"]["code"]) == (429, "insufficient_quota")
        assert said["error"]["quota"]["limit_tokens"] == LESS

        own.stand_in.release("reload")
        lines = stream.read().decode().splitlines()
        assert lines[-2:] == ["data: [DONE]", ""] or "data: [DONE]" in lines
        assert sum('"content"' in line for line in lines) >= CHUNKS
    assert len(own.ledger_rows(user, 3)) == 3  # what was set, the call, the stream
    # The new upstream is asked, with its own key, which nobody there knows.
    assert own.chat(others, prompt("Hello", model="brand-new")).code == (
        502,
        "upstream_auth_failed",
    )
    assert own.metric("decisions_total", decision="admitted") == before + 3
    token = (own.state_dir / "admin-token").read_text()
    plan = ask(f"{own.admin}/admin/v1/plan", headers={"Authorization": f"Bearer {token}"}).json
    assert [tier["tokens"] for tier in plan["tiers"] if tier["tier"] == "free"] == [LESS]


@pytest.mark.parametrize(
    ("changes", "told", "code"),
    [
        ({"plan": {"tiers": {"free": {"tokens": "many"}}}}, "plan.tiers.free.tokens: expected", 2),
        ({"redis": {"shards": 32}, "workers": 3}, "restart to change workers, redis.shards", 3),
    ],
)
def test_what_cannot_be_taken_is_refused_as_a_whole(
    own: RunningGateway, changes: dict[str, Any], told: str, code: int
) -> None:
    before = versions(own)
    old = change(own, {**changes, "log": {"decisions": "all"}})
    try:
        new = own.place / "new.yaml"
        new.write_text(own.config.read_text())
        reload(own, "refused")
    finally:
        own.config.write_text(old)
    assert told in own.stderr.read_text()
    assert versions(own) == before
    assert own.command("check-config", "--diff", str(new)).returncode == code


def test_a_worker_that_dies_comes_back_with_the_version_in_force(own: RunningGateway) -> None:
    change(own, {"plan": {"tiers": {"free": {"tokens": LESS - 1}}}})
    reload(own, "ok")
    (version,) = set(versions(own).values())
    counted = own.metric("decisions_total")
    first = own.child("proxy-1")
    os.kill(first, signal.SIGKILL)
    until(lambda: ask(f"{own.ops}/readyz").status == 503, 30, "the death to be seen")
    until(lambda: ask(f"{own.ops}/readyz").status == 200, 30, "all to be ready again")
    assert own.child("proxy-1") != first
    assert versions(own) == dict.fromkeys(NAMES, version)
    assert own.metric("decisions_total") >= counted
    key = own.new_user(used=USED)[1]
    for _ in range(6):  # whichever worker it meets
        assert own.chat(key, "Hello").error["quota"]["limit_tokens"] == LESS - 1
