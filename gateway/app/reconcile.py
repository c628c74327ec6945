"""`ledger reconcile`: the ledger and OpenAI's own counts of the same days, read and compared.

Needs Postgres and OpenAI, and not Redis; what is not drained yet is not in the ledger. Only models
whose upstream is OpenAI are looked at: of all others OpenAI knows nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from urllib.parse import urlsplit

from gateway.adapters.openai_organisation import Range, open_organisation
from gateway.adapters.postgres.connection import open_pool
from gateway.adapters.postgres.reports import PostgresReports
from gateway.app.command_stores import borrowed_stores
from gateway.app.embedded import ledger_url_of
from gateway.app.ledger_schema import prepare_ledger
from gateway.config import Settings
from gateway.core.models import entry_behind
from gateway.core.reconciling import Booked, Comparison, Terms, compare

_OPENAI = "api.openai.com"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Days (UTC), both included; the upstreams that are OpenAI; of which projects there; the rate;
    and where OpenAI's administration API is."""

    first: date
    last: date
    upstreams: frozenset[str]
    projects: tuple[str, ...]
    gbp_per_usd: Decimal
    api_base: str


def openai_upstreams(settings: Settings) -> frozenset[str]:
    """The upstreams of the configuration that are OpenAI itself, in whichever region."""
    hosts = {name: urlsplit(each.base_url).hostname for name, each in settings.upstreams.items()}
    return frozenset(
        name for name, host in hosts.items()
        if host is not None and (host == _OPENAI or host.endswith(f".{_OPENAI}"))
    )  # fmt: skip


async def reconcile(settings: Settings, wanted: Wanted, admin_key: str) -> Comparison:
    """Read both sides and compare them. LedgerUnavailable, OrganisationUnavailable."""
    from_s, until_s = _start_s(wanted.first), _start_s(wanted.last + timedelta(days=1))
    asked = Range(from_s, until_s, wanted.projects)
    async with open_organisation(admin_key, wanted.api_base) as openai:
        used, paid = await openai.used(asked), await openai.paid(asked)
    booked = await _booked(settings, from_s * 1000, until_s * 1000)
    return compare(
        [row for row in booked if _is_of(settings, row, wanted.upstreams)],
        used,
        paid,
        _terms(settings, wanted),
    )


async def _booked(settings: Settings, from_ms: int, until_ms: int) -> list[Booked]:
    async with borrowed_stores(settings):
        await prepare_ledger(settings)
        pool = await open_pool(ledger_url_of(settings))
        try:
            return list(await PostgresReports(pool).booked(from_ms, until_ms))
        finally:
            await pool.close()


def _is_of(settings: Settings, row: Booked, upstreams: frozenset[str]) -> bool:
    """An entry that is no longer in the configuration may have been OpenAI's, and counts."""
    model = settings.models.get(row.model)
    return model is None or model.upstream in upstreams


def _terms(settings: Settings, wanted: Wanted) -> Terms:
    models = [each for each in settings.models.values() if each.upstream in wanted.upstreams]

    def entry_of(name: str) -> str | None:
        entry = entry_behind(models, name)
        return None if entry is None else entry.name

    def is_default(price_id: str, model: str) -> bool:
        price = settings.prices.by_id(price_id, model)
        return price is not None and price.is_default

    return Terms(entry_of, is_default, wanted.gbp_per_usd, datetime.now(UTC).date().isoformat())


def _start_s(day: date) -> int:
    return int(datetime.combine(day, time(), UTC).timestamp())
