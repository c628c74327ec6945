"""Rows of Postgres as the core's own types: identities with their calendars, and packs.

Promises that what is missing in a row stands at its default, and that a row with more columns than
are known is read all the same. Knows no statement.
"""

from __future__ import annotations

import json

import asyncpg

from gateway.core.identity import Identity
from gateway.core.overrides import NO_OVERRIDES, Overrides, decode_overrides
from gateway.core.period import Calendar
from gateway.core.quota.entitle import Pack


def identity_of(record: asyncpg.Record) -> Identity:
    """A user, by the columns of the view `identities`."""
    return Identity(
        user_id=record["user_id"],
        payer=record["payer"],
        tier=record["tier"],
        rev=record["rev"],
        calendar=calendar_of(record),
        member_rev=record["member_rev"],
        email=record["email"],
        is_team=record["is_team"],
        is_blocked=record["is_blocked"],
        limits=overrides_of(record["limits"]),
        member_limits=overrides_of(record["member_limits"]),
        tier_set_ms=record["tier_set_ms"],
        is_service=record.get("is_service", False),
    )


def overrides_of(text: str | None) -> Overrides:
    """Limits in JSON; NULL, like an empty object, is none."""
    return NO_OVERRIDES if text in (None, "{}") else decode_overrides(text or "")


def calendar_of(record: asyncpg.Record) -> Calendar:
    """The calendar in a user's row."""
    return Calendar(
        anchor_day=record["anchor_day"],
        zone=record["zone"],
        since_ms=record["since_ms"],
        prior_anchor_day=record["prior_anchor_day"],
        prior_zone=record["prior_zone"],
        prior_since_ms=record["prior_since_ms"],
    )


def packs_of(listed: str | None) -> tuple[Pack, ...]:
    """Packs, listed in JSON as [id, tokens left, end]. NULL is none."""
    return tuple(Pack(*fields) for fields in json.loads(listed or "[]"))
