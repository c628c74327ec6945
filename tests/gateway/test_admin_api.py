"""The admin API of a running gateway: what it changes, when that binds, and what it refuses."""

from __future__ import annotations

import gzip
import json
import uuid
from typing import Any

import pytest

from gateway.flow.operator_access import NOTED_MAX
from gateway.web.admin.route import BODY_BYTES_MAX
from tests.gateway.admin_port import AdminPort
from tests.gateway.loopback import send_raw
from tests.gateway.running_gateway import MakeGateway, RunningGateway

NOBODY = "00000000-0000-7000-8000-000000000000"


@pytest.fixture
def admin(gateway: RunningGateway) -> AdminPort:
    return AdminPort(gateway)


def new_id(kind: str = "user") -> str:
    return f"{kind}-{uuid.uuid4().hex[:12]}"


# --- who may ask ---------------------------------------------------------------------------


def test_every_route_refuses_whoever_may_not_ask_and_audits_it(start_gateway: MakeGateway) -> None:
    """From the description, which is made from the table of routes: none is left out."""
    own = start_gateway()
    admin = AdminPort(own)
    user, key = own.new_user()
    paths = admin.done("GET /openapi.json")["paths"]
    by_scope = {scope: admin.with_scopes(scope).token for scope in ("read", "write", "money")}
    asked = 0
    for path, methods in paths.items():
        real = path.replace("{user_id}", user).replace("{team_id}", user)
        real = real.replace("{key_id}", NOBODY).replace("{token_id}", NOBODY)
        for method, operation in methods.items():
            at = f"{method.upper()} {real.removeprefix('/admin/v1')}"
            needed = set(operation["security"][0]["token"])
            refusals = [("", 401), ("Bearer qa_" + "x" * 43, 401), (f"Bearer {key}", 401)]
            refusals += [(f"Basic {key}", 401)]
            refusals += [
                (f"Bearer {token}", 403) for scope, token in by_scope.items() if needed - {scope}
            ]
            for authorization, status in refusals:
                reply = admin.ask(at, authorization=authorization)
                assert reply.status == status, (at, authorization, reply.text)
                assert (reply.headers.get("www-authenticate") == "Bearer") is (status == 401)
                asked += 1
    assert asked > 100
    assert admin.done(f"GET /users/{user}")["state"] == "active"
    own.stop()
    own.start()
    lines = AdminPort(own).audit(what="refused")
    (counted,) = AdminPort(own).audit(what="refused_more")
    assert len(lines) == NOTED_MAX, "a flood fills no table"
    assert len(lines) + counted["detail"]["refusals"] == asked
    assert {line["who"] for line in lines} > {"nobody"}
    assert {"code", "method", "path", "peer"} == set(lines[0]["detail"])
    for secret in (key, *by_scope.values()):
        assert str(secret) not in json.dumps(lines)
    own.stop()


def test_a_token_gives_what_it_has_and_ends_at_once(admin: AdminPort) -> None:
    writer = admin.with_scopes("read", "write")
    beyond = writer.ask("POST /tokens", {"name": "more", "scopes": ["read", "money"]})
    assert beyond.code == (403, "scope_missing")
    made = writer.done("POST /tokens", {"name": "less", "scopes": ["read"]})
    reader = AdminPort(admin.gateway, made["token"])
    assert reader.ask("GET /plan").status == 200
    assert made["token"] not in json.dumps(reader.done("GET /tokens"))
    admin.done(f"DELETE /tokens/{made['token_id']}")
    assert reader.ask("GET /plan").code == (401, "invalid_token")
    again = admin.done(f"DELETE /tokens/{made['token_id']}")
    assert again["revoked_at"] is not None
    said = [line["what"] for line in admin.audit() if line["detail"].get("name") == "less"]
    assert said == ["revoke_token", "create_token"]
    assert admin.ask(f"DELETE /tokens/{NOBODY}").status == 404


# --- changes bind at the next call ---------------------------------------------------------


