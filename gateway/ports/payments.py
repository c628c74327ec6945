"""Payments for packs: orders kept beside the ledger, and the provider that collects the money.

An order is written before the payer is sent to the provider, and nothing is credited but what it
says. `LedgerUnavailable` means "try later", for the provider as well: it repeats its event.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.core.identity import Identity
from gateway.core.payments import Order, PaymentEvent, Verdict


class Forged(Exception):
    """An event that does not prove to come from the provider, or is not one at all."""


class Replayed(Exception):
    """The id of a known event with other content: no provider sends that."""


class ProviderUnavailable(Exception):
    """The provider did not answer, or refused; nothing was sold. The text is for the log only."""


@dataclass(frozen=True, slots=True)
class Session:
    """Where the payer pays."""

    session_id: str
    url: str


@dataclass(frozen=True, slots=True)
class NewIds:
    """Ids for what an event may lead to: an entry of the ledger, and a pack."""

    event_id: str
    pack_id: str


@dataclass(frozen=True, slots=True)
class Taken:
    """What was done about an event: the verdict, whom it changed, and which payment it was about.
    `payer` is None where nothing changed."""

    verdict: Verdict
    payer: Identity | None
    payment_ref: str


@dataclass(frozen=True, slots=True)
class PaymentProblem:
    """Something that an operator is to look at: of an order, or of an event without one."""

    order_id: str
    user_id: str | None
    payment_ref: str | None
    problem: str
    at_ms: int


class Orders(Protocol):
    """Orders and the events about them."""

    async def open(self, order: Order, open_max: int) -> None:
        """Write it down. Conflict when the user has `open_max` orders of the last hour that are not
        paid, or the payer has as many packs as there may be."""
        ...

    async def sent(self, order_id: str, session_id: str) -> None:
        """The payer was sent to this session."""
        ...

    async def take(self, event: PaymentEvent, ids: NewIds, author: str) -> Taken:
        """Do what the event means, with the note that it was done, in one transaction. The same
        event again changes nothing. Replayed when its id belongs to another event."""
        ...

    async def problems(self, rows_max: int) -> Sequence[PaymentProblem]:
        """The newest ones."""
        ...


class PaymentProvider(Protocol):
    """Who collects the money."""

    @property
    def currency(self) -> str: ...

    async def checkout(self, order: Order) -> Session:
        """A page on which this order is paid. ProviderUnavailable when there is none."""
        ...

    def event(self, raw: bytes, signature: str) -> PaymentEvent | None:
        """What it says; None when it is not about packs. Forged when it is not proven."""
        ...

    async def close(self) -> None: ...
