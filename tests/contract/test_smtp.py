"""Mail over real SMTP servers: TLS both ways, sign-in, one connection for many, and trouble."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from gateway.adapters.mail.advice import advice
from gateway.adapters.mail.smtp import SmtpMail, SmtpTerms
from gateway.adapters.mail.words import FIGURES, Templates
from gateway.ports.carrying import CarrierAway, NotNow, Undeliverable
from gateway.ports.mail import Letter
from tests.gateway.mail_server import PASSWORD, USER, MailServer

ADA = "ada@example.org"
MakeServer: TypeAlias = Callable[..., MailServer]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate of its own for 127.0.0.1, in one file."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the keys")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=mail"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")),
        ],
        check=True,
        capture_output=True,
    )
    both = folder / "both.pem"
    both.write_text((folder / "key.pem").read_text() + (folder / "certificate.pem").read_text())
    return both


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[MakeServer]:
    made: list[MailServer] = []

    def make(tls: str = "none", certificate: Path | None = None) -> MailServer:
        made.append(MailServer(tmp_path / f"mails-{len(made)}", tls, certificate))
        return made[-1]

    yield make
    for server in made:
        server.stop()


def mail_to(server: MailServer, **changes: Any) -> SmtpMail:
    terms: dict[str, Any] = {
        "host": "127.0.0.1", "port": server.port, "tls": "none", "user": None, "password": "",
        "sender": "Quota <quota@example.org>", "reply_to": None,
    }  # fmt: skip
    return SmtpMail(SmtpTerms(**(terms | changes)), Templates())


def letter(address: str = ADA, number: int = 0) -> Letter:
    return Letter(address, "test", f"{number:032x}", dict.fromkeys(FIGURES, "9"), (), "")


@pytest.mark.parametrize("tls", ["starttls", "tls"])
async def test_mails_go_over_checked_tls_to_who_is_signed_in(
    make_server: MakeServer, certificate: Path, monkeypatch: pytest.MonkeyPatch, tls: str
) -> None:
    server = make_server(tls, certificate)
    mail = mail_to(server, tls=tls, user=USER, password=PASSWORD)
    with pytest.raises(CarrierAway, match="certificate verify failed") as distrusted:
        await mail.send(letter())
    assert "SSL_CERT_FILE" in advice(distrusted.value)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert await mail.send(letter()) == "OK"
    await mail.rest()
    wrong = mail_to(server, tls=tls, user=USER, password="another")
    with pytest.raises(CarrierAway, match="535") as refused:
        await wrong.send(letter())
    await wrong.rest()
    assert "notify.smtp.password" in advice(refused.value)
    assert "another" not in str(refused.value)
    assert server.mails(ADA)


async def test_many_letters_go_over_one_connection(make_server: MakeServer) -> None:
    server = make_server()
    mail = mail_to(server)
    for number in range(5):
        await mail.send(letter(number=number))
    await mail.rest()
    assert (len(server.mails(ADA)), server.connections) == (5, 1)
    await mail.send(letter(number=9))
    await mail.rest()
    assert server.connections == 2


async def test_one_refused_address_leaves_the_next_letter_unharmed(
    make_server: MakeServer,
) -> None:
    mail = mail_to(server := make_server())
    with pytest.raises(Undeliverable, match="550"):
        await mail.send(letter("gone@example.org"))
    with pytest.raises(NotNow, match="450"):
        await mail.send(letter("busy@example.org"))
    await mail.send(letter())
    await mail.rest()
    assert len(server.mails(ADA)) == 1


@pytest.mark.parametrize(
    "address",
    [
        "ada@example.org\r\nBcc: eve@example.org",
        "ada@example.org\nSubject: mine",
        "ada@example.org, eve@example.org",
        "ada@example.org>\r\nRCPT TO:<eve@example.org",
        "ada\0@example.org",
    ],
    ids=["bcc", "subject", "list", "rcpt", "nul"],
)
async def test_no_address_writes_a_header_or_a_command(
    make_server: MakeServer, address: str
) -> None:
    mail = mail_to(server := make_server())
    with pytest.raises(Undeliverable, match="cannot be written to"):
        await mail.send(letter(address))
    await mail.send(letter())
    await mail.rest()
    (only,) = server.mails(ADA)
    assert (only["Bcc"], only["Subject"]) == (None, "A test of the mail settings")
    assert not server.mails("eve@example.org")


async def test_a_server_that_goes_away_is_away_until_it_is_back(make_server: MakeServer) -> None:
    mail = mail_to(server := make_server())
    await mail.send(letter())
    server.stop()
    for _ in range(2):
        with pytest.raises(CarrierAway) as gone:
            await mail.send(letter(number=1))
    assert "nothing listens there" in advice(gone.value)
    server.start()
    await mail.send(letter(number=1))
    await mail.rest()
    assert len(server.mails(ADA)) == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tls": "starttls"}, "offers no STARTTLS"),
        ({"tls": "tls"}, "does not speak TLS here"),
        ({"user": "somebody", "password": "x"}, "takes no password on this connection"),
        ({"host": "no-such-host.invalid"}, "finds no such host"),
    ],
    ids=["starttls", "tls", "auth", "host"],
)
async def test_what_is_wrong_with_the_settings_is_said_in_their_words(
    make_server: MakeServer, changes: dict[str, Any], said: str
) -> None:
    mail = mail_to(make_server(), **changes)
    with pytest.raises(CarrierAway) as wrong:
        await mail.send(letter())
    assert said in advice(wrong.value)
