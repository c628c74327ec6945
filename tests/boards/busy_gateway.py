"""A gateway on which everything has happened that a board can show, and what makes it happen.

Calls of each tier and outcome, a month used up, a limit a minute, a wrong key, a pack, a mail, a
call without a price; `keep_busy` goes on with a part of them so that rates have something to show.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.app.stores import Stores
from tests.gateway.mail_server import MailServer
from tests.gateway.running_gateway import RunningGateway, merged, prompt, running_gateway
from tests.gateway.standin_process import StandInProcess
from tests.gateway.waiting_for import until

_TOKENS, _FEW_TOKENS = "@stand-in usage=14/200", "@stand-in usage=14/5"
_ROUND = ("full", "near", "full", "hasty", "full", "spent", "full", "stranger")


@dataclass
class Busy:
    """The gateway, its surroundings, and the user whose board is looked at."""

    gateway: RunningGateway
    mail_server: MailServer
    stand_in: StandInProcess
    keys: dict[str, str]
    user_id: str = ""

    def call(self, who: str) -> int:
        body = prompt(_FEW_TOKENS if who == "near" else _TOKENS, max_tokens=300)
        return self.gateway.chat(self.keys[who], body).status


def settings(mail_server: MailServer) -> dict[str, Any]:
    smtp = {"host": "127.0.0.1", "port": mail_server.port, "tls": "none", "from": "q@example.org"}
    tiers = {
        "free": {"limits": {"tier_tokens": 4_000_000}},
        "lite": {"limits": {"rpm": 6}},
    }
    return {
        "notify": {"smtp": smtp},
        "plan": {"tiers": tiers},
        "redis": {"deadline_ms": 1000},
        "canary": {"every_s": 1},
    }


@contextmanager
def busy_gateway(place: Path, stores: Mapping[str, Any] | None = None) -> Iterator[Busy]:
    """Everything has happened once when the block begins. `stores`: settings of other ones than
    its own."""
    with ExitStack() as stack:
        mail_server = MailServer(place / "mails")
        stack.callback(mail_server.stop)
        stand_in = StandInProcess()
        stack.callback(stand_in.stop)
        changes = merged(settings(mail_server), stores or {})
        gateway = stack.enter_context(running_gateway(stand_in, changes))
        busy = Busy(gateway, mail_server, stand_in, {"stranger": "qg-of-nobody"})
        _make_users(busy)
        _call_once(busy)
        yield busy


def _call_once(busy: Busy) -> None:
    # A tier with a cap waits for its first share.
    until(lambda: busy.call("warned") == 200, 20, "the share of a tier")
    first = {who: busy.call(who) for who in ("full", "spent", "stranger")}
    assert first == {"full": 200, "spent": 429, "stranger": 401}, first
    assert 429 in {busy.call("hasty") for _ in range(20)}


def _make_users(busy: Busy) -> None:
    make = busy.gateway.new_user
    warned, busy.keys["warned"] = make("free", 79_900)
    _, busy.keys["spent"] = make("free", 100_000)
    _, busy.keys["hasty"] = make("lite")
    _, busy.keys["near"] = make("full", 1_594_000)  # so near that prompts are counted exactly
    busy.user_id, busy.keys["full"] = make("full", 1_281_500)

    async def write(stores: Stores) -> None:
        for user_id in (warned, busy.user_id):
            await stores.directory.set_email(user_id, f"{user_id}@example.org")

    busy.gateway.in_stores(write)
    credit = ("topup", "credit", busy.user_id, "--payment", "till-1")
    busy.gateway.cli(*credit)


@contextmanager
def keep_busy(busy: Busy) -> Iterator[None]:
    """Calls from a thread, one after the other, while the block runs; outcomes do not matter."""
    enough = threading.Event()

    def work() -> None:
        for who in itertools.cycle(_ROUND):
            if enough.wait(0.1):
                return
            busy.call(who)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield
    finally:
        enough.set()
        worker.join()