def test_each_change_binds_at_the_very_next_call(gateway: RunningGateway, admin: AdminPort) -> None:
    user, key = gateway.new_user("free", 100_000)
    assert gateway.chat(key, "Hello").code == (429, "insufficient_quota")
    changed = admin.done(f"PUT /users/{user}/tier", {"tier": "lite"})
    assert (changed["before"]["limit_tokens"], changed["limit_tokens"]) == (100_000, 1_000_000)
    assert changed["remaining_tokens"] == 900_000
    assert "the 100,000 used stay used, so 900,000 are left" in changed["now"]
    assert changed["next_period"].endswith("with 1,000,000 tokens.")
    assert gateway.chat(key, "Hello").status == 200

    blocked = admin.done(f"POST /users/{user}/block", {"reason": "unpaid"})
    assert (blocked["state"], blocked["block_reason"]) == ("blocked", "unpaid")
    assert gateway.chat(key, "Hello").status == 403
    admin.done(f"POST /users/{user}/unblock")
    assert gateway.chat(key, "Hello").status == 200

    made = admin.done(f"POST /users/{user}/keys")
    assert gateway.chat(made["key"], "Hello").status == 200
    assert admin.done(f"DELETE /keys/{made['key_id']}")["revoked"] is True
    assert gateway.chat(made["key"], "Hello").code == (401, "invalid_api_key")
    listed = {
        each["key_id"]: each["revoked_at"] for each in admin.done(f"GET /users/{user}/keys")["data"]
    }
    assert listed[made["key_id"]] is not None
    assert made["key"] not in json.dumps(listed)

    assert admin.done(f"DELETE /users/{user}")["state"] == "disabled"
    assert gateway.chat(key, "Hello").code == (401, "invalid_api_key")
    assert admin.ask(f"GET /users/{user}").status == 404
    admin.done(f"POST /users/{user}/unblock")
    assert gateway.chat(key, "Hello").status == 200


def test_a_team_spends_together_from_the_next_call_on(
    gateway: RunningGateway, admin: AdminPort
) -> None:
    user, key = gateway.new_user("free", 100_000)
    team = new_id("team")
    assert admin.done("POST /teams", {"team": team, "tier": "full"})["team"] is None
    joined = admin.done(f"PUT /teams/{team}/members/{user}")
    assert (joined["user"], joined["team"]) == (user, team)
    assert gateway.chat(key, "Hello").status == 200
    shown = admin.done(f"GET /users/{user}")
    assert (shown["team"], shown["tier"]) == (team, "full")
    assert shown["used_tokens"] == admin.done(f"GET /users/{team}")["used_tokens"] > 0
    assert [each["user"] for each in admin.done(f"GET /teams/{team}/members")["data"]] == [user]
    admin.done(f"DELETE /teams/{team}/members/{user}")
    assert gateway.chat(key, "Hello").status == 429
    assert admin.ask(f"DELETE /teams/{team}/members/{user}").status == 409
    assert admin.ask(f"PUT /teams/{user}/members/{user}").status == 404


def test_what_a_change_was_stands_in_the_audit_with_who_made_it(
    gateway: RunningGateway, admin: AdminPort
) -> None:
    user, _ = gateway.new_user("free")
    writer = admin.with_scopes("write")
    token_id = admin.done("GET /tokens")["data"][0]["token_id"]
    writer.done(f"PUT /users/{user}/tier", {"tier": "lite"})
    writer.done(f"PUT /users/{user}/period", {"billing_day": 15, "zone": "Europe/London"})
    writer.done(f"PUT /users/{user}/limits", {"tokens": 5, "rpm": None})
    gateway.cli("user", "set-tier", user, "full")
    by_what = {line["what"]: line for line in reversed(admin.audit(user=user))}
    assert by_what["set_tier"]["detail"] == {"tier": "full", "before": {"tier": "lite"}}
    assert by_what["set_tier"]["who"].startswith("cli:")
    assert by_what["set_limits"]["who"] == f"token:{token_id}"
    assert by_what["set_limits"]["detail"]["limits"] == {"tokens": 5, "rpm": None}
    assert by_what["set_limits"]["detail"]["before"] == {"limits": {}}
    assert by_what["set_calendar"]["detail"]["before"]["zone"] == "UTC"


# --- money ---------------------------------------------------------------------------------


