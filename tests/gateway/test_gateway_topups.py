"""Packs, from the refusal that offers one to the end of it: OpenAI's SDK in front, Stripe behind.

Stripe is a server on loopback that behaves like it; events are signed by Stripe's own library.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import signal
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import asyncpg
import openai
import pytest

from gateway.app.embedded import ledger_url_of, redis_url_of
from tests.frozen_redis import redis_pid
from tests.gateway.loopback import Reply, ask
from tests.gateway.running_gateway import MODEL, RunningGateway
from tests.gateway.waiting_for import until
from tests.stripe_api import (
    SECRET_KEY,
    WEBHOOK_SECRET,
    Json,
    StripeApi,
    charge,
    event,
    paid,
    signature,
)

LIMIT, PACK, ORDER = 1_602_000, 320_000, "quota_gateway_order"
COMPLETED, SUCCEEDED = (
    "checkout.session.completed",
    "checkout.session.async_payment_succeeded",
)
PLANS = "https://app.test/plans"
WAIT_S = 20.0


def buy(gateway: RunningGateway, key: str, body: bytes | None = None) -> Reply:
    """Ask for a page to pay on."""
    return ask(f"{gateway.proxy}/quota/v1/topup", "POST", body, {"Authorization": f"Bearer {key}"})


def post(gateway: RunningGateway, raw: bytes, header: str | None = None) -> Reply:
    """What Stripe does with an event."""
    headers = {"Stripe-Signature": signature(raw) if header is None else header}
    return ask(f"{gateway.proxy}/quota/v1/payments/stripe", "POST", raw, headers)


def begun(gateway: RunningGateway, api: StripeApi, key: str) -> Json:
    """The session of a new order."""
    session_id = buy(gateway, key).json["url"].rpartition("/")[2]
    return api.sessions[session_id]


def packs_of(gateway: RunningGateway, user: str) -> list[Json]:
    found: list[Json] = gateway.cli("topup", "list", user)["packs"]
    return found


def in_postgres(gateway: RunningGateway, statement: str, *arguments: object) -> Any:
    """One statement, as an operator at the database would send it."""

    async def run() -> Any:
        connection = await asyncpg.connect(ledger_url_of(gateway.settings))
        try:
            return await connection.fetchval(statement, *arguments)
        finally:
            await connection.close()

    with ThreadPoolExecutor(1) as other_thread:
        return other_thread.submit(lambda: asyncio.run(run())).result()


def agreed(gateway: RunningGateway) -> None:
    verdict = gateway.cli("ledger", "verify")
    assert verdict["agrees"], verdict


class Caller:
    """A user of the official client."""

    def __init__(self, gateway: RunningGateway, tier: str) -> None:
        self.user = f"story-{uuid.uuid4().hex[:8]}"
        gateway.cli("user", "create", self.user, "--tier", tier)
        self.key = gateway.cli("key", "create", self.user)["key"]
        self._client = openai.OpenAI(base_url=f"{gateway.proxy}/v1", api_key=self.key)

    def call(self) -> tuple[int, int]:
        """Tokens charged, and left."""
        said: Any = [{"role": "user", "content": "Am I still welcome?"}]
        made = self._client.chat.completions.with_raw_response.create(model=MODEL, messages=said)
        usage = made.parse().usage
        assert usage is not None
        assert int(made.headers["x-quota-charged-tokens"]) == usage.total_tokens
        return usage.total_tokens, int(made.headers["x-quota-remaining-tokens"])

    def refused(self) -> Any:
        """The quota object of the refusal, which must come."""
        with pytest.raises(openai.RateLimitError) as refused:
            self.call()
        assert refused.value.code == "insufficient_quota"
        body: Any = refused.value.body
        return body["quota"]


def test_a_pack_is_offered_bought_once_counted_down_and_over_at_its_end(
    shop: RunningGateway, stripe_api: StripeApi
) -> None:
    caller = Caller(shop, "free")
    shop.cli("adjust", caller.user, "100000", "--reason", "all of the month")
    refused = caller.refused()
    assert (refused["upgrade"], refused["topup"]) == ({"tier": "lite", "url": PLANS}, None)
    shop.cli("user", "set-tier", caller.user, "full")
    shop.cli("adjust", caller.user, str(LIMIT - 100_010), "--reason", "nearly all of the month")
    refused = caller.refused()
    assert refused["upgrade"] is None
    assert refused["topup"] == {
        "tokens": PACK, "price_gbp": "2.00", "url": "https://app.test/packs",
    }  # fmt: skip

    asked = buy(shop, caller.key)
    assert asked.status == 200
    assert {**asked.json, "url": "", "order": ""} == {
        "url": "", "order": "", "packs": 1, "tokens": PACK, "valid_days": 365,
        "amount": "2.00", "currency": "gbp",
    }  # fmt: skip
    session = stripe_api.sessions[asked.json["url"].rpartition("/")[2]]
    caller.refused()  # a page to pay on is no payment
    raw = event(COMPLETED, paid(session))
    assert [post(shop, raw).status for _ in range(2)] == [200, 200]
    (pack,) = packs_of(shop, caller.user)
    assert (pack["state"], pack["granted_tokens"], pack["left_tokens"]) == ("live", PACK, PACK)
    assert pack["payment"] == paid(session)["payment_intent"]
    counts_down_and_ends(shop, caller)


def counts_down_and_ends(shop: RunningGateway, caller: Caller) -> None:
    """Ten tokens are left of the month, and a whole pack."""
    charged, left = caller.call()
    assert left == 10 + PACK - charged
    shown = shop.shown(caller.user)
    assert (shown["pack_tokens"], shown["used_tokens"]) == (PACK - (charged - 10), LIMIT)
    assert caller.call() == (charged, 10 + PACK - 2 * charged)
    assert shop.shown(caller.user)["pack_tokens"] == 10 + PACK - 2 * charged
    agreed(shop)

    ended = "UPDATE packs SET ends_at = now() - interval '1 second' WHERE payer = $1"
    in_postgres(shop, ended, caller.user)
    in_postgres(shop, "UPDATE users SET rev = rev + 1 WHERE user_id = $1", caller.user)
    until(lambda: shop.shown(caller.user)["pack_tokens"] == 0, WAIT_S, "the pack to have ended")
    refused = caller.refused()
    assert (refused["pack_tokens"], refused["topup"]["tokens"]) == (0, PACK)
    assert [each["state"] for each in packs_of(shop, caller.user)] == ["ended"]
    agreed(shop)


def test_a_forged_event_credits_nothing_and_a_true_one_fifty_times_at_once_credits_once(
    shop: RunningGateway, stripe_api: StripeApi
) -> None:
    user, key = shop.new_user("full", LIMIT)
    session, other = (begun(shop, stripe_api, key) for _ in range(2))
    done = paid(session)
    raw = event(COMPLETED, done, "evt_1")
    header = signature(raw)
    for forged in (
        post(shop, raw, ""),
        post(shop, raw, signature(raw, "")),
        post(shop, raw, signature(raw, "whsec_of_somebody_else")),
        post(shop, raw, signature(raw, age_s=301)),
        post(shop, raw.replace(b'"amount_total": 200', b'"amount_total": 1'), header),
        post(shop, raw + b" ", header),
        post(shop, b"{}", signature(b"{}")),
    ):
        assert forged.code == (400, "payment_not_proven")
    for unlike in (
        paid(session, amount_total=1),
        paid(session, currency="jpy"),
        paid(session, metadata=other["metadata"]),
        paid(session, metadata={ORDER: "of-nobody"}),
        paid(session, client_reference_id="somebody-else"),
    ):
        assert post(shop, event(COMPLETED, unlike)).status == 200
    assert post(shop, event(COMPLETED, paid(session, payment_status="unpaid"))).status == 200
    assert post(shop, event("customer.created", {"id": "cus_1"})).status == 200
    assert packs_of(shop, user) == []
    found = shop.cli("topup", "problems")["problems"]
    assert {each["order"] for each in found} == {
        session["metadata"][ORDER], other["metadata"][ORDER], "of-nobody",
    }  # fmt: skip

    with ThreadPoolExecutor(50) as pool:
        replies = list(pool.map(lambda _: post(shop, raw), range(50)))
    assert {reply.status for reply in replies} <= {200, 503}
    while any(reply.status == 503 for reply in replies):  # Stripe sends those again
        replies = [post(shop, raw) for reply in replies if reply.status == 503]
    assert post(shop, event(SUCCEEDED, done)).status == 200
    replayed = event(COMPLETED, paid(other), "evt_1")
    assert post(shop, replayed).code == (400, "payment_not_proven")
    assert [pack["granted_tokens"] for pack in packs_of(shop, user)] == [PACK]
    assert shop.chat(key, "And now?").status == 200
    log = shop.stderr.read_text()
    assert "is a problem: 1 pence were paid for 200" in log
    assert SECRET_KEY not in log
    assert WEBHOOK_SECRET not in log
    agreed(shop)


def test_a_tier_that_may_not_buy_is_told_so_with_the_way_on(
    shop: RunningGateway, stripe_api: StripeApi
) -> None:
    user, key = shop.new_user("free")
    refused = buy(shop, key)
    assert refused.code == (403, "topup_not_available")
    assert refused.error["upgrade"] == {"tier": "lite", "url": PLANS}
    assert refused.error["message"] == (
        f"The tier 'free' cannot buy packs. To go on, upgrade to the tier 'lite' at {PLANS}."
    )
    told = shop.command("topup", "credit", user, "--payment", "pay-of-free")
    assert told.returncode == 1
    assert f"upgrade to the tier 'lite' at {PLANS}" in told.stderr
    assert buy(shop, "qg_of_nobody").code == (401, "invalid_api_key")
    _, full = shop.new_user("full")
    for body, code in (
        (b'{"packs": 0}', "invalid_value"),
        (b'{"packs": 101}', "invalid_value"),
        (b'{"packs": "1"}', "invalid_value"),
        (b'{"packs": 1, "amount": 1}', "invalid_value"),
        (b"[]", "invalid_value"),
        (b"{", "invalid_json"),
        (b"\xff", "invalid_json"),
    ):
        assert buy(shop, full, body).code == (400, code), body
    assert buy(shop, full, b'{"packs": 3}').json["amount"] == "6.00"
    stripe_api.fail_next = 3
    assert buy(shop, full).code == (502, "payment_unavailable")


def test_packs_and_adjustments_by_command_and_the_refund_of_each_kind(
    shop: RunningGateway, stripe_api: StripeApi
) -> None:
    user, key = shop.new_user("full", LIMIT)
    for _ in range(2):
        given = shop.cli("topup", "credit", user, "--payment", "inv-7", "--packs", "2")
        assert (given["state"], given["granted_tokens"]) == ("live", 2 * PACK)
    other = shop.command("topup", "credit", user, "--payment", "inv-7")
    assert "inv-7 was credited already as something else" in other.stderr
    charged = int(shop.chat(key, "Thanks").headers["x-quota-charged-tokens"])
    for _ in range(2):
        taken = shop.cli("topup", "refund", "inv-7", "--reason", "charged back")
        assert (taken["state"], taken["left_tokens"]) == ("refunded", 0)
        assert taken["refund_reason"] == "charged back"
    assert shop.chat(key, "Still?").code == (429, "insufficient_quota")

    def adjusted() -> bool:
        shown = shop.shown(user)
        return (shown["adjusted_tokens"], shown["pack_tokens"]) == (LIMIT + charged, 0)

    until(adjusted, WAIT_S, "what the pack had paid to count as used")
    for _ in range(2):
        shown = shop.cli("adjust", user, "-5000", "--reason", "sorry", "--key", "ticket-9")
        assert shown["adjusted_tokens"] == LIMIT + charged - 5000
    assert shop.chat(key, "And now?").status == 200

    session = paid(begun(shop, stripe_api, key))
    assert post(shop, event(COMPLETED, session)).status == 200
    raw = event("charge.refunded", charge(session))
    assert [post(shop, raw).status for _ in range(2)] == [200, 200]
    assert [pack["state"] for pack in packs_of(shop, user)] == ["refunded", "refunded"]
    table = shop.command("topup", "list", user).stdout
    assert "charged back" in table
    assert f"{2 * PACK:,}" in table
    author = f"cli:{getpass.getuser()}"
    rows = [
        (row["kind"], row["author"])
        for row in shop.ledger_rows(user, 9)
        if row["kind"] not in ("usage", "period_close")
    ]
    assert sorted(rows) == [
        ("adjustment", author), ("adjustment", author), ("adjustment", "tests"),
        ("refund", author), ("refund", "payments"), ("topup", author), ("topup", "payments"),
    ]  # fmt: skip
    agreed(shop)


@contextmanager
def locked_user(gateway: RunningGateway, user: str) -> Iterator[None]:
    """Nothing of the user can change in Postgres."""
    loop = asyncio.new_event_loop()
    connection = loop.run_until_complete(asyncpg.connect(ledger_url_of(gateway.settings)))
    try:
        loop.run_until_complete(connection.execute("BEGIN"))
        loop.run_until_complete(
            connection.execute("SELECT FROM users WHERE user_id = $1 FOR UPDATE", user)
        )
        yield
    finally:
        loop.run_until_complete(connection.close())
        loop.close()


@pytest.mark.parametrize("by", ["event", "command"])
def test_a_kill_between_the_ledger_and_redis_credits_once(
    shop: RunningGateway, stripe_api: StripeApi, by: str
) -> None:
    """The payment is held up in Postgres, Redis is frozen, the payment goes through, and who waits
    for Redis is killed. The projection job tells Redis; a repetition finds it done."""
    user, key = shop.new_user("full", LIMIT)
    assert shop.chat(key, "Anything left?").code == (429, "insufficient_quota")
    raw = event(COMPLETED, paid(begun(shop, stripe_api, key)))
    command = ("topup", "credit", user, "--payment", "inv-1")
    with ThreadPoolExecutor(1) as pool:
        with locked_user(shop, user):
            if by == "event":
                pool.submit(post, shop, raw)
            else:
                pool.submit(shop.command, *command)
            waits = (
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE wait_event_type = 'Lock' AND query LIKE '%DESC FOR UPDATE%'"
            )
            until(lambda: in_postgres(shop, waits), WAIT_S, "the payment to wait for the lock")
            victim = shop.child("proxy-1" if by == "event" else "jobs")
            os.kill(silent := redis_pid(redis_url_of(shop.settings)), signal.SIGSTOP)
        booked = "SELECT count(*) FROM packs WHERE payer = $1"
        until(lambda: in_postgres(shop, booked, user), WAIT_S, "the commit")
        os.kill(victim, signal.SIGKILL)
        os.kill(silent, signal.SIGCONT)
    until(
        lambda: reached(lambda: shop.shown(user)["pack_tokens"] == PACK), WAIT_S, "the projection"
    )
    if by == "event":
        until(lambda: reached(lambda: post(shop, raw).status == 200), WAIT_S, "the repetition")
    else:
        assert shop.cli(*command)["granted_tokens"] == PACK
    assert [pack["granted_tokens"] for pack in packs_of(shop, user)] == [PACK]
    assert shop.chat(key, "And now?").status == 200
    agreed(shop)


def reached(work: Any) -> bool:
    """False while the killed process is not replaced."""
    try:
        return bool(work())
    except OSError:
        return False
