"""Callers by the token of an identity provider, through a whole gateway and with the real SDK."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from gateway.adapters.postgres.connection import open_pool, session
from gateway.app.embedded import ledger_url_of
from gateway.app.stores import Stores
from tests.fakes.issuer import NAME, forgeries, jwk, key_set, said, signed
from tests.fakes.key_server import KeyServer, key_server
from tests.gateway.identity_settings import identity
from tests.gateway.loopback import Reply, ask
from tests.gateway.running_gateway import MODEL, MakeGateway, RunningGateway
from tests.gateway.waiting_for import until

_WAIT_S = 20.0


def new_id() -> str:
    """As Supabase names users."""
    return str(uuid.uuid4())


def limit(reply: Reply) -> int:
    assert reply.status == 200, reply
    return int(reply.headers["x-quota-limit-tokens"])


def by_key_set(user_id: str, **claims: object) -> str:
    return signed(said(user_id, **claims), "ES256", kid="ec")


def audit(gateway: RunningGateway, user_id: str) -> list[dict[str, Any]]:
    """What was changed of a user, in its order."""

    async def read() -> list[dict[str, Any]]:
        pool = await open_pool(ledger_url_of(gateway.settings))
        try:
            async with session(pool) as connection:
                found = await connection.fetch(
                    "SELECT who, what, detail FROM audit WHERE user_id = $1 ORDER BY audit_id",
                    user_id,
                )
            return [dict(each) for each in found]
        finally:
            pool.terminate()

    return asyncio.run(read())


def test_who_signs_in_elsewhere_has_a_quota_here(signed_in: RunningGateway) -> None:
    user_id = new_id()
    token = signed(said(user_id, email="ada@example.test"))
    with openai.OpenAI(base_url=f"{signed_in.proxy}/v1", api_key=token) as client:
        answer = client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Hello"}]
        )
        assert answer.usage is not None
        assert MODEL in [model.id for model in client.models.list()]
    (row,) = signed_in.ledger_rows(user_id)
    assert (row["user_id"], row["payer"], row["tier"]) == (user_id, user_id, "free")
    assert row["charged_tokens"] == answer.usage.total_tokens
    last = signed_in.stand_in.last()["headers"]
    assert token not in json.dumps(last)
    assert last["x-quota-user"] == user_id


def test_every_forged_token_gets_the_answer_of_an_unknown_key(signed_in: RunningGateway) -> None:
    """One answer for all, so that nothing is learnt from it; and nobody is made of them."""
    unknown = signed_in.chat("qg_unknown", "Hello")
    assert unknown.code == (401, "invalid_api_key")
    for rule, token in forgeries():
        reply = signed_in.chat(token, "Hello")
        assert (reply.status, reply.body) == (unknown.status, unknown.body), rule
        assert set(reply.headers) == set(unknown.headers), rule
    people = signed_in.in_stores(lambda stores: stores.directory.users())
    assert not [who for who in people if who.user_id in ("ada", "eve")]


def test_users_of_an_issuer_that_makes_none_are_made_here(signed_in: RunningGateway) -> None:
    token = by_key_set(user_id := new_id())
    assert signed_in.chat(token, "Hello").code == (401, "invalid_api_key")
    signed_in.cli("user", "create", user_id)
    assert limit(signed_in.chat(token, "Hello")) == 100_000


def test_an_old_token_does_not_undo_an_upgrade_and_a_new_one_decides(
    signed_in: RunningGateway,
) -> None:
    user_id, now_s = new_id(), int(time.time())
    free = {"app_metadata": {"tier": "free"}}
    old = signed(said(user_id, iat=now_s - 10, **free))
    assert limit(signed_in.chat(old, "Hello")) == 100_000
    signed_in.cli("user", "set-tier", user_id, "full")
    assert limit(signed_in.chat(old, "Hello")) == 1_602_000  # at the next call
    another = signed(said(user_id, iat=now_s - 5, **free))
    assert limit(signed_in.chat(another, "Hello")) == 1_602_000
    after_s = int(time.time()) + 1  # which the leeway allows
    new = signed(said(user_id, iat=after_s, app_metadata={"tier": "lite"}))
    assert limit(signed_in.chat(new, "Hello")) == 1_000_000
    for token in (old, another, new):
        assert limit(signed_in.chat(token, "Hello")) == 1_000_000
    made, moved, claimed = audit(signed_in, user_id)
    assert (made["who"], made["what"]) == (claimed["who"], "create_user") == (NAME, "create_user")
    assert moved["who"].startswith("cli:")
    assert (claimed["what"], json.loads(claimed["detail"])) == ("claim_tier", {"tier": "lite"})


def test_a_block_binds_a_token_at_the_next_call(signed_in: RunningGateway) -> None:
    token = signed(said(user_id := new_id()))
    assert signed_in.chat(token, "Hello").status == 200

    async def block(stores: Stores) -> None:
        await stores.people(signed_in.settings).set_state(user_id, "blocked", "a test")

    async def disable(stores: Stores) -> None:
        await stores.people(signed_in.settings).set_state(user_id, "disabled", "a test")

    async def free(stores: Stores) -> None:
        await stores.people(signed_in.settings).set_state(user_id, "active", None)

    signed_in.in_stores(block)
    assert signed_in.chat(token, "Hello").code == (403, "user_blocked")
    signed_in.in_stores(free)
    assert signed_in.chat(token, "Hello").status == 200
    signed_in.in_stores(disable)
    assert signed_in.chat(token, "Hello").code == (401, "invalid_api_key")
    assert signed_in.chat(signed(said(user_id)), "Hello").code == (401, "invalid_api_key")


def test_tokens_that_begin_with_the_same_500_characters_are_two(
    signed_in: RunningGateway,
) -> None:
    pad = {"aaa": "x" * 600}
    users = [signed_in.new_user(tier)[0] for tier in ("free", "lite")]
    tokens = [signed({**pad, **said(user_id)}, "RS256", kid="rsa") for user_id in users]
    assert tokens[0][:500] == tokens[1][:500]
    for _ in range(2):
        limits = [limit(signed_in.chat(token, "Hello")) for token in tokens]
        assert limits == [100_000, 1_000_000]


def test_an_expired_token_stops_at_once(signed_in: RunningGateway) -> None:
    user_id, _ = signed_in.new_user()
    ends_s = int(time.time()) + 3
    token = by_key_set(user_id, exp=ends_s)
    begun, last_s = [], 0.0

    def is_refused() -> bool:
        nonlocal last_s
        begun.append(time.time())
        if signed_in.chat(token, "Hello").status == 200:
            last_s = begun[-1]
            return False
        return True

    until(is_refused, _WAIT_S, "the token's end")
    assert 0 < last_s < ends_s <= time.time()


def test_names_of_keys_that_do_not_exist_are_looked_up_once(
    signed_in: RunningGateway, issuer_keys: KeyServer
) -> None:
    user_id, _ = signed_in.new_user()
    good, before = by_key_set(user_id), issuer_keys.asked
    for n in range(50):
        bad = signed(said(user_id), "ES256", kid=f"no-{n}")
        assert signed_in.chat(bad, "Hello").code == (401, "invalid_api_key")
        assert signed_in.chat(good, "Hello").status == 200
    assert issuer_keys.asked - before <= 2  # one for these, one that was due


def test_a_gateway_starts_and_goes_on_without_its_issuer(start_gateway: MakeGateway) -> None:
    with key_server() as server:
        server.holds = True
        gateway = start_gateway(identity=identity(server.url))
        user_id, key = gateway.new_user()
        assert gateway.chat(key, "Hello").status == 200  # while the issuer is waited for
        assert server.asked > 0
        token = by_key_set(user_id)
        assert gateway.chat(token, "Hello").code == (503, "quota_backend_unavailable")
        server.answer = key_set(jwk("ES256", "ec"))
        server.let_go()
        until(lambda: gateway.chat(token, "Hello").status == 200, _WAIT_S, "the keys")
    assert gateway.chat(by_key_set(user_id, jti="another"), "Hello").status == 200


def test_a_rotation_is_followed_at_once_and_nobody_notices(start_gateway: MakeGateway) -> None:
    with key_server() as server, ThreadPoolExecutor(4) as callers:
        server.answer = key_set(jwk("ES256", "ec"))
        gateway = start_gateway(identity=identity(server.url))
        user_id, _ = gateway.new_user("full")

        def call(n: int) -> int:
            return gateway.chat(by_key_set(user_id, jti=str(n)), "Hello").status

        before = callers.map(call, range(40))
        server.answer = key_set(jwk("ES256", "ec"), jwk("ES256", "next", 1))
        token = signed(said(user_id), "ES256", 1, kid="next")
        assert gateway.chat(token, "Hello").status == 200
        assert [*before, *callers.map(call, range(40, 60))] == [200] * 60


def test_a_gateway_without_issuers_knows_no_tokens(gateway: RunningGateway) -> None:
    assert gateway.chat(signed(said()), "Hello").code == (401, "invalid_api_key")
    reply = ask(f"{gateway.proxy}/v1/models", headers={"X-User-Id": "ada", "X-Front-Secret": ""})
    assert reply.code == (401, "invalid_api_key")


@pytest.mark.parametrize("route", ["/v1/models", "/v1/models/gpt-4o-mini"])
def test_other_routes_know_them_too(signed_in: RunningGateway, route: str) -> None:
    token = signed(said(new_id()))
    headers = {"Authorization": f"Bearer {token}"}
    assert ask(f"{signed_in.proxy}{route}", headers=headers).status == 200
