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
from gateway.core.notices import Kind


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


class Webhook(Section, frozen=True):
    """A server of the application's own that is told what users are told. No kinds: all."""

    url: Secret
    secret: Secret
    kinds: tuple[Kind, ...] = ()


class Operators(Section, frozen=True):
    """Where operators read, in the form of Slack's incoming webhooks."""

    webhook: Secret


class Notify(Section, frozen=True):
    """Mails and webhooks."""

    smtp: Smtp | None = None
    webhooks: tuple[Webhook, ...] = ()
    operators: tuple[Operators, ...] = ()