def test_an_adjustment_is_booked_once_for_its_key_whatever_is_used_meanwhile(
    gateway: RunningGateway, admin: AdminPort
) -> None:
    user, key = gateway.new_user("free", 1_000)
    at, once = f"POST /users/{user}/adjustments", f"fix-{user}"
    assert admin.ask(at, {"tokens": 5, "reason": "x"}).code == (400, "idempotency_key_required")
    asked = {"used_tokens": 500, "reason": "a fault of ours"}
    first = admin.ask(at, asked, once)
    assert (first.status, first.json["used_tokens"]) == (200, 500)
    assert gateway.chat(key, "Hello").status == 200
    assert admin.ask(at, {"reason": "a fault of ours", "used_tokens": 500}, once).body == first.body
    other = admin.ask(at, {"used_tokens": 400, "reason": "a fault of ours"}, once)
    assert other.code == (409, "idempotency_key_reused")
    # Another token's keys are its own.
    assert admin.with_scopes("money").ask(at, {"tokens": 1, "reason": "x"}, once).status == 200
    rows = gateway.ledger_rows(user, 4)
    assert [row["charged_tokens"] for row in rows if row["reason"] == "a fault of ours"] == [-500]
    for wrong in ({"reason": "x"}, {"reason": "x", "tokens": 1, "used_tokens": 1}):
        assert admin.ask(at, wrong, new_id()).code == (400, "invalid_value")


def test_a_pack_is_credited_once_and_taken_back_and_both_bind_at_the_next_call(
    gateway: RunningGateway, admin: AdminPort
) -> None:
    user, key = gateway.new_user("full", 10**10)
    assert gateway.chat(key, "Hello").code == (429, "insufficient_quota")
    payment, at = f"inv-{user}", f"POST /users/{user}/packs"
    assert admin.ask(at, {"payment": payment}).code == (400, "idempotency_key_required")
    first = admin.ask(at, {"payment": payment, "packs": 2}, f"once-{user}")
    assert (first.status, first.json["state"], first.json["payer"]) == (200, "live", user)
    assert gateway.chat(key, "Hello").status == 200
    again = admin.ask(at, {"packs": 2, "payment": payment}, f"once-{user}")
    assert again.body == first.body, "word for word, whatever was spent meanwhile"
    reused = admin.ask(at, {"payment": f"{payment}-2"}, f"once-{user}")
    assert reused.code == (409, "idempotency_key_reused")
    (pack,) = admin.done(f"GET /users/{user}/packs")["packs"]
    assert pack["payment"] == payment
    taken = admin.done("POST /refunds", {"payment": payment, "reason": "charged back"}, new_id())
    assert (taken["state"], taken["left_tokens"]) == ("refunded", 0)
    assert gateway.chat(key, "Hello").code == (429, "insufficient_quota")
    said = {line["what"]: line["who"] for line in admin.audit(user=user)}
    assert said["credit_pack"] == "token:state"
    free, _ = gateway.new_user("free")
    refused = admin.ask(f"POST /users/{free}/packs", {"payment": f"inv-{free}"}, new_id())
    assert refused.code == (409, "not_offered")
    nothing = admin.ask("POST /refunds", {"payment": "nobody", "reason": "x"}, new_id())
    assert nothing.code == (404, "not_found")
    assert isinstance(admin.done("GET /payments/problems")["problems"], list)


# --- lists ---------------------------------------------------------------------------------


def test_lists_go_page_by_page_and_a_prefix_is_taken_as_it_is_written(admin: AdminPort) -> None:
    stem = f"p_{uuid.uuid4().hex[:8]}"
    names = [f"{stem}_{number}" for number in range(5)]
    for name in [*names, stem.replace("_", "x", 1)]:
        admin.done("POST /users", {"user": name})
    found, cursor = [], ""
    while True:
        page = admin.done(f"GET /users?limit=2&prefix={stem}{cursor}")
        found += [row["user"] for row in page["data"]]
        assert len(page["data"]) <= 2
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert found == names
    assert admin.done("GET /users?prefix=%25%25%25%25")["data"] == []
    for wrong in ("limit=0", "limit=201", "limit=x", "cursor=x", "surprise=1", "limit=1&limit=2"):
        assert admin.ask(f"GET /users?{wrong}").code == (400, "invalid_value"), wrong


