"""The shape of the section `notify`: the mail server, and who is told otherwise.

Part of `shape`, and like it the one list of what may stand there. What goes together is in
`notify_checks`.
"""

from __future__ import annotations

from typing import Literal

from msgspec import field

from gateway.config import ranges
from gateway.config.section import Section, no_secret
from gateway.config.values import Secret


class Smtp(Section, frozen=True):
    """The server that takes mails over."""

    host: ranges.Text
    sender: ranges.Text = field(name="from")
    port: ranges.Port = 587
    tls: Literal["starttls", "tls", "none"] = "starttls"
    user: ranges.Text | None = None
    password: Secret = field(default_factory=no_secret)
    reply_to: ranges.Text | None = None
    templates: ranges.Text | None = None


class Notify(Section, frozen=True):
    """Mails and webhooks."""

    smtp: Smtp | None = None
    webhooks: tuple[ranges.NotYet, ...] = ()
    operators: tuple[ranges.NotYet, ...] = ()
