"""Rules over the section `notify`: addresses that can be written from, passwords nobody overhears.

Secrets are described, never shown; no server is asked here.
"""

from __future__ import annotations

from collections.abc import Iterator
from email.utils import getaddresses
from pathlib import Path
from urllib.parse import urlsplit

from gateway.config.errors import Problem
from gateway.config.notify_shape import Notify, Smtp
from gateway.config.values import Secret
from gateway.core.identity import valid_email
from gateway.core.webhook_signature import signing_key

_OURSELVES = ("localhost", "127.0.0.1", "::1")
_MAKE_SECRET = (
    "expected whsec_ and the base64 of 24 to 64 random bytes, as this makes it: "
    'echo "whsec_$(openssl rand -base64 32)"'
)
_BOUNDS = set('<>()[];:\\"')


def check_notify(notify: Notify) -> Iterator[Problem]:
    """Everything that is wrong with the section."""
    if notify.smtp is not None:
        yield from _smtp(notify.smtp)
    urls: dict[tuple[str, Secret], str] = {}
    for i, webhook in enumerate(notify.webhooks):
        path = f"notify.webhooks[{i}]"
        yield from _url(f"{path}.url", webhook.url, urls)
        try:
            signing_key(webhook.secret.reveal())
        except ValueError as error:
            yield Problem(f"{path}.secret", f"{error}; {_MAKE_SECRET}")
    for i, hook in enumerate(notify.operators):
        yield from _url(f"notify.operators[{i}].webhook", hook.webhook, urls)


def _url(path: str, url: Secret, seen: dict[tuple[str, Secret], str]) -> Iterator[Problem]:
    """One that can be posted to, and stands once in its list: deliveries are told apart by it."""
    if not _is_hook(url.reveal()):
        yield Problem(
            path, "expected an http:// or https:// URL without user, password or fragment"
        )
        return
    first = seen.setdefault((path.partition("[")[0], url), path)
    if first != path:
        yield Problem(path, f"is the same as {first}")


def _is_hook(url: str) -> bool:
    try:
        parts = urlsplit(url)
        has_place = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False
    plain = url.isprintable() and url.isascii() and not set(' @#"<>') & set(url)
    return has_place and plain and parts.scheme in ("http", "https")


def _smtp(smtp: Smtp) -> Iterator[Problem]:
    for name, text in (("from", smtp.sender), ("reply_to", smtp.reply_to)):
        if text is not None and not _is_writer(text, with_name=name == "from"):
            example = 'such as "Quota <quota@example.org>"' if name == "from" else "without a name"
            yield Problem(f"notify.smtp.{name}", f"expected one mail address, {example}")
    if not all(character.isalnum() or character in ".-_:" for character in smtp.host):
        yield Problem("notify.smtp.host", "expected the name or address of a server, nothing more")
    if (smtp.user is None) != (not smtp.password):
        yield Problem("notify.smtp.password", "expected a user with a password, or neither")
    if smtp.password and smtp.tls == "none" and smtp.host not in _OURSELVES:
        yield Problem(
            "notify.smtp.tls", "expected starttls or tls: without, the password could be overheard"
        )
    if smtp.templates is not None and not Path(smtp.templates).is_dir():
        yield Problem("notify.smtp.templates", "expected a folder that is there")


def _is_writer(text: str, *, with_name: bool) -> bool:
    found = getaddresses([text])
    address = found[0][1]
    plain = valid_email(address) and address.isascii() and not _BOUNDS & set(address)
    return plain and len(found) == 1 and text.isprintable() and (with_name or text == address)
