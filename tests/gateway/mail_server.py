"""A real mail server (aiosmtpd) as a process of its own, which may go away and come back.

It keeps each mail that it takes as a file. The name in front of the @ decides what it says: `gone…`
is refused for good, `busy…` for now.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from functools import partial
from pathlib import Path

from gateway.adapters.embedded.run_as import die_with_parent
from tests.gateway.waiting_for import until

_ROOT = Path(__file__).resolve().parents[2]
_SOURCE = "tests.gateway.mail_server"


class MailServer:
    """Start it, stop it, start it again on the same port; `mails` are all that it ever took."""

    def __init__(self, place: Path) -> None:
        self._place = place
        place.mkdir()
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            self.port = int(free.getsockname()[1])
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            (sys.executable, "-m", _SOURCE, str(self.port), str(self._place)),
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

    def mails(self, address: str) -> list[EmailMessage]:
        """What was taken for this address, in its order."""
        files = sorted(self._place.glob("*.eml"))
        found = [message_from_bytes(file.read_bytes(), policy=default) for file in files]
        return [mail for mail in found if isinstance(mail, EmailMessage) and mail["To"] == address]

    def await_mails(self, address: str, mails: int = 1, wait_s: float = 30) -> list[EmailMessage]:
        """Wait until there are so many."""
        until(lambda: len(self.mails(address)) >= mails, wait_s, f"{mails} mails to {address}")
        return self.mails(address)


def _serve(port: int, place: Path) -> None:
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
            content = envelope.content
            assert isinstance(content, bytes)
            (place / f"{name}.part").write_bytes(content)
            (place / f"{name}.part").rename(place / f"{name}.eml")
            return "250 OK"

    controller = Controller(Keep(), hostname="127.0.0.1", port=port)
    controller.start()
    print("ready", flush=True)
    signal.pause()


if __name__ == "__main__":
    _serve(int(sys.argv[1]), Path(sys.argv[2]))
