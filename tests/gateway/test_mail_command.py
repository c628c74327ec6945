"""`mail test`: what the server said, in plain words, and an exit code that a script can go by."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.mail_server import MailServer
from tests.gateway.running_gateway import MakeGateway
from tests.gateway.test_gateway_mail import settings

ADA = "ada@example.org"


@pytest.fixture
def mail_server(tmp_path: Path) -> Iterator[MailServer]:
    server = MailServer(tmp_path / "mails")
    yield server
    server.stop()


def test_it_sends_one_mail_and_says_what_became_of_it(
    make_gateway: MakeGateway, mail_server: MailServer
) -> None:
    gateway = make_gateway(**settings(mail_server))  # none needs to run
    server = f"127.0.0.1:{mail_server.port}"
    done = gateway.command("mail", "test", ADA)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"server   {server}, without TLS, not signed in\ntaken    OK\n")
    (mail,) = mail_server.mails(ADA)
    assert mail["Subject"] == "A test of the mail settings"
    assert mail["List-Unsubscribe"] is None

    refused = gateway.command("mail", "test", "gone@example.org")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "failed   550 there is nobody of this name" in refused.stderr
    assert "to do    the server refuses this address" in refused.stderr

    mail_server.stop()
    away = gateway.command("mail", "test", ADA, "--json")
    told = json.loads(away.stdout)
    assert (away.returncode, told["accepted"], told["server"]) == (1, False, server)
    assert "nothing listens there" in told["advice"]
    mail_server.start()


def test_without_a_server_it_says_which_key_to_set(make_gateway: MakeGateway) -> None:
    done = make_gateway().command("mail", "test", ADA)
    assert done.returncode == 2
    assert "names no mail server: set notify.smtp" in done.stderr
