"""Telling people, put together: every way of the configuration, and the links that letters have.

Where there is no way nobody is told and nothing is looked for. It knows no server itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from gateway.app.mailing import open_mail
from gateway.app.secrets_of_state import pepper_of
from gateway.app.stores import Stores
from gateway.config import Settings
from gateway.core.notices import KINDS, unsubscribe_signature
from gateway.core.webhook_signature import signing_key
from gateway.jobs.alarms import ByChat
from gateway.jobs.letters import ByMail, Letters
from gateway.jobs.news import News, NewsTerms
from gateway.jobs.send import Carrier, Send
from gateway.jobs.service import Step
from gateway.jobs.tell import Tell
from gateway.jobs.webhooks import ByWebhook
from gateway.ports.metrics import JobsMetrics
from gateway.web.quota_api import PREFIX
from gateway.web.words import instant


@dataclass(frozen=True, slots=True)
class Telling:
    """The jobs that tell people: one finds and deals out, one for each way sends."""

    tell: Tell
    sends: tuple[Send, ...]

    @property
    def steps(self) -> list[Step]:
        """All of them."""
        return [self.tell, *self.sends]


def telling(settings: Settings, stores: Stores, metrics: JobsMetrics) -> Telling | None:
    """None where the configuration names no way."""
    carriers = _carriers(settings, stores)
    if not carriers:
        return None
    ways = [carrier.way for carrier in carriers]
    tell = Tell(stores.deliveries, ways, settings.plan, stores.clock)
    sends = [
        Send(stores.deliveries, carrier, metrics, stores.clock, lambda: tell.leads)
        for carrier in carriers
    ]
    return Telling(tell, tuple(sends))


def about_sending(steps: Iterable[Step]) -> dict[str, Any]:
    """For operators: which ways there are, what this process sent last, when it looked for news
    last. Another gateway's process may be the one that does so."""
    steps = list(steps)
    tells = [step for step in steps if isinstance(step, Tell)]
    sends = [step for step in steps if isinstance(step, Send)]
    ran_ms = [tell.lately_ms for tell in tells if tell.lately_ms is not None]
    return {
        "sending": {
            "smtp": any(send.way.name == "mail" for send in sends),
            "is_sender": any(tell.leads for tell in tells),
            "last_run_at": instant(ran_ms[0]) if ran_ms else None,
            "ways": [_about_way(send) for send in sends],
        }
    }


def _about_way(send: Send) -> dict[str, Any]:
    last = send.last and {"kind": send.last.kind, "at": instant(send.last.at_ms)}
    way = {"way": send.way.name, "to": send.way.address or None}
    return {**way, "away": send.away is not None, "last_sent": last}


def _carriers(settings: Settings, stores: Stores) -> list[Carrier]:
    terms = NewsTerms(
        settings.plan,
        settings.public_url,
        settings.refusal.upgrade_url,
        settings.refusal.topup_url,
    )
    news, carriers = News(terms), list[Carrier]()
    mail, notify = open_mail(settings), settings.notify
    if mail is not None:
        carriers.append(ByMail(mail, _letters(settings, news)))
    if notify.webhooks or notify.operators:
        from gateway.adapters.hooks import HttpHook

        for each in notify.webhooks:
            hook, key = HttpHook(each.url.reveal()), signing_key(each.secret.reveal())
            carriers.append(ByWebhook(hook, key, each.kinds or KINDS, news, stores.clock))
        carriers += [
            ByChat(HttpHook(each.webhook.reveal()), settings.public_url)
            for each in notify.operators
        ]
    return carriers


def _letters(settings: Settings, news: News) -> Letters:
    pepper = pepper_of(settings)

    def unsubscribe_url(user_id: str, kind: str) -> str:
        signature = unsubscribe_signature(pepper, user_id, kind)
        query = urlencode({"user": user_id, "kind": kind, "signature": signature})
        return f"{settings.public_url}{PREFIX}unsubscribe?{query}"

    return Letters(news, unsubscribe_url)
