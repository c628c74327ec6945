"""A real mail server (aiosmtpd) as a process of its own, which may go away and come back.

It keeps each mail that it takes as a file. The name in front of the @ decides what it says: `gone…`
is refused for good, `busy…` for now. With a certificate it speaks TLS and wants to know who sends.
"""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from contextlib import closing
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from functools import partial
from pathlib import Path
from typing import Any

from gateway.adapters.embedded.run_as import die_with_parent
from tests.gateway.waiting_for import until

_ROOT = Path(__file__).resolve().parents[2]
_SOURCE = "tests.gateway.mail_server"
USER, PASSWORD = "quota", "a-p4ssword-of-mails"


class MailServer:
    """Start it, stop it, start it again on the same port; `mails` are all that it ever took."""

    def __init__(self, place: Path, tls: str = "none", certificate: Path | None = None) -> None:
        """`tls`: none; starttls or tls with a certificate and its key in one file, and then only
        USER with PASSWORD may send."""
        self._place, self._tls = place, (tls, str(certificate or ""))
        place.mkdir()
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            self.port = int(free.getsockname()[1])
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            (sys.executable, "-m", _SOURCE, str(self.port), str(self._place), *self._tls),
            cwd=_ROOT,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=partial(die_with_parent, signal.SIGTERM, os.getpid()),
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=20)

    @property
    def connections(self) -> int:
        """Over how many connections mails came."""
        return len({file.read_text() for file in self._place.glob("*.peer")})

    def mails(self, address: str) -> list[EmailMessage]:
        """What was taken for this address, in its order."""
        files = sorted(self._place.glob("*.eml"))
        found = [message_from_bytes(file.read_bytes(), policy=default) for file in files]
        return [mail for mail in found if isinstance(mail, EmailMessage) and mail["To"] == address]

    def await_mails(self, address: str, mails: int = 1, wait_s: float = 30) -> list[EmailMessage]:
        """Wait until there are so many."""
        until(lambda: len(self.mails(address)) >= mails, wait_s, f"{mails} mails to {address}")
        return self.mails(address)


def _secured(tls: str, certificate: str) -> dict[str, Any]:
    """What makes a server of aiosmtpd speak TLS and ask for the password."""
    from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

    def knows(
        server: SMTP, session: Session, envelope: Envelope, mechanism: str, given: object
    ) -> AuthResult:
        expected = LoginPassword(USER.encode(), PASSWORD.encode())
        return AuthResult(success=given == expected, handled=False)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    is_later = tls == "starttls"
    begun = {"tls_context": context, "require_starttls": True} if is_later else {}
    known = {"authenticator": knows, "auth_required": True, "auth_require_tls": is_later}
    return {**begun, **known, **({} if is_later else {"ssl_context": context})}


def _serve(port: int, place: Path, tls: str, certificate: str) -> None:
    from aiosmtpd.controller import Controller
    from aiosmtpd.smtp import SMTP, Envelope, Session

    class Keep:
        """Answers by the name of the address, and keeps what comes."""

        async def handle_RCPT(
            self,
            server: SMTP,
            session: Session,
            envelope: Envelope,
            address: str,
            options: list[str],
        ) -> str:
            if address.startswith("gone"):
                return "550 there is nobody of this name"
            if address.startswith("busy"):
                return "450 try again"
            envelope.rcpt_tos.append(address)
            return "250 OK"

        async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
            name = str(time.time_ns())
            (place / f"{name}.peer").write_text(str(session.peer[1]))
            content = envelope.content
            assert isinstance(content, bytes)
            (place / f"{name}.part").write_bytes(content)
            (place / f"{name}.part").rename(place / f"{name}.eml")
            return "250 OK"

    options = _secured(tls, certificate) if certificate else {}
    controller = Controller(Keep(), hostname="127.0.0.1", port=port, **options)
    controller.start()
    print("ready", flush=True)
    signal.pause()


if __name__ == "__main__":
    _serve(int(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
