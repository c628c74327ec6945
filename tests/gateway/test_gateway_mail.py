"""Mails of whole gateways: one for each crossing, whatever dies, and none of a kind turned off."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters.embedded import postgres_url, redis_url
from gateway.app.stores import Stores
from tests.gateway.loopback import ask
from tests.gateway.mail_server import MailServer
from tests.gateway.many_clients import Crowd
from tests.gateway.quota_calls import post, report
from tests.gateway.running_gateway import MakeGateway, RunningGateway, prompt
from tests.gateway.waiting_for import until

PEPPER = "the-pepper-of-mails"
ALLOWANCE = 100_000


@pytest.fixture
def mail_server(tmp_path: Path) -> Iterator[MailServer]:
    server = MailServer(tmp_path / "mails")
    yield server
    server.stop()


def settings(mail_server: MailServer, **changes: Any) -> dict[str, Any]:
    smtp = {
        "host": "127.0.0.1",
        "port": mail_server.port,
        "tls": "none",
        "from": "Quota <quota@example.org>",
    }
    refusal = {"upgrade_url": "https://app.example/upgrade", "topup_url": None}
    return {
        "identity": {"keys": {"pepper": PEPPER}},
        "notify": {"smtp": smtp},
        "refusal": refusal,
        **changes,
    }


def reader(gateway: RunningGateway, used: int, name: str = "") -> tuple[str, str, str]:
    """Id, key and address of a new user who has used so much."""
    user_id, key = gateway.new_user("free", used)
    address = f"{name}{user_id}@example.org"

    async def write(stores: Stores) -> None:
        await stores.directory.set_email(user_id, address)

    gateway.in_stores(write)
    return user_id, key, address


def states(gateway: RunningGateway, user_id: str) -> list[tuple[str, int, str]]:
    """Kind, threshold and state of the user's deliveries."""

    async def read(stores: Stores) -> list[tuple[str, int, str]]:
        import asyncpg

        connection = await asyncpg.connect(postgres_url(gateway.state_dir))
        try:
            found = await connection.fetch(
                "SELECT kind, threshold, state FROM deliveries JOIN notifications "
                "USING (notification_id) WHERE user_id = $1 ORDER BY notification_id",
                user_id,
            )
        finally:
            await connection.close()
        return [tuple(record) for record in found]

    return gateway.in_stores(read)


def spent(gateway: RunningGateway, key: str, tokens: int) -> None:
    """So many tokens, used elsewhere and booked."""
    reply = report(gateway, key, total_tokens=tokens)
    assert reply.status == 200, reply


def nothing_is_pending(gateway: RunningGateway, user_id: str, deliveries: int) -> None:
    """Wait until the user has so many deliveries, all of them ended."""

    def ended() -> bool:
        found = states(gateway, user_id)
        return len(found) == deliveries and all(state != "pending" for _, _, state in found)

    until(ended, 40, f"{deliveries} deliveries to have ended")


def test_a_hundred_calls_that_cross_together_through_three_gateways_make_one_mail(
    make_gateway: MakeGateway, mail_server: MailServer
) -> None:
    first = make_gateway(**settings(mail_server)).start()
    stores = {
        "redis": {"url": redis_url(first.state_dir)},
        "ledger": {"url": postgres_url(first.state_dir)},
    }
    options = (), ("--jobs", "none")
    others = [
        make_gateway(**settings(mail_server, **stores)).start(*options[place]) for place in (0, 1)
    ]
    user, key, address = reader(first, int(ALLOWANCE * 0.799))
    body = prompt("@stand-in usage=10/10", max_tokens=20)
    answers = Crowd([first, *others], [(key, body)] * 100).done()
    assert {answer.status for answer in answers} == {200}
    (mail,) = mail_server.await_mails(address)
    assert "80 %" in mail["Subject"]
    spent(first, key, int(ALLOWANCE * 0.18))  # 95 %: proof that the sender has come by again
    _, second = mail_server.await_mails(address, 2)
    assert "95 %" in second["Subject"]
    nothing_is_pending(first, user, 2)
    assert len(mail_server.mails(address)) == 2


def test_with_the_mail_server_down_and_the_jobs_killed_it_is_still_one_mail(
    make_gateway: MakeGateway, mail_server: MailServer
) -> None:
    gateway = make_gateway(**settings(mail_server)).start()
    mail_server.stop()
    user, key, address = reader(gateway, int(ALLOWANCE * 0.79))
    spent(gateway, key, 2000)
    until(lambda: states(gateway, user), 30, "the mail to be tried")
    os.kill(gateway.child("jobs"), signal.SIGKILL)
    mail_server.start()
    (mail,) = mail_server.await_mails(address, wait_s=90)
    nothing_is_pending(gateway, user, 1)
    assert len(mail_server.mails(address)) == 1
    assert mail["Message-ID"].endswith("@example.org>")
    assert gateway.metric("notifications_total", kind="crossing", state="sent") == 1
    it_is_told_how_sending_stands(gateway)


