"""Usage from elsewhere, reported to a running gateway: counted once, within limits, for oneself."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.core.elsewhere import event_id_of
from tests.gateway.loopback import ask
from tests.gateway.quota_calls import post, report, service_key
from tests.gateway.running_gateway import MODEL, RunningGateway

OTHER = {"model": MODEL, "total_tokens": 101}


@pytest.fixture(scope="module")
def service(gateway: RunningGateway) -> str:
    return service_key(gateway)


def test_it_counts_like_a_call_and_stands_in_the_ledger(gateway: RunningGateway) -> None:
    user, key = gateway.new_user("lite")
    reply = report(
        gateway, key, id="quiz 7/3", prompt_tokens=400, cached_tokens=100, output_tokens=50,
        tag="quiz",
    )  # fmt: skip
    assert reply.status == 200, reply
    told = reply.json
    assert (told["object"], told["id"], told["user"]) == ("quota.usage", "quiz 7/3", user)
    assert (told["decision"], told["charged_tokens"]) == ("admitted", 450)
    assert (told["quality"], told["cost_source"]) == ("measured", "price_list")
    assert (told["quota"]["used_tokens"], told["quota"]["held_tokens"]) == (450, 0)
    assert told["quota"]["limit"] is None
    assert told["quota"]["upgrade"]["tier"] == "full"
    assert reply.headers["x-quota-charged-tokens"] == "450"
    assert reply.headers["cache-control"] == "no-store"
    shown = gateway.shown(user)
    assert (shown["used_tokens"], shown["held_tokens"], shown["open_holds"]) == (450, 0, 0)
    (row,) = gateway.ledger_rows(user)
    assert row["event_id"] == told["event_id"] == event_id_of(user, "quiz 7/3")
    assert (row["route"], row["outcome"], row["tag"]) == ("quota_usage", "recorded", "quiz")
    assert (row["prompt_tokens"], row["cached_tokens"], row["output_tokens"]) == (400, 100, 50)
    assert (row["client_id"], row["price_id"]) == ("quiz 7/3", told["price_id"])
    assert f"{row['cost_nano_gbp'] / 1e9:.9f}" == told["cost_gbp"] != "0.000000000"


def test_the_same_again_is_answered_the_same_and_counts_once(gateway: RunningGateway) -> None:
    user, key = gateway.new_user()
    first = report(gateway, key, id="once")
    report(gateway, key, total_tokens=50)
    again = report(gateway, key, id="once")
    assert again.json == first.json, "also where the quota has moved on"
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["x-quota-charged-tokens"] == "0"
    for changes in ({"total_tokens": 101}, {"model": "gpt-4o"}, {"tag": "x"}):
        other = report(gateway, key, id="once", **changes)
        assert other.code == (409, "idempotency_key_reused")
        assert (other.error["param"], other.headers["x-should-retry"]) == ("id", "false")
    assert gateway.shown(user)["used_tokens"] == 150
    gateway.ledger_rows(user, 2)
    _, stranger = gateway.new_user()
    assert report(gateway, stranger, id="once", total_tokens=7).status == 200


def test_what_does_not_fit_is_refused_like_a_call_and_not_booked(gateway: RunningGateway) -> None:
    user, key = gateway.new_user("free", 99_950)
    refused = report(gateway, key, id="late")
    assert refused.code == (429, "insufficient_quota")
    assert refused.headers["x-should-retry"] == "false"
    quota = refused.error["quota"]
    assert (quota["limit"], quota["needed_tokens"], quota["used_tokens"]) == ("month", 100, 99_950)
    assert quota["upgrade"]["tier"] == "lite"
    assert report(gateway, key, id="late", total_tokens=50).status == 200, "a refusal binds no id"
    assert gateway.shown(user)["used_tokens"] == 100_000
    assert report(gateway, key, total_tokens=100_001).code == (400, "request_exceeds_quota")
    assert len(gateway.ledger_rows(user, 2)) == 2


def test_what_is_spent_already_is_booked_as_overdraft(
    gateway: RunningGateway, service: str
) -> None:
    user, _ = gateway.new_user("free", 99_950)
    forced = report(gateway, service, user=user, id="spent", already_spent=True)
    assert forced.status == 200, forced
    assert forced.json["decision"] == "forced"
    assert forced.json["quota"]["used_tokens"] == 100_050
    assert forced.json["quota"]["remaining_tokens"] == 0
    for _ in range(2):
        again = report(gateway, service, user=user, id="spent", already_spent=True)
        assert again.json == forced.json
    assert gateway.shown(user)["used_tokens"] == 100_050
    unknown = report(gateway, service, user=user, model="of-nobody", already_spent=True)
    assert (unknown.status, unknown.json["decision"]) == (200, "forced")
    assert {row["model"] for row in gateway.ledger_rows(user, 3)} == {None, MODEL, "of-nobody"}


def test_the_cost_that_a_service_states_is_booked_and_marked(
    gateway: RunningGateway, service: str
) -> None:
    user, _ = gateway.new_user()
    for cost, nano in (("0.012345678", 12_345_678), (0.1, 100_000_000), ("0.0000000005", 1)):
        told = report(gateway, service, user=user, cost_gbp=cost, total_tokens=10).json
        assert told["cost_source"] == told["price_id"].replace("stated", "caller") == "caller"
        assert told["cost_gbp"] == f"{nano / 1e9:.9f}"
    told = report(gateway, service, user=user, total_tokens=10).json
    assert (told["cost_source"], told["quality"]) == ("price_list", "estimated")
    rows = gateway.ledger_rows(user, 4)
    assert [row["price_id"] for row in rows].count("stated") == 3
    spent = sum(row["cost_nano_gbp"] for row in rows)
    assert gateway.shown(user)["cost_gbp"] == f"{spent / 1e9:.9f}"


def test_a_user_speaks_for_itself_only(gateway: RunningGateway, service: str) -> None:
    user, key = gateway.new_user()
    other, _ = gateway.new_user()
    for path, body in (
        ("usage", {"id": "1", **OTHER, "user": other}),
        ("check", {"model": MODEL, "tokens": 1, "user": other}),
        ("usage", {"id": "1", **OTHER, "cost_gbp": "0"}),
        ("usage", {"id": "1", **OTHER, "already_spent": True}),
    ):
        refused = post(gateway, path, key, body)
        assert refused.code == (403, "key_not_allowed"), body
    assert post(gateway, "usage", key, {"id": "1", **OTHER, "user": user}).status == 200
    assert gateway.shown(other)["used_tokens"] == 0
    nobody = report(gateway, service, user="nobody-here")
    assert (nobody.code, nobody.error["param"]) == ((404, "user_unknown"), "user")
    assert report(gateway, service).error["param"] == "user"


@pytest.mark.parametrize("key", ["", "qg_forged", "sk-openai"])
def test_without_a_key_of_ours_it_is_401(gateway: RunningGateway, key: str) -> None:
    for path in ("usage", "check"):
        assert post(gateway, path, key, b"\xff").code == (401, "invalid_api_key")
    headers = {"Authorization": f"Bearer {key}"}
    for path in ("/quota/v1/status", "/v1/models"):
        assert ask(gateway.proxy + path, headers=headers).code == (401, "invalid_api_key")


def test_a_service_key_makes_no_calls(gateway: RunningGateway, service: str) -> None:
    assert gateway.chat(service, "Hi").code == (403, "key_not_allowed")
    headers = {"Authorization": f"Bearer {service}"}
    assert ask(f"{gateway.proxy}/v1/models", headers=headers).code == (403, "key_not_allowed")


def test_a_revoked_service_key_and_a_blocked_user_bind_at_the_next_report(
    gateway: RunningGateway, service: str
) -> None:
    user, key = gateway.new_user()
    owner, _ = gateway.new_user()
    made = gateway.cli("key", "create", owner, "--service")
    assert made["service"] is True
    assert report(gateway, made["key"], user=user).status == 200
    gateway.cli("key", "revoke", made["key_id"])
    assert report(gateway, made["key"], user=user).code == (401, "invalid_api_key")
    assert report(gateway, service, user=user).status == 200
    gateway.in_stores(lambda stores: stores.people(gateway.settings).set_state(user, "blocked", ""))
    for sender, fields in ((service, {"user": user}), (key, {})):
        assert report(gateway, sender, **fields).code == (403, "user_blocked")
    forced = report(gateway, service, user=user, already_spent=True)
    assert forced.status == 200, "what is spent is recorded"
    assert gateway.shown(user)["used_tokens"] == 300


@pytest.mark.parametrize(
    ("changes", "code", "param"),
    [
        ({"total_tokens": -1}, "invalid_value", "total_tokens"),
        ({"total_tokens": 10**9 + 1}, "invalid_value", "total_tokens"),
        ({"total_tokens": 1.5}, "invalid_value", "total_tokens"),
        ({"total_tokens": True}, "invalid_value", "total_tokens"),
        ({"total_tokens": 0}, "invalid_value", "total_tokens"),
        ({"prompt_tokens": 1, "output_tokens": 1, "total_tokens": 2}, "invalid_value", None),
        ({"prompt_tokens": 1}, "invalid_value", "output_tokens"),
        ({"output_tokens": 1}, "invalid_value", "prompt_tokens"),
        ({"prompt_tokens": 1, "cached_tokens": 2, "output_tokens": 0}, "invalid_value", None),
        ({"id": ""}, "invalid_value", "id"),
        ({"id": "a\nb"}, "invalid_value", "id"),
        ({"id": "a\n"}, "invalid_value", "id"),
        ({"id": "é"}, "invalid_value", "id"),
        ({"id": "x" * 129}, "invalid_value", "id"),
        ({"id": None}, "invalid_value", "id"),
        ({"model": "a b"}, "invalid_value", "model"),
        ({"model": "gpt-4o-mini\n"}, "invalid_value", "model"),
        ({"tag": "a\u0000"}, "invalid_value", "tag"),
        ({"tag": ""}, "invalid_value", "tag"),
        ({"user": "../etc"}, "invalid_value", "user"),
        ({"tokens": 3}, "unsupported_parameter", "tokens"),
        ({"at": "2026-11-23T00:00:00"}, "invalid_value", "at"),
        ({"at": "1999-01-01T00:00:00Z"}, "invalid_value", "at"),
        ({"at": "9999-12-31T23:59:59-23:59"}, "invalid_value", "at"),
        ({"at": "0001-01-01T00:00:00+23:59"}, "invalid_value", "at"),
    ],
    ids=repr,
)
def test_what_is_no_report_is_refused_with_the_name_of_the_field(
    gateway: RunningGateway, changes: dict[str, Any], code: str, param: str | None
) -> None:
    user, key = gateway.new_user()
    body = {"id": "x", "model": MODEL, "total_tokens": 1, **changes}
    if {"prompt_tokens", "output_tokens"} & changes.keys() and "total_tokens" not in changes:
        del body["total_tokens"]
    refused = post(gateway, "usage", key, body)
    assert refused.code == (400, code), refused
    assert refused.error["param"] == (param or refused.error["param"])
    assert refused.error["type"] == "invalid_request_error"
    assert gateway.shown(user)["used_tokens"] == 0


@pytest.mark.parametrize("cost", ["NaN", "-1", "1e9", "1e999999999", "x", "", [], "Infinity"])
def test_a_cost_that_is_none_is_refused(gateway: RunningGateway, service: str, cost: Any) -> None:
    refused = report(gateway, service, user="anybody", cost_gbp=cost)
    assert refused.status in (400, 404)
    user, _ = gateway.new_user()
    refused = report(gateway, service, user=user, cost_gbp=cost)
    assert (refused.status, refused.error["param"]) == (400, "cost_gbp")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'"x"', b"null", b"[" * 5000])
def test_what_is_no_json_object_is_refused(gateway: RunningGateway, body: bytes) -> None:
    _, key = gateway.new_user()
    assert post(gateway, "usage", key, body).status == 400
    assert post(gateway, "usage", key, b"{" + b" " * 70_000).code == (413, "request_too_large")


def test_other_paths_and_methods_are_no_routes(gateway: RunningGateway) -> None:
    _, key = gateway.new_user()
    for path in ("", "usage/", "Usage", "%75sage", "usage/x", "../v1/usage", "openapi"):
        refused = post(gateway, path, key, {})
        assert refused.code == (404, "route_not_available"), path
    assert ask(f"{gateway.proxy}/quota/v1/usage").code == (404, "route_not_available")
    assert "POST /quota/v1/usage" in refused.error["message"]


def test_the_price_list_of_the_day_on_which_it_was_used(gateway: RunningGateway) -> None:
    _, key = gateway.new_user()
    at = datetime.now(UTC) - timedelta(days=20)
    told = report(gateway, key, at=at.isoformat()).json
    assert told["price_id"] == gateway.settings.prices.price_for(MODEL, int(at.timestamp())).id


def test_every_outcome_is_counted_by_route(gateway: RunningGateway, service: str) -> None:
    def counted(**labels: str) -> float:
        return gateway.metric("decisions_total", route="quota_usage", tier="full", **labels)

    user, key = gateway.new_user("full")
    gateway.new_user("full")
    seen = [("admitted", "ok"), ("admitted", "replayed"), ("refused", "model_not_allowed"),
            ("admitted", "forced")]  # fmt: skip
    before = [counted(decision=decision, reason=reason) for decision, reason in seen]
    one = uuid.uuid4().hex
    for _ in range(2):
        report(gateway, key, id=one)
    report(gateway, key, model="of-nobody")
    report(gateway, service, user=user, model="of-nobody", already_spent=True)
    after = [counted(decision=decision, reason=reason) for decision, reason in seen]
    assert [now - then for now, then in zip(after, before, strict=True)] == [1, 1, 1, 1]
