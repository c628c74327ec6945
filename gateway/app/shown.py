"""A user as an operator is shown it, on the command line and by the admin port.

One function, so that both say the same. Names and units are part of the interface: scripts read
them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from gateway.core.identity import Identity
from gateway.core.plan import Plan
from gateway.core.quota.entitle import Snapshot


def shown_user(identity: Identity, snapshot: Snapshot, plan: Plan, now_ms: int) -> dict[str, Any]:
    """Names and figures, tokens and GBP, ready for JSON. `now_ms` says which packs live."""
    tier = plan.tiers.get(identity.tier)
    limit_tokens = tier.tokens if tier else 0
    pack_tokens = sum(pack.tokens for pack in snapshot.packs if pack.ends_ms > now_ms)
    return {
        "user": identity.user_id,
        "tier": identity.tier,
        "limit_tokens": limit_tokens,
        "used_tokens": max(0, snapshot.used_tokens),
        "pack_tokens": pack_tokens,
        "remaining_tokens": max(0, limit_tokens - snapshot.used_tokens) + pack_tokens,
        "held_tokens": snapshot.held_tokens,
        "open_holds": snapshot.open_holds,
        "adjusted_tokens": snapshot.adjusted_tokens,
        "cost_gbp": f"{snapshot.cost_nano_gbp // 10**9}.{snapshot.cost_nano_gbp % 10**9:09d}",
        "period_start": _instant(snapshot.period_start_ms),
        "reset_at": _instant(snapshot.period_end_ms),
        "billing_day": identity.calendar.anchor_day,
        "zone": identity.calendar.zone,
    }


def _instant(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