def it_is_told_how_sending_stands(gateway: RunningGateway) -> None:
    """By `/readyz`, of which it is no check, and by the doctor."""
    ready = ask(f"{gateway.ops}/readyz").json
    assert set(ready["checks"].values()) == {"ok"}
    sending = ready["about"]["sending"]
    (way,) = sending.pop("ways")
    assert (way["way"], way["away"], way["last_sent"]["kind"]) == ("mail", False, "crossing")
    assert sending.pop("last_run_at").endswith("Z")
    assert sending == {"smtp": True, "is_sender": True}
    findings = {each["check"]: each for each in gateway.cli("doctor")["findings"]}
    assert findings["mail"]["state"] == "ok"
    found = findings["mail"]["found"]
    assert "sent last: crossing at " in found
    assert "looked for news at " in found
    assert "quota-gateway mail test" in findings["mail"]["advice"]


def test_who_is_refused_at_99_2_percent_is_told_once_and_again_after_a_pack_was_used(
    make_gateway: MakeGateway, mail_server: MailServer
) -> None:
    gateway = make_gateway(**settings(mail_server)).start()
    user, key, address = reader(gateway, int(ALLOWANCE * 0.992))
    for _ in range(5):
        assert report(gateway, key, total_tokens=801).status == 429
    (mail,) = mail_server.await_mails(address)
    assert "used up" in mail["Subject"]
    plain = mail.get_body(("plain",))
    assert plain is not None
    text = " ".join(plain.get_content().split())
    assert "You have used 99,200 of your 100,000 tokens" in text
    assert "What is left (800 tokens)" in text
    assert "https://app.example/upgrade" in text
    spent(gateway, key, 800)  # the rest: no second news
    gateway.cli("adjust", user, "-1000", "--reason", "a gift")
    assert report(gateway, key, total_tokens=1001).status == 429
    mail_server.await_mails(address, 2)
    nothing_is_pending(gateway, user, 2)
    assert [kind for kind, _, _ in states(gateway, user)] == ["exhausted", "exhausted"]


def test_unsubscribing_stops_that_kind_and_no_other(
    make_gateway: MakeGateway, mail_server: MailServer
) -> None:
    gateway = make_gateway(**settings(mail_server)).start()
    user, key, address = reader(gateway, int(ALLOWANCE * 0.79))
    spent(gateway, key, 2000)
    (mail,) = mail_server.await_mails(address)
    assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    path = mail["List-Unsubscribe"].strip("<>").partition("/quota/")[2]
    link = f"{gateway.proxy}/quota/{path}"
    page = ask(link)
    assert (page.status, "<form" in page.text) == (200, True)
    assert ask(link[:-1] + ("A" if link[-1] != "A" else "B"), "POST", b"").status == 400
    headers = {"Authorization": f"Bearer {key}"}
    wishes = f"{gateway.proxy}/quota/v1/preferences"
    assert all(wish["enabled"] for wish in ask(wishes, headers=headers).json["preferences"])

    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert ask(link, "POST", b"List-Unsubscribe=One-Click", form).status == 200
    said = {
        wish["kind"]: wish["enabled"] for wish in ask(wishes, headers=headers).json["preferences"]
    }
    assert said == {kind: kind != "crossing" for kind in said}
    spent(gateway, key, 15_000)  # 96 %
    assert post(gateway, "check", key, {"model": "gpt-4o-mini", "tokens": 9}).status == 200
    assert report(gateway, key, total_tokens=50_000).status == 429
    _, second = mail_server.await_mails(address, 2)
    assert "used up" in second["Subject"]
    assert [kind for kind, _, _ in states(gateway, user)] == ["crossing", "exhausted"]

    changed = json.dumps(
        {"preferences": [{"kind": "crossing", "channel": "email", "enabled": True}]}
    )
    reply = ask(wishes, "PUT", changed.encode(), headers)
    assert reply.status == 200
    assert all(wish["enabled"] for wish in reply.json["preferences"])


def test_one_refused_address_holds_up_nobody(
    make_gateway: MakeGateway, mail_server: MailServer
) -> None:
    gateway = make_gateway(**settings(mail_server)).start()
    gone, gone_key, _ = reader(gateway, 79_000, "gone-")
    busy, busy_key, _ = reader(gateway, 79_000, "busy-")
    user, key, address = reader(gateway, 79_000)
    for each in (gone_key, busy_key, key):
        spent(gateway, each, 2000)
    mail_server.await_mails(address)
    nothing_is_pending(gateway, gone, 1)
    assert states(gateway, gone) == [("crossing", 80, "dead")]
    assert states(gateway, busy) == [("crossing", 80, "pending")]
    assert states(gateway, user) == [("crossing", 80, "sent")]
