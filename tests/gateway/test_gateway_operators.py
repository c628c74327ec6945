"""What operators and finance look at: metrics, health, the admin port, export and comparison."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest
import redis

from gateway.adapters.embedded import redis_url
from gateway.adapters.redis_store.keys import account_keys
from gateway.app.secrets_of_state import admin_token_of
from tests.gateway.loopback import ask
from tests.gateway.running_gateway import MODEL, RunningGateway, prompt
from tests.gateway.standin_process import StandInProcess
from tests.lua.account_fields import fields_of, with_changes

# The names of the design's list whose subjects exist, as Prometheus shows them.
METRICS = {
    *("decisions_total", "tokens_total", "cost_gbp_total", "hold_endings_total", "unpriced_total"),
    *("tier_used_tokens", "holds_open", "outbox_events", "outbox_age_seconds", "epoch"),
    *("added_seconds", "upstream_first_byte_seconds", "redis_call_seconds", "estimate_ratio"),
    *("ledger_rows_total", "ledger_lag_seconds", "ledger_dead_total", "hydrations_total"),
    "loop_lag_seconds",
}


def test_the_metrics_are_there_and_name_no_user_and_no_key(gateway: RunningGateway) -> None:
    user, key = gateway.new_user("lite", 7)
    assert gateway.chat(key, "Hello").status == 200
    reply = ask(f"{gateway.ops}/metrics")
    assert reply.status == 200
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = re.findall(r"^# TYPE quota_gateway_(\w+) ", reply.text, re.MULTILINE)
    assert set(families) >= METRICS
    assert len(families) == len(set(families))
    assert user not in reply.text
    assert key not in reply.text


def test_a_call_moves_exactly_its_own_counters(gateway: RunningGateway) -> None:
    def counted() -> list[float]:
        names = [("prompt", 0), ("output", 0), ("charged", 0)]
        tokens = [
            gateway.metric("tokens_total", tier="full", model=MODEL, kind=kind) for kind, _ in names
        ]
        decided = gateway.metric(
            "decisions_total", tier="full", route="chat", decision="admitted", reason="ok"
        )
        return [decided, *tokens, gateway.metric("cost_gbp_total", tier="full", model=MODEL)]

    _, key = gateway.new_user("full")
    before = counted()
    usage = gateway.chat(key, "Hello").json["usage"]
    moved = [now - then for now, then in zip(counted(), before, strict=True)]
    prompt_tokens, output_tokens = usage["prompt_tokens"], usage["completion_tokens"]
    assert moved[:4] == [1, prompt_tokens, output_tokens, prompt_tokens + output_tokens]
    pounds = (prompt_tokens * 0.15 + output_tokens * 0.60) * 0.79 / 1e6
    assert moved[4] == pytest.approx(pounds, rel=1e-3)


def test_an_unknown_model_is_no_label(gateway: RunningGateway) -> None:
    _, key = gateway.new_user()
    gateway.chat(key, prompt("Hello", model="surprise-model"))
    assert "surprise" not in ask(f"{gateway.ops}/metrics").text


def test_the_doctor_finds_nothing_wrong_with_a_running_gateway(gateway: RunningGateway) -> None:
    said = gateway.cli("doctor")
    found = {each["check"]: (each["state"], each["found"]) for each in said["findings"]}
    assert said["state"] != "wrong", found
    assert found["processes"] == ("ok", "ready: proxy-1, jobs")
    assert found["postgres partitions"][0] == "ok"
    assert found["redis"][0] == "ok"


def test_health_and_readiness_say_what_they_checked(gateway: RunningGateway) -> None:
    health = ask(f"{gateway.ops}/healthz")
    assert (health.status, health.json["status"]) == (200, "ok")
    ready = ask(f"{gateway.ops}/readyz")
    assert ready.status == 200
    sending = ready.json.pop("about")["sending"]
    assert ready.json == {"status": "ok", "checks": {"proxy-1": "ok", "jobs": "ok"}}
    assert (sending["smtp"], sending["ways"]) == (False, []), "nobody is told"
    assert ask(f"{gateway.ops}/healthz").headers["server"] == "quota-gateway"
    for path in ("/", "/v1/models", "/admin/v1/users/ann"):
        assert ask(f"{gateway.ops}{path}").status == 404


def test_the_admin_port_shows_a_user_to_who_has_the_token(gateway: RunningGateway) -> None:
    user, key = gateway.new_user("free", 99_000)
    url = f"{gateway.admin}/admin/v1/users/{user}"
    for wrong in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Bearer {key}"}):
        reply = ask(url, headers=wrong)
        assert reply.status == 401
        assert user not in reply.text
        assert "Bearer" in reply.error["message"]
    token = {"Authorization": f"Bearer {admin_token_of(gateway.settings)}"}
    assert ask(url, headers=token).json == gateway.cli("user", "show", user)
    assert gateway.shown(user)["remaining_tokens"] == 1000
    for nobody in ("nobody-there", "..%2f..", "a%00b"):
        reply = ask(f"{gateway.admin}/admin/v1/users/{nobody}", headers=token)
        assert reply.status == 404
        assert reply.error["message"]
    assert ask(f"{gateway.admin}/admin/v1/nothing", headers=token).status == 404
    for secret in ("admin-token", "pepper"):
        assert (gateway.state_dir / secret).stat().st_mode & 0o077 == 0


def test_both_formats_of_the_export_say_the_same(gateway: RunningGateway) -> None:
    user, key = gateway.new_user("free", 50_000)
    gateway.chat(key, "Hello", {"x-quota-tag": "quiz, with a comma"})
    gateway.chat(key, prompt("Hello", stream=True))
    wanted = gateway.ledger_rows(user, 3)
    export = ("ledger", "export", "--user", user, "--format")
    ndjson, table = (gateway.command(*export, name) for name in ("ndjson", "csv"))
    assert (ndjson.returncode, table.returncode) == (0, 0)
    rows = [json.loads(line) for line in ndjson.stdout.splitlines()]
    assert rows == wanted
    cells = list(csv.DictReader(io.StringIO(table.stdout)))
    as_text = [{k: "" if v is None else str(v) for k, v in row.items()} for row in rows]
    assert cells == as_text
    after = gateway.command(*export, "ndjson", "--after", rows[0]["event_id"])
    assert [json.loads(line) for line in after.stdout.splitlines()] == rows[1:]


def test_verify_is_content_until_a_difference_is_planted_and_then_names_it(
    gateway: RunningGateway,
) -> None:
    user, key = gateway.new_user("lite", 5)
    other, _ = gateway.new_user("lite", 5)
    assert gateway.chat(key, "Hello").status == 200
    words = ("ledger", "verify", "--upstream", gateway.stand_in.url, "--wait", "1")
    clean = gateway.command(*words)
    assert clean.returncode == 0, clean.stdout
    assert "no difference" in clean.stdout
    account = account_keys(user, gateway.settings.redis.shards).account
    with redis.Redis.from_url(redis_url(gateway.state_dir)) as client:
        before = client.hgetall(account)
        settled = int(fields_of(before)["s"])
        client.hset(account, mapping=with_changes(before, {"s": settled + 7}))
        try:
            told = gateway.command(*words)
            data = json.loads(gateway.command(*words, "--json").stdout)
        finally:
            client.hset(account, mapping=before)
    assert told.returncode == 1
    assert "they differ" in told.stdout
    assert "+7" in told.stdout
    assert data["agrees"] is False
    off = {line["user"]: line["redis_off"] for line in data["lines"]}
    assert (off[user], off[other]) == (7, 0)


def test_verify_finds_a_call_that_the_ledger_does_not_have(
    gateway: RunningGateway, other_stand_in: StandInProcess
) -> None:
    other_stand_in.reset()
    other_stand_in.add_call_of_nobody()
    told = gateway.command("ledger", "verify", "--upstream", other_stand_in.url)
    assert told.returncode == 1
    assert "1 calls were served and are in no row" in told.stdout


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("user", "show", "nobody-there"), "there is no user 'nobody-there'"),
        (("user", "create", "bad id"), "user id 'bad id': expected"),
        (("user", "create", "new-user", "--tier", "gold"), "expected one of free, lite, full"),
        (("key", "revoke", "not-a-key"), "not-a-key"),
    ],
)
def test_a_command_that_fails_says_why_in_one_line(
    gateway: RunningGateway, words: tuple[str, ...], reason: str
) -> None:
    done = gateway.command(*words)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("quota-gateway: ")
    assert reason in done.stderr
    assert len(done.stderr.splitlines()) == 1
