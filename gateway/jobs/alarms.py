"""To operators: trouble in a sentence, in the form that Slack and those like it take.

One line that says what happened and where to look. It holds names of tiers and numbers, and for the
canary what its finder wrote; nothing in it is read as markup.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import msgspec

from gateway.core.notices import OPERATORS_KINDS
from gateway.ports.deliveries import Delivery, Way
from gateway.ports.hook import Hook

_HEADERS = {"content-type": "application/json"}
_WHY_CHARACTERS_MAX = 500
_encode = msgspec.json.Encoder().encode


class ByChat:
    """Fulfils jobs.send.Carrier for one channel of operators. `gateway` is how this one is called
    among others."""

    def __init__(self, hook: Hook, gateway: str) -> None:
        self.way = Way("operators", hook.name, OPERATORS_KINDS)
        self._hook = hook
        self._gateway = gateway

    async def send(self, delivery: Delivery) -> None:
        text = f"quota-gateway ({self._gateway}): {words_of(delivery)}"
        await self._hook.post(_HEADERS, _encode({"text": _plain(text)}))

    async def rest(self) -> None:
        await self._hook.rest()


def words_of(delivery: Delivery) -> str:
    """What happened, and what to do."""
    return _WORDS[delivery.kind](delivery)


def _tier_cap_near(delivery: Delivery) -> str:
    facts = delivery.facts
    ends = datetime.fromtimestamp(_number(facts, "ends_ms") / 1000, UTC)
    return (
        f"the tier {delivery.about} has used {delivery.threshold} % of what all its users may use "
        f"together: {_number(facts, 'used_tokens'):,} of {_number(facts, 'limit_tokens'):,} "
        f"tokens. When all is used, its calls are refused until {ends:%-d %B %Y %H:%M} UTC. "
        f"The cap is plan.tiers.{delivery.about}.limits.tier_tokens."
    )


def _dead_rows(delivery: Delivery) -> str:
    rows = _number(delivery.facts, "rows")
    return (
        f"{rows:,} event(s) could not be booked today (UTC), so their tokens are not in the "
        "ledger. They are kept, with the reason, in the table ledger_dead."
    )


def _dead_deliveries(delivery: Delivery) -> str:
    deliveries = _number(delivery.facts, "deliveries")
    return (
        f"{deliveries:,} message(s) failed for good today (UTC). Why stands in the table "
        "deliveries, where state is dead: docs/notifications.md has the query."
    )


def _canary_failed(delivery: Delivery) -> str:
    why = str(delivery.facts.get("why", "no reason was noted"))[:_WHY_CHARACTERS_MAX]
    return f"the canary failed: {why}. Quotas may not be enforced."


_WORDS: Mapping[str, Callable[[Delivery], str]] = {
    "tier_cap_near": _tier_cap_near,
    "dead_rows": _dead_rows,
    "dead_deliveries": _dead_deliveries,
    "canary_failed": _canary_failed,
}


def _number(facts: Mapping[str, int | str], name: str) -> int:
    return int(facts.get(name, 0))


def _plain(text: str) -> str:
    """Without Slack's markup: https://api.slack.com/reference/surfaces/formatting#escaping."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
