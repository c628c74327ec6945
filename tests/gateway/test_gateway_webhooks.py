"""Webhooks of a whole gateway: what is away holds up nobody, and what was told is told once."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.app.stores import Stores
from gateway.ports.notices import Alarm
from tests.gateway.hook_server import HookServer, Message
from tests.gateway.mail_server import MailServer
from tests.gateway.running_gateway import ROOT, MakeGateway, RunningGateway
from tests.gateway.test_gateway_mail import nothing_is_pending, reader, settings, spent, states
from tests.gateway.waiting_for import until

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
APP, GONE, CHAT = "/app", "/gone", "/chat/S3CRET"


@pytest.fixture
def mail_server(tmp_path: Path) -> Iterator[MailServer]:
    server = MailServer(tmp_path / "mails")
    yield server
    server.stop()


@pytest.fixture
def hooks() -> HookServer:
    return HookServer()


def documented_check() -> Callable[[str, dict[str, str], bytes], bool]:
    """The one that docs/notifications.md tells applications to make."""
    text = (ROOT / "docs" / "notifications.md").read_text()
    found = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert found is not None
    names: dict[str, Any] = {}
    exec(found[1], names)
    check: Callable[[str, dict[str, str], bytes], bool] = names["is_genuine"]
    return check


def is_told_and_signed(message: Message, user: str) -> None:
    """The news of 80 %, and a signature by which the application knows them."""
    headers, body = message
    told = json.loads(body)
    assert (told["user"], told["kind"]) == (user, "crossing")
    assert told["facts"]["threshold_percent"] == 80
    assert told["links"]["upgrade"] == "https://app.example/upgrade"
    assert headers["webhook-id"] == told["id"]
    check = documented_check()
    assert check(SECRET, headers, body)
    assert not check(SECRET, headers, body + b" ")


def operators_are_told(gateway: RunningGateway, hooks: HookServer) -> None:
    """Of the same trouble once."""

    async def alarm(stores: Stores) -> None:
        now_ms = int(time.time() * 1000)
        for _ in range(2):
            await stores.notices.alarm(Alarm("canary_failed", now_ms, {"why": "9 ≠ 8"}))

    gateway.in_stores(alarm)
    said = "the canary failed: 9 ≠ 8"

    def told() -> list[str]:
        texts = [json.loads(body)["text"] for _, body in hooks.got.get(CHAT, ())]
        return [text for text in texts if said in text]

    assert len(until(told, 30, "operators to be told")) == 1


def test_a_receiver_that_is_away_and_a_kill_make_no_second_webhook_and_hold_up_no_mail(
    make_gateway: MakeGateway, mail_server: MailServer, hooks: HookServer
) -> None:
    changes = settings(mail_server)
    app, gone = ({"url": hooks.url(path), "secret": SECRET} for path in (APP, GONE))
    changes["notify"] |= {
        "webhooks": [app, gone | {"kinds": ["exhausted"]}],
        "operators": [{"webhook": hooks.url(CHAT)}],
    }
    hooks.answers[GONE] = 307
    gateway = make_gateway(**changes).start()
    user, key, address = reader(gateway, 79_000)
    spent(gateway, key, 2000)
    mail_server.await_mails(address)  # while the application is away
    until(lambda: gateway.metric("way_away", way="webhook") == 1, 30, "the way to be shown away")
    assert gateway.metric("way_away", way="mail") == 0
    os.kill(gateway.child("jobs"), signal.SIGKILL)
    hooks.start()
    until(lambda: hooks.got.get(APP), 90, "the webhook")
    nothing_is_pending(gateway, user, 2)
    (message,) = hooks.got[APP]
    is_told_and_signed(message, user)

    spent(gateway, key, 19_000)  # all of it
    nothing_is_pending(gateway, user, 5)
    ended = [state for kind, _, state in states(gateway, user) if kind == "exhausted"]
    assert sorted(ended) == ["dead", "sent", "sent"]
    assert "/redirected" not in hooks.got
    assert [json.loads(body)["kind"] for _, body in hooks.got[APP]] == ["crossing", "exhausted"]
    assert gateway.metric("way_away", way="webhook") == 0
    operators_are_told(gateway, hooks)
    gateway.stop()
    log = gateway.stderr.read_text()
    assert "S3CRET" not in log
    assert SECRET not in log
    hooks.stop()