def test_use_is_added_up_and_entries_are_listed(gateway: RunningGateway, admin: AdminPort) -> None:
    user, key = gateway.new_user("full", 70)
    for tag in ("a", "b", "a"):
        assert gateway.chat(key, "Hello", {"x-quota-tag": tag}).status == 200
    rows = gateway.ledger_rows(user, 4)
    charged = sum(row["charged_tokens"] for row in rows if row["kind"] == "usage")
    (period,) = admin.done(f"GET /users/{user}/usage")["data"]
    assert (period["calls"], period["charged_tokens"], period["adjusted_tokens"]) == (
        3,
        charged,
        70,
    )
    by_tag = admin.done(f"GET /users/{user}/usage?by=tag")["data"]
    assert [(row["name"], row["calls"]) for row in by_tag] == [("", 0), ("a", 2), ("b", 1)]
    first = admin.done(f"GET /users/{user}/usage?by=tag&limit=1")
    rest = admin.done(f"GET /users/{user}/usage?by=tag&cursor={first['next_cursor']}")
    assert [*first["data"], *rest["data"]] == by_tag
    newest = admin.done(f"GET /users/{user}/ledger?limit=3")
    oldest = admin.done(f"GET /users/{user}/ledger?cursor={newest['next_cursor']}")
    listed = [*newest["data"], *oldest["data"]]
    assert [row["event_id"] for row in listed] == [row["event_id"] for row in reversed(rows)]
    assert oldest["next_cursor"] is None


# --- what is not in order ------------------------------------------------------------------

TEXTS = ["'; DROP TABLE users; --", '"', "%%%%", "\\", "\0", "\ud800", "é" * 60, "x" * 2**20]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_every_text_field_takes_any_text_without_failing(
    gateway: RunningGateway, admin: AdminPort, text: str
) -> None:
    user = new_id()
    admin.done("POST /users", {"user": user})
    asked: list[tuple[str, Any]] = [
        ("POST /users", {"user": text}),
        ("POST /users", {"user": new_id(), "tier": text}),
        ("POST /users", {"user": new_id(), "zone": text}),
        ("POST /users", {"user": new_id(), "email": text}),
        (f"PUT /users/{user}/tier", {"tier": text}),
        (f"PUT /users/{user}/email", {"email": text}),
        (f"PUT /users/{user}/limits", {"models": [text]}),
        (f"PUT /users/{user}/limits", {"gbp": text}),
        ("POST /teams", {"team": text}),
        ("POST /imports", {"rows": [{"user": text, "email": text}]}),
    ]
    for at, body in asked:
        reply = admin.ask(at, body)
        assert reply.status in (200, 400, 409, 413), (at, reply.text[:300])
        assert len(reply.body) < 5_000 or reply.status < 300
    for at, body in [
        (f"POST /users/{user}/block", {"reason": text}),
        ("POST /tokens", {"name": text, "scopes": ["read"]}),
        (f"POST /users/{user}/adjustments", {"tokens": 1, "reason": text}),
    ]:
        reply = admin.ask(at, body, new_id())
        assert reply.status in (200, 201, 400, 413), (at, reply.text[:300])
    assert admin.ask(f"GET /users/{user}").status == 200


def test_what_is_not_named_is_refused_and_said_where(admin: AdminPort) -> None:
    """Mass assignment: nothing is set that the route does not name."""
    for at, body, param in [
        ("POST /users", {"user": new_id(), "payer": "rich"}, None),
        ("POST /users", {"user": new_id(), "rev": 99}, None),
        ("POST /tokens", {"name": "x", "scopes": ["read"], "token_id": "state"}, None),
        ("POST /tokens", {"name": "x", "scopes": ["everything"]}, "scopes[0]"),
        ("POST /imports", {"rows": [{"user": "a", "is_team": True}]}, "rows[0]"),
    ]:
        reply = admin.ask(at, body)
        assert reply.code == (400, "invalid_value"), reply.text
        assert reply.error.get("param") == param
    for raw, code in [(b"{", "invalid_json"), (b"\xff", "invalid_json"), (b"[]", "invalid_value")]:
        assert admin.ask("POST /users", raw).code == (400, code)
    packed = AdminPort(admin.gateway, headers={"Content-Encoding": "gzip"})
    for raw in (b"garbage", gzip.compress(b" " * 2**24)):
        assert packed.ask("POST /users", raw).code == (400, "invalid_json")
    cut_off = send_raw(
        f"{admin.gateway.admin}/", b"POST /admin/v1/users HTTP/1.1\r\nHost: x\r\nAuthorization: "
        b"Bearer x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    )  # fmt: skip
    assert cut_off.status in (400, 401)
    assert admin.ask("POST /users", b" " * (BODY_BYTES_MAX + 1)).code == (413, "body_too_large")
    assert admin.ask("POST /plan", {}).code == (405, "method_not_allowed")
    assert admin.ask("GET /nothing").code == (404, "route_not_found")
    assert admin.ask("POST /users", {"user": "a b"}).error["param"] == "user"
    assert admin.ask("POST /users", {"user": new_id(), "tier": "gold"}).error["param"] == "tier"
