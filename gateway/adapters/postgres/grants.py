"""What people grant: adjustments of what counts as used, and packs of tokens.

Promises that a grant is booked once, whoever repeats it and in however many processes: the user and
its payer are locked first, and what is there already is compared with what is asked for. Refuses to
know what a tier or a pack costs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.adapters.postgres.connection import Connection, Pool, Rejected, transaction
from gateway.adapters.postgres.from_records import identity_of
from gateway.adapters.postgres.statements import directory, grants
from gateway.core.identity import Identity
from gateway.core.quota.entitle import PACKS_MAX
from gateway.ports.directory import Adjustment, PackCredit
from gateway.ports.ledger import Conflict


def no_user(user_id: str) -> str:
    """What a refusal says of somebody who is not there."""
    return f"there is no user {user_id}"


def no_payer(user_id: str) -> str:
    """The same, where a member of a team may have been meant."""
    return f"there is no user {user_id} who pays for itself: a team's tier and period are its own"


async def adjust(pool: Pool, adjustment: Adjustment) -> Identity:
    """See Directory.adjust."""
    async with locked_owner(pool, adjustment.user_id, "the adjustment") as (connection, owner):
        await _adjust(connection, owner, adjustment)
        return await identity_within(connection, owner.user_id)


async def credit_pack(pool: Pool, credit: PackCredit) -> Identity:
    """See Directory.credit_pack."""
    async with locked_owner(pool, credit.user_id, "the pack") as (connection, owner):
        await credit_within(connection, owner, credit)
        return await identity_within(connection, owner.user_id)


@asynccontextmanager
async def locked_owner(
    pool: Pool, user_id: str, what: str
) -> AsyncIterator[tuple[Connection, Identity]]:
    """A transaction that has locked a user. Conflict when there is none, or a value is refused."""
    try:
        async with transaction(pool) as connection:
            if not await connection.fetch(grants.LOCK_USER, user_id):
                raise Conflict(no_user(user_id))
            yield connection, await identity_within(connection, user_id)
    except Rejected as error:
        raise Conflict(f"{what} cannot be booked: {error}") from error


async def identity_within(connection: Connection, user_id: str) -> Identity:
    """A user that is there, as the caller's transaction has left it."""
    (found,) = await connection.fetch(directory.IDENTITY, user_id)
    return identity_of(found)


async def _adjust(connection: Connection, owner: Identity, asked: Adjustment) -> None:
    """Nothing changes when the same adjustment was booked before."""
    booked = await connection.fetchrow(grants.BOOKED_ADJUSTMENT, asked.event_id)
    if booked is None:
        await connection.execute(
            grants.ADJUST,
            asked.event_id,
            asked.user_id,
            owner.payer,
            asked.period_start_ms,
            asked.tokens,
            asked.reason,
            asked.author,
        )
    elif tuple(booked) != (asked.user_id, asked.period_start_ms, asked.tokens):
        raise Conflict(
            f"{asked.event_id} is booked already as something else "
            f"(user {booked['user_id']}, {booked['charged_tokens']} tokens): take a new id"
        )


async def credit_within(connection: Connection, owner: Identity, asked: PackCredit) -> None:
    """Nothing changes when the same payment was credited before. Within the caller's transaction,
    which has locked the owner.

    Who and how many tokens tell whether it is the same. Its ids and its end are made anew by each
    attempt, and those of the first one stay.
    """
    payer = owner.payer
    granted = await connection.fetchrow(grants.GRANTED, asked.payment_ref)
    if granted is not None:
        if tuple(granted) != (payer, asked.tokens):
            raise Conflict(
                f"payment {asked.payment_ref} was credited already as something else "
                f"({granted['granted_tokens']} tokens to {granted['payer']})"
            )
        return
    (room,) = await connection.fetch(grants.PACK_ROOM, payer)
    if room["live"] >= PACKS_MAX:
        raise Conflict(f"{payer} has {room['live']} packs to spend, which is the most there can be")
    period = owner.calendar.period_at(room["now_ms"])
    await connection.execute(
        grants.CREDIT_PACK,
        asked.event_id,
        asked.user_id,
        payer,
        period.start_ms,
        asked.pack_id,
        asked.tokens,
        asked.ends_ms,
        asked.payment_ref,
        asked.author,
    )
