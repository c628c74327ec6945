"""Users and keys: create, look at, change, revoke.

Works beside a running gateway and without one. A change has reached Redis when the command ends,
and the audit names the login that made it.
"""

from __future__ import annotations

import argparse
import getpass
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from gateway.cli.arguments import add_config, add_json, running, settings_of, show

if TYPE_CHECKING:
    from gateway.config import Settings
    from gateway.core.identity import Identity
    from gateway.core.quota.entitle import Snapshot
    from gateway.flow.accounts import Accounts

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


Work = Callable[[argparse.Namespace], Coroutine[Any, Any, int]]


def add_commands(commands: Commands) -> None:
    """Add `user …` and `key …`."""
    user = commands.add_parser("user", help="create, show and change users")
    actions = user.add_subparsers(metavar="ACTION", required=True)
    created = _action(actions, "create", "a new user", _create, "id")
    created.add_argument("--tier", help="tier (default: the plan's)")
    changed = _action(actions, "set-tier", "move a user to another tier", _set_tier, "id")
    changed.add_argument("tier")
    _action(actions, "show", "a user's quota at this moment", _show, "id")
    used = _action(actions, "set-used", "set what counts as used (an adjustment)", _set_used, "id")
    used.add_argument("tokens", type=int)
    used.add_argument("--reason", required=True, help="why; goes into the ledger")

    period = _action(
        actions, "set-period", "begin periods on another day, from the next one on", _period, "id"
    )
    period.add_argument("day", type=int, help="billing day, 1-31")
    period.add_argument("zone", help="IANA time zone, such as Europe/London")

    key = commands.add_parser("key", help="create and revoke API keys")
    actions = key.add_subparsers(metavar="ACTION", required=True)
    _action(actions, "create", "a new key for a user; shown once", _create_key, "id")
    _action(actions, "revoke", "end a key; its next call is refused", _revoke_key, "key_id")


def _action(
    actions: Commands, name: str, help_text: str, work: Work, subject: str
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=help_text)
    parser.add_argument(subject, help="user id" if subject == "id" else "id of the key")
    add_config(parser)
    add_json(parser)
    parser.set_defaults(run=running(work))
    return parser


@asynccontextmanager
async def _accounts(settings: Settings) -> AsyncIterator[Accounts]:
    from gateway.app.command_stores import opened_for_command

    async with opened_for_command(settings, f"cli:{getpass.getuser()}") as stores:
        yield stores.accounts(settings)


def _show_user(
    chosen: argparse.Namespace, settings: Settings, identity: Identity, snapshot: Snapshot
) -> None:
    from gateway.adapters.clock import SystemClock
    from gateway.app.shown import shown_user

    show(chosen, shown_user(identity, snapshot, settings.plan, SystemClock().now_ms()))


async def _create(chosen: argparse.Namespace) -> int:
    settings = settings_of(chosen)
    async with _accounts(settings) as accounts:
        identity = await accounts.create_user(chosen.id, chosen.tier or settings.plan.default_tier)
    show(chosen, {"user": identity.user_id, "tier": identity.tier, "zone": identity.calendar.zone})
    return 0


async def _set_tier(chosen: argparse.Namespace) -> int:
    settings = settings_of(chosen)
    async with _accounts(settings) as accounts:
        await accounts.set_tier(chosen.id, chosen.tier)
        _show_user(chosen, settings, *await accounts.show(chosen.id))
    return 0


async def _period(chosen: argparse.Namespace) -> int:
    settings = settings_of(chosen)
    async with _accounts(settings) as accounts:
        await accounts.set_calendar(chosen.id, chosen.day, chosen.zone)
        _show_user(chosen, settings, *await accounts.show(chosen.id))
    return 0


async def _show(chosen: argparse.Namespace) -> int:
    settings = settings_of(chosen)
    async with _accounts(settings) as accounts:
        _show_user(chosen, settings, *await accounts.show(chosen.id))
    return 0


async def _set_used(chosen: argparse.Namespace) -> int:
    settings = settings_of(chosen)
    author = f"cli:{getpass.getuser()}"
    async with _accounts(settings) as accounts:
        await accounts.set_used(chosen.id, chosen.tokens, chosen.reason, author)
        _show_user(chosen, settings, *await accounts.show(chosen.id))
    return 0


async def _create_key(chosen: argparse.Namespace) -> int:
    from gateway.app.secrets_of_state import pepper_of

    settings = settings_of(chosen)
    async with _accounts(settings) as accounts:
        made = await accounts.create_key(chosen.id, pepper_of(settings))
    show(chosen, {"user": chosen.id, "key_id": made.key_id, "key": made.key})
    return 0


async def _revoke_key(chosen: argparse.Namespace) -> int:
    settings = settings_of(chosen)
    async with _accounts(settings) as accounts:
        identity = await accounts.revoke_key(chosen.key_id)
    show(chosen, {"key_id": chosen.key_id, "user": identity.user_id, "revoked": True})
    return 0
