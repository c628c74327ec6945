"""Keys of an issuer over HTTP: fetched without holding anybody up, and kept while that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from gateway.adapters.tokens import fetching, remote_keys
from gateway.adapters.tokens.fetching import fetch_keys
from gateway.adapters.tokens.remote_keys import KeysNotFetched, RemoteKeys
from gateway.ports.tasks import spawn
from gateway.ports.tokens import TokensUnavailable
from tests.fakes.clock import HandClock
from tests.fakes.flow_rig import until
from tests.fakes.issuer import jwk, key_set, private_jwk
from tests.fakes.key_server import KeyServer, key_server

OLD, NEW = jwk("RS256", "old"), jwk("RS256", "new", 1)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def server() -> Iterator[KeyServer]:
    with key_server() as running:
        running.answer = key_set(OLD)
        yield running


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def keys(server: KeyServer, clock: HandClock) -> RemoteKeys:
    return RemoteKeys(server.url, ["RS256"], fetch_keys, clock)


def knows(keys: RemoteKeys, *kids: str) -> list[bool]:
    return [keys.find(kid, "RS256") is not None for kid in kids]


async def test_a_new_key_is_found_and_the_old_one_goes_when_it_is_withdrawn(
    server: KeyServer, keys: RemoteKeys, clock: HandClock
) -> None:
    await keys.renew()
    assert knows(keys, "old", "new") == [True, False]
    server.answer = key_set(OLD, NEW)
    clock.pass_s(30)
    await keys.renew()
    assert knows(keys, "old", "new") == [True, True]
    assert keys.withdrawals == 0
    server.answer = key_set(NEW)
    clock.pass_s(30)
    await keys.renew()
    assert knows(keys, "old", "new") == [False, True]
    assert keys.withdrawals == 1


async def test_another_key_under_the_same_name_withdraws_the_first(
    server: KeyServer, keys: RemoteKeys, clock: HandClock
) -> None:
    await keys.renew()
    server.answer = key_set(jwk("RS256", "old", 1))
    clock.pass_s(30)
    await keys.renew()
    assert keys.withdrawals == 1


async def test_many_who_ask_at_once_are_one_look_and_none_for_half_a_minute(
    server: KeyServer, keys: RemoteKeys, clock: HandClock
) -> None:
    await asyncio.gather(*(keys.renew() for _ in range(1000)))
    clock.pass_s(29.9)
    await asyncio.gather(*(keys.renew() for _ in range(1000)))
    assert server.asked == 1
    clock.pass_s(0.1)
    await asyncio.gather(*(keys.renew() for _ in range(1000)))
    assert server.asked == 2


async def test_who_leaves_does_not_end_the_look_of_the_others(
    server: KeyServer, keys: RemoteKeys
) -> None:
    server.holds = True
    leaving, staying = [spawn(keys.renew(), "renew") for _ in range(2)]
    await until(lambda: server.asked)
    leaving.cancel()
    server.let_go()
    await staying
    assert knows(keys, "old") == [True]


async def test_known_keys_wait_for_nothing_while_the_issuer_is_silent(
    server: KeyServer, keys: RemoteKeys, clock: HandClock
) -> None:
    await keys.renew()
    clock.pass_s(30)
    server.holds = True
    waiting = spawn(keys.renew(), "renew")
    await until(lambda: server.asked == 2)
    assert knows(keys, "old") == [True]
    assert not waiting.done()
    server.let_go()
    await waiting


async def test_a_slow_issuer_is_given_up(
    server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "_FETCH_S", 0.05)
    server.holds = True
    with pytest.raises(KeysNotFetched, match="did not answer"):
        await fetch_keys(server.url)
    server.let_go()


@pytest.mark.parametrize(
    "answer",
    [
        *(b"", b"<html>", b"[]", b'{"keys": 7}', b'{"keys": []}', b'{"keys": [7, null, {}]}'),
        *(b'{"keys":[{"kty":"oct","k":"AAAA","kid":"old"}]}', b"[" * 100_000, b"\xff"),
        *(key_set(jwk("ES256", "old")), key_set(jwk("RS256", "old", use="enc"))),
        *(key_set(private_jwk("RS256", "old")), key_set(jwk("RS256", "old", n="!"))),
        *(key_set(jwk("RS256", "old", alg="HS256")), key_set(*[OLD] * 101)),
        key_set(jwk("RS256", "old", key_ops=["sign"])),
        b" " * (256 * 1024) + key_set(OLD),
    ],
    ids=lambda answer: answer[:40].decode(errors="replace").strip() or "huge",
)
async def test_what_is_no_set_of_keys_changes_nothing(
    server: KeyServer, keys: RemoteKeys, clock: HandClock, answer: bytes
) -> None:
    server.answer = answer
    with pytest.raises(TokensUnavailable):
        await keys.renew()
    server.answer = key_set(OLD)
    clock.pass_s(30)
    await keys.renew()
    server.answer = answer
    clock.pass_s(30)
    await keys.renew()
    assert knows(keys, "old") == [True]
    assert (server.asked, keys.withdrawals) == (3, 0)


async def test_an_answer_that_points_elsewhere_is_not_followed(
    server: KeyServer, keys: RemoteKeys
) -> None:
    for status in (301, 302, 303, 307, 308):
        server.status, server.headers = status, {"Location": "/elsewhere"}
        with pytest.raises(KeysNotFetched, match=str(status)):
            await fetch_keys(server.url)
    server.status, server.headers = 200, {"Content-Encoding": "gzip"}
    with pytest.raises(KeysNotFetched, match="compressed"):
        await fetch_keys(server.url)
    with pytest.raises(TokensUnavailable):
        await keys.renew()
    assert server.asked_elsewhere == 0


async def test_the_set_is_kept_for_a_day_without_the_issuer_and_no_longer(
    server: KeyServer, keys: RemoteKeys, clock: HandClock
) -> None:
    await keys.renew()
    server.status = 500
    clock.pass_s(86_399)
    await keys.renew()
    assert knows(keys, "old") == [True]
    clock.pass_s(30)
    with pytest.raises(TokensUnavailable):
        await keys.renew()
    assert knows(keys, "old") == [False]
    assert keys.withdrawals == 1


async def test_nobody_has_to_call_for_the_set_to_be_renewed(
    server: KeyServer, keys: RemoteKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_RENEWED_S", "_PAUSE_S", "_PAUSE_WITHOUT_S"):
        monkeypatch.setattr(remote_keys, name, 0.01)
    server.status = 503
    running = spawn(keys.renew_forever(), "renew")
    await until(lambda: server.asked > 1)
    assert knows(keys, "old") == [False]
    server.status = 200
    await until(lambda: knows(keys, "old") == [True])
    server.answer = key_set(NEW)
    await until(lambda: knows(keys, "old", "new") == [False, True])
    running.cancel()


async def test_a_server_that_is_not_there_is_no_keys(clock: HandClock) -> None:
    keys = RemoteKeys("http://127.0.0.1:9/keys", ["RS256"], fetch_keys, clock)
    with pytest.raises(TokensUnavailable):
        await keys.renew()
