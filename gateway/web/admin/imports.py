"""Moving in: many users at once, with what they have used elsewhere.

It can be asked for as a rehearsal first, and may be repeated: who is there stays as they are, and
what was used is booked once. Each row is answered by itself.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gateway.flow.moving_in import Newcomer
from gateway.web.admin.desk import Desk
from gateway.web.admin.problem import invalid
from gateway.web.admin.route import Asked, Asks, Gives, Route, Takes

ROWS_MAX = 500
_Cell = Annotated[str, Meta(pattern="^[^\\x00]{1,320}$")]
_Tokens = Annotated[int, Meta(ge=0, le=10**12)]


class NewcomerAsked(Asks, frozen=True, kw_only=True):
    """A user of another system; what is left out is the plan's."""

    user: _Cell
    tier: _Cell | None = None
    email: _Cell | None = None
    zone: _Cell | None = None
    used_tokens: _Tokens = 0


class ImportAsked(Asks, frozen=True, kw_only=True):
    """Rows to take in; with `dry_run` nothing is changed."""

    rows: Annotated[list[NewcomerAsked], Meta(min_length=1, max_length=ROWS_MAX)]
    dry_run: bool = True


class Arrived(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of a row. `notes` say what is left as it is, or why it is refused."""

    user: str
    outcome: Literal["create", "exists", "refused"]
    books_tokens: int
    notes: list[str]


class ImportDone(msgspec.Struct, frozen=True, kw_only=True):
    """One for each row, in their order."""

    dry_run: bool
    rows: list[Arrived]


class Imports:
    """The route of moving in."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self) -> tuple[Route, ...]:
        """As they stand in the table."""
        return (
            Route(
                "POST /admin/v1/imports", "write money",
                f"take in up to {ROWS_MAX} users of another system; changes nothing unless "
                "dry_run is false, and nothing twice",
                Gives(ImportDone), self.take_in, Takes(body=ImportAsked),
            ),
        )  # fmt: skip

    async def take_in(self, asked: Asked) -> ImportDone:
        """What became of each, or would."""
        newcomers = [
            Newcomer(row.user, row.tier, row.email, row.zone, row.used_tokens)
            for row in asked.body.rows
        ]
        if len({each.user_id for each in newcomers}) != len(newcomers):
            raise invalid("a user stands there twice: send each once", "rows")
        moving_in = self._desk.of(asked.operator).moving_in
        if asked.body.dry_run:
            arrivals = await moving_in.foreseen(newcomers)
        else:
            arrivals = await moving_in.arrive(newcomers, asked.operator.who)
        rows = [
            Arrived(
                user=arrival.user_id,
                outcome=arrival.outcome,
                books_tokens=arrival.books_tokens,
                notes=list(arrival.notes),
            )
            for arrival in arrivals
        ]
        return ImportDone(dry_run=asked.body.dry_run, rows=rows)
