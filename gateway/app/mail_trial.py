"""One mail through the configured server, and what became of it: `quota-gateway mail test`.

It goes the way that every mail goes, and what happened is told instead of being tried again. It
asks no store and needs no running gateway.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from gateway.app.mailing import open_mail
from gateway.config import Settings
from gateway.ports.carrying import CarrierAway, NotNow, Undeliverable
from gateway.ports.mail import Letter

_TLS = {
    "starttls": "TLS by STARTTLS, certificate checked",
    "tls": "TLS, certificate checked",
    "none": "without TLS",
}


class NoMailServer(ValueError):
    """The configuration names no mail server."""


@dataclass(frozen=True, slots=True)
class MailTrial:
    """`said` are the server's words where it took the mail over, else what went wrong; `advice` is
    what to do then."""

    address: str
    server: str
    connection: str
    user: str | None
    accepted: bool
    said: str
    advice: str | None


async def try_mail(settings: Settings, address: str) -> MailTrial:
    """Send one. NoMailServer; ValueError names a template that cannot be used."""
    smtp, mail = settings.notify.smtp, open_mail(settings)
    if smtp is None or mail is None:
        raise NoMailServer
    from gateway.adapters.mail.advice import advice
    from gateway.adapters.mail.words import FIGURES

    figures = {name: f"({name})" for name in FIGURES}
    letter = Letter(address, "test", secrets.token_hex(16), figures, (), "")
    accepted, what_to_do = True, None
    try:
        said = await mail.send(letter)
    except (CarrierAway, NotNow, Undeliverable) as error:
        accepted, said, what_to_do = False, str(error), advice(error)
    finally:
        await mail.rest()
    return MailTrial(
        address=address,
        server=f"{smtp.host}:{smtp.port}",
        connection=_TLS[smtp.tls],
        user=smtp.user,
        accepted=accepted,
        said=" ".join(said.split()),
        advice=what_to_do,
    )
