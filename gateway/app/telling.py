"""Telling people, put together: what the jobs send, and the links by which readers turn it off.

Where no mail server is configured nothing is sent. It knows no mail server itself.
"""

from __future__ import annotations

from urllib.parse import urlencode

from gateway.app.mailing import open_mail
from gateway.app.secrets_of_state import pepper_of
from gateway.app.stores import Stores
from gateway.config import Settings
from gateway.core.notices import unsubscribe_signature
from gateway.jobs.letters import Letters, LetterTerms
from gateway.jobs.service import Step
from gateway.jobs.tell import Tell
from gateway.ports.metrics import JobsMetrics
from gateway.web.quota_api import PREFIX


def telling(settings: Settings, stores: Stores, metrics: JobsMetrics) -> list[Step]:
    """The job that sends; none without a mail server."""
    mail = open_mail(settings)
    if mail is None:
        return []
    pepper = pepper_of(settings)

    def unsubscribe_url(user_id: str, kind: str) -> str:
        signature = unsubscribe_signature(pepper, user_id, kind)
        query = urlencode({"user": user_id, "kind": kind, "signature": signature})
        return f"{settings.public_url}{PREFIX}unsubscribe?{query}"

    terms = LetterTerms(
        settings.plan, settings.refusal.upgrade_url, settings.refusal.topup_url, unsubscribe_url
    )
    return [Tell(stores.deliveries, mail, Letters(terms), metrics, stores.clock)]
