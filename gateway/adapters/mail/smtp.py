"""Letters over SMTP (aiosmtplib), on one connection that is kept while there is something to send.

Promises that an address reaches a header only if RFC 5322 allows it, that a letter sent again has
the same Message-ID, and that each failure has the name of what follows from it: this address is
refused for good (5xx), or for now (4xx), or no letter can be left at all. List-Unsubscribe is that
of RFC 8058. TLS is checked against the system's authorities.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import formatdate, parseaddr

import aiosmtplib

from gateway.adapters.mail.words import Templates
from gateway.core.identity import valid_email
from gateway.ports.carrying import CarrierAway, NotNow, Undeliverable
from gateway.ports.mail import Letter

_TIMEOUT_S, _ATTEMPT_S, _GOODBYE_S = 10.0, 30.0, 1.0  # of each step, of all
_FOR_GOOD = 500


@dataclass(frozen=True, slots=True)
class SmtpTerms:
    """The server and who writes. `tls`: starttls, tls or none."""

    host: str
    port: int
    tls: str
    user: str | None
    password: str
    sender: str
    reply_to: str | None


class SmtpMail:
    """Fulfils the port `Mail`."""

    def __init__(self, terms: SmtpTerms, templates: Templates) -> None:
        self._terms = terms
        self._templates = templates
        self._smtp: aiosmtplib.SMTP | None = None

    async def send(self, letter: Letter) -> str:
        message = self.message(letter)
        try:
            async with asyncio.timeout(_ATTEMPT_S):
                return await self._leave(message)
        except BaseException as error:
            self._forget()
            if isinstance(error, aiosmtplib.SMTPException | OSError | ValueError):
                raise CarrierAway(f"{type(error).__name__}: {error}") from error
            raise

    async def rest(self) -> None:
        """Servers end connections on which nothing happens; so we do."""
        if self._smtp is not None:
            with suppress(aiosmtplib.SMTPException, OSError):
                await self._smtp.quit(timeout=_GOODBYE_S)
        self._forget()

    async def _leave(self, message: EmailMessage) -> str:
        smtp = await self._connected()
        try:
            _, said = await smtp.send_message(message)
        except aiosmtplib.SMTPRecipientsRefused as error:
            raise _of_answer(error.recipients[0].code, error.recipients[0].message) from error
        except aiosmtplib.SMTPDataError as error:
            raise _of_answer(error.code, error.message) from error
        except aiosmtplib.SMTPNotSupported as error:  # an address beyond ASCII
            raise Undeliverable(str(error)) from error
        return said

    def message(self, letter: Letter) -> EmailMessage:
        """The letter as it is sent. Undeliverable where its address cannot be one."""
        words, terms = self._templates.words(letter), self._terms
        name, sender = parseaddr(terms.sender)
        message = EmailMessage()
        try:
            if not valid_email(letter.address):
                raise ValueError("not an address")
            message["To"] = Address(addr_spec=letter.address)
            message["From"] = Address(display_name=name, addr_spec=sender)
            if terms.reply_to:
                message["Reply-To"] = Address(addr_spec=terms.reply_to)
            message["Subject"] = words.subject
        except (ValueError, MessageError, IndexError) as error:
            raise Undeliverable(f"the address cannot be written to: {error}") from error
        message["Date"] = formatdate(usegmt=True)
        message["Message-ID"] = f"<{letter.key}@{sender.rpartition('@')[2]}>"
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no answering machine answers
        if letter.unsubscribe_url:
            message["List-Unsubscribe"] = f"<{letter.unsubscribe_url}>"
            message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
        message.set_content(words.text)
        message.add_alternative(words.html, subtype="html")
        return message

    async def _connected(self) -> aiosmtplib.SMTP:
        if self._smtp is not None and self._smtp.is_connected:
            return self._smtp
        terms = self._terms
        self._smtp = smtp = aiosmtplib.SMTP(
            hostname=terms.host,
            port=terms.port,
            username=terms.user,
            password=terms.password if terms.user else None,
            use_tls=terms.tls == "tls",
            start_tls=terms.tls == "starttls",
            timeout=_TIMEOUT_S,
        )
        await smtp.connect()
        return smtp

    def _forget(self) -> None:
        """Drop the connection: the next letter makes a new one."""
        smtp, self._smtp = self._smtp, None
        if smtp is not None:
            smtp.close()


def _of_answer(code: int, text: str) -> Undeliverable | NotNow:
    said = f"{code} {text}"
    return Undeliverable(said) if code >= _FOR_GOOD else NotNow(said)
