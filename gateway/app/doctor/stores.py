"""What the doctor says of Redis and Postgres, after asking them.

Nothing is changed, and nothing started: an embedded store that does not run is not a fault, for
`serve` runs it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from gateway.adapters.postgres.examining import LedgerFacts, Sending, examine_ledger
from gateway.adapters.redis_store.checks import facts_of, faults_of, warnings_of
from gateway.adapters.redis_store.clients import open_client
from gateway.adapters.redis_store.topology import Topology
from gateway.adapters.redis_store.urls import is_cluster
from gateway.app.doctor.finding import Finding
from gateway.app.embedded import ledger_url_of, redis_url_of
from gateway.config import Settings
from gateway.config.values import StoreUrl
from gateway.ports.clock import Clock
from gateway.ports.ledger import LedgerUnavailable
from gateway.ports.quota_store import StoreUnavailable

_SKEW_MS_MAX = 2_000  # more is no fault yet, but no machine with a synchronised clock has it


async def redis(settings: Settings, clock: Clock) -> Sequence[Finding]:
    """Each server: there, and fit to keep money."""
    url = redis_url_of(settings)
    try:
        if not is_cluster(url):
            return await _server(url, settings.redis.url.shown, clock, in_cluster=False)
        topology = Topology(url, settings.redis.shards)
        try:
            await topology.refresh()
            nodes = list(topology.urls)
        finally:
            await topology.aclose()
        found = []
        for node in nodes:
            place = StoreUrl(node).shown
            found.extend(await _server(node, place, clock, in_cluster=True))
        return found
    except StoreUnavailable as error:
        return [_away("redis", settings.redis.url, str(error))]


async def _server(url: str, place: str, clock: Clock, in_cluster: bool) -> list[Finding]:
    client = open_client(url)
    try:
        facts = await facts_of(client)
    finally:
        await client.aclose()
    now_ms = clock.now_ms()
    faults = faults_of(facts, now_ms, in_cluster)
    found = [Finding("redis", "wrong", fault, "the gateway refuses to start") for fault in faults]
    if not found:
        policy = facts.policy or "not told by the provider"
        text = f"Redis {facts.version}, {place}; eviction: {policy}"
        found.append(Finding("redis", "ok", text))
    for warning in warnings_of(facts):
        advice = "set appendonly yes; what was not drained is lost for good otherwise"
        found.append(Finding("redis", "warning", warning, advice))
    return [*found, _clock("redis clock", facts.now_ms - now_ms)]


async def postgres(settings: Settings, clock: Clock) -> tuple[Sequence[Finding], Sending | None]:
    """The ledger's server and schema; and what was sent to people, which is kept there."""
    try:
        facts = await examine_ledger(ledger_url_of(settings))
    except (LedgerUnavailable, ValueError) as error:
        return [_away("postgres", settings.ledger.url, str(error))], None
    skew_ms = facts.now_ms - clock.now_ms()
    text = f"PostgreSQL {facts.version}, {settings.ledger.url.shown}"
    found = [Finding("postgres", "ok", text), *_schema(facts), *_ledger(facts)]
    return [*found, _clock("postgres clock", skew_ms)], facts.sending


def _schema(facts: LedgerFacts) -> Iterator[Finding]:
    check = "postgres schema"
    for name in facts.changed:
        yield Finding(
            check,
            "wrong",
            f"migration {name} was changed after it was applied",
            "restore the file, and put the change into a new one",
        )
    if facts.missing:
        at = f"at {facts.newest}" if facts.newest else "empty"
        yield Finding(
            check,
            "warning",
            f"it is {at}; not applied yet: {', '.join(facts.missing)}",
            "run quota-gateway migrate; serve does so at its start",
        )
    elif not facts.changed:
        yield Finding(check, "ok", f"at {facts.newest}")
    if facts.lacking:
        yield Finding(
            "postgres privileges",
            "wrong",
            f"this login lacks {', '.join(facts.lacking)}",
            "grant it, or connect as the owner of the tables",
        )


def _ledger(facts: LedgerFacts) -> Iterator[Finding]:
    check = "postgres partitions"
    if facts.has_next_month:
        yield Finding(check, "ok", "next month's is there")
    elif facts.has_next_month is False:
        advice = "let the jobs process run: it makes three months ahead"
        yield Finding(check, "warning", "next month's is not there", advice)
    if facts.has_strays:
        advice = "nothing is lost; move them into partitions of their months when it suits"
        yield Finding(check, "warning", "ledger_default holds entries", advice)
    if facts.dead_rows:
        yield Finding(
            "ledger",
            "warning",
            f"{facts.dead_rows} events could not be booked",
            "look at the table ledger_dead (docs/ledger.md)",
        )


def _away(check: str, url: StoreUrl, why: str) -> Finding:
    if url.is_embedded:
        text = "the embedded one does not run"
        return Finding(check, "warning", text, "start the gateway: quota-gateway serve runs it")
    return Finding(
        check,
        "wrong",
        f"{url.shown} cannot be used: {why}",
        f"start it, or correct {'redis' if check == 'redis' else 'ledger'}.url",
    )


def _clock(check: str, skew_ms: int) -> Finding:
    text = f"{abs(skew_ms) / 1000:.1f} s {'ahead of' if skew_ms > 0 else 'behind'} this machine"
    if abs(skew_ms) > _SKEW_MS_MAX:
        return Finding(check, "warning", text, "synchronise the clocks of both machines")
    return Finding(check, "ok", text)


def moment(at_ms: int) -> str:
    """As operators read it."""
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
