"""What the doctor finds around the gateway: its own processes, its address for links, the mail
server.

Each is asked once, briefly. No mail is sent: that is `quota-gateway mail test`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import aiohttp

from gateway.adapters.mail.words import TemplateError
from gateway.adapters.postgres.examining import Sending
from gateway.app.doctor.configured import is_loopback
from gateway.app.doctor.finding import Finding
from gateway.app.doctor.stores import moment
from gateway.app.mailing import open_mail
from gateway.config import Settings
from gateway.config.values import Address

_ASK_S = 5.0
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # where to ask who listens there


@dataclass(frozen=True, slots=True)
class Readiness:
    """What `/readyz` answers: each process with its trouble, or 'ok'; and what else it says."""

    where: str
    checks: Mapping[str, str] | None
    about: Mapping[str, Any]


async def ask_ready(settings: Settings, places: Mapping[str, str]) -> Readiness:
    """Ask the gateway beside us, where it noted its ops port, else where that is configured."""
    listen = settings.listen.ops
    address = Address(_EVERYWHERE.get(listen.host, listen.host), listen.port)
    url = places.get("ops", f"http://{address}")
    try:
        async with _session() as session, session.get(f"{url}/readyz") as response:
            said = await response.json()
        return Readiness(url, dict(said["checks"]), dict(said.get("about", {})))
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError, TypeError):
        return Readiness(url, None, {})


def processes(ready: Readiness) -> Finding:
    """All of them run and are ready."""
    if ready.checks is None:
        return Finding(
            "processes",
            "warning",
            f"no gateway answers at {ready.where}/readyz",
            "start it with quota-gateway serve, or correct listen.ops",
        )
    trouble = [f"{name}: {state}" for name, state in ready.checks.items() if state != "ok"]
    if trouble:
        advice = "look at the gateway's log"
        return Finding("processes", "wrong", "; ".join(trouble), advice)
    return Finding("processes", "ok", f"ready: {', '.join(ready.checks)}")


async def public_url(settings: Settings, is_running: bool) -> Finding:
    """The links in mails lead to this gateway, and nobody overhears who follows them."""
    url, check, advice = settings.public_url, "public_url", "set public_url (QUOTA_PUBLIC_URL)"
    if is_loopback(url):
        text = f"{url}: links in mails and the checkout lead to each reader's own machine"
        return Finding(check, "warning", text, f"{advice} to the address that people use")
    if not url.startswith("https://"):
        text = f"{url} is not encrypted: keys that are typed there can be overheard"
        return Finding(check, "warning", text, f"{advice} to an https:// address")
    if not is_running:
        return Finding(check, "ok", f"{url}; not asked, as the gateway does not run")
    try:
        async with _session() as session, session.get(f"{url}/quota/") as response:
            if response.status == 200:
                return Finding(check, "ok", f"{url}/quota/ answers")
            said = f"HTTP {response.status}"
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        said = str(error) or type(error).__name__
    text = f"{url}/quota/ does not answer from here: {said}"
    return Finding(check, "warning", text, "let the ingress pass /quota/ on (docs/status-page.md)")


async def mail(settings: Settings, sending: Sending | None, ready: Readiness) -> Finding:
    """Somebody takes mails over; what was sent last, and when sending was last looked at."""
    smtp = settings.notify.smtp
    if smtp is None:
        text = "no mail server is configured: nobody is warned by mail"
        return Finding("mail", "warning", text, "set notify.smtp (docs/notifications.md)")
    try:
        open_mail(settings)
    except TemplateError as error:
        return Finding("mail", "wrong", str(error), "mend the template, or take it away")
    where = f"{smtp.host}:{smtp.port}"
    try:
        async with asyncio.timeout(_ASK_S):
            _, writer = await asyncio.open_connection(smtp.host, smtp.port)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    except (OSError, TimeoutError) as error:
        why = str(error) or "no answer in time"
        text = f"{where} cannot be reached: {why}{_sent(sending, ready)}"
        return Finding("mail", "wrong", text, "correct notify.smtp, or let this machine reach it")
    text = f"{where} answers{_sent(sending, ready)}"
    if sending is not None and sending.dead:
        advice = "ask the table deliveries why (docs/notifications.md)"
        return Finding("mail", "warning", text, advice)
    return Finding("mail", "ok", text, "try it: quota-gateway mail test ADDRESS")


def _sent(sending: Sending | None, ready: Readiness) -> str:
    said = ""
    if sending is not None:
        last = "nothing"
        if sending.sent_ms is not None:
            last = f"{sending.kind} at {moment(sending.sent_ms)}"
        said = f"; sent last: {last}; waiting {sending.waiting}, given up {sending.dead}"
    ran_at = ready.about.get("sending", {}).get("last_run_at")
    return said if ran_at is None else f"{said}; looked for news at {ran_at}"


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_ASK_S))
