"""Adjustments: people correct what counts as used, by an entry of the ledger.

Either by so many tokens, or to a figure. Booked once for each Idempotency-Key: the difference and
the period are settled at the first request and stay, whatever is used until it is repeated.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from gateway.flow.once import Intent
from gateway.ports.directory import Adjustment
from gateway.web.admin.desk import Desk
from gateway.web.admin.problem import invalid
from gateway.web.admin.route import Asked, Asks, Gives, Route, Takes
from gateway.web.admin.users import Words
from gateway.web.admin.views import Change, changed

_Difference = Annotated[int, Meta(ge=-(10**12), le=10**12, description="below 0: gives back")]
_Figure = Annotated[int, Meta(ge=0, le=10**12, description="what is to count as used")]


class AdjustmentAsked(Asks, frozen=True, kw_only=True):
    """Either `tokens`, which are added to what counts as used, or `used_tokens`, which it becomes.
    `reason` goes into the ledger."""

    reason: Words
    tokens: _Difference | None = None
    used_tokens: _Figure | None = None


class Adjustments:
    """The route of adjustments."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self) -> tuple[Route, ...]:
        """As they stand in the table."""
        return (
            Route(
                "POST /admin/v1/users/{user_id}/adjustments", "money",
                "correct what counts as used in the running period, by an entry of the ledger",
                Gives(Change), self.adjust, Takes(body=AdjustmentAsked, once=True),
            ),
        )  # fmt: skip

    async def adjust(self, asked: Asked) -> bytes:
        """The user after it."""
        body, user_id, operator = asked.body, asked.path["user_id"], asked.operator
        if (body.tokens is None) == (body.used_tokens is None):
            raise invalid("send either 'tokens' or 'used_tokens', one of both", "tokens")
        accounts = self._desk.of(operator).accounts

        async def settle() -> Intent:
            await self._desk.person(user_id)
            _, account = await accounts.show(user_id)
            tokens = body.tokens
            if tokens is None:
                tokens = body.used_tokens - account.used_tokens
            return {"tokens": tokens, "period_start_ms": account.period_start_ms}

        async def book(event_id: str, intent: Intent) -> Change:
            before = await self._desk.view(user_id, operator)
            await accounts.adjust(
                Adjustment(
                    event_id=event_id,
                    user_id=user_id,
                    reason=body.reason,
                    author=operator.who,
                    **intent,
                )
            )
            after = await self._desk.view(user_id, operator)
            now = f"{intent['tokens']:+,} tokens count as used in the period that runs now."
            return changed(before, after, now)

        return await asked.booked(settle, book)
