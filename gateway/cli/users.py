"""Users and what they may spend: create, look at, change, block, move in.

Works beside a running gateway and without one. A change binds at the user's very next call when
the command ends, and the audit names the login that made it.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from gateway.cli.asking import (
    Commands,
    add_asking,
    all_of,
    once_key,
    print_change,
    print_record,
    print_rows,
)
from gateway.cli.failures import CommandError
from gateway.cli.imports import add_import

if TYPE_CHECKING:
    from gateway.app.admin_client import AdminClient

_LIMITS = ("tokens", "rpm", "tpm", "concurrent", "gbp", "models")


def add_commands(commands: Commands) -> None:
    """Add `user …`."""
    user = commands.add_parser("user", help="create, show and change users")
    actions = user.add_subparsers(metavar="ACTION", required=True)
    created = _of_user(actions, "create", "make a user", _create)
    created.add_argument("--tier", help="tier (default: the plan's)")
    created.add_argument("--email", help="where the user is written to")
    created.add_argument("--billing-day", type=int, metavar="DAY", help="1-31 (default: plan's)")
    created.add_argument("--zone", help="IANA time zone of the periods (default: the plan's)")
    listed = add_asking(actions, "list", "users in the order of their ids", _list)
    listed.add_argument("--prefix", default="", help="only ids that begin so")
    _of_user(actions, "show", "a user's quota at this moment", _show)
    tier = _of_user(actions, "set-tier", "move a user to another tier", _set_tier)
    tier.add_argument("tier")
    email = _of_user(actions, "set-email", "set where a user is written to", _set_email)
    email.add_argument("email", nargs="?", help="left out: nowhere")
    period = _of_user(
        actions, "set-period", "begin periods on another day, from the next one on", _set_period
    )
    period.add_argument("day", type=int, help="billing day, 1-31")
    period.add_argument("zone", help="IANA time zone, such as Europe/London")
    limits = _of_user(
        actions, "set-limits", "set limits that a user has instead of its tier's", _set_limits
    )
    limits.add_argument(
        "limits",
        nargs="+",
        metavar="NAME=VALUE",
        help=f"of {', '.join(_LIMITS)} (with commas); 'none' is no limit, 'tier' the tier's",
    )
    blocked = _of_user(actions, "block", "refuse a user's calls", _block)
    blocked.add_argument("--reason", required=True, help="why; goes into the audit")
    _of_user(actions, "unblock", "let a user call again, also one that was deleted", _unblock)
    _of_user(actions, "delete", "end a user: its keys stop working, its entries stay", _delete)
    used = _of_user(actions, "set-used", "set what counts as used (an adjustment)", _set_used)
    used.add_argument("tokens", type=int)
    used.add_argument("--reason", required=True, help="why; goes into the ledger")
    add_import(actions)


def _of_user(actions: Commands, name: str, says: str, work: Any) -> argparse.ArgumentParser:
    parser = add_asking(actions, name, says, work)
    parser.add_argument("id", help="user id")
    return parser


def _at(chosen: argparse.Namespace, end: str = "") -> str:
    from gateway.app.admin_client import part

    return f"/users/{part(chosen.id)}{end}"


async def _create(client: AdminClient, chosen: argparse.Namespace) -> int:
    asked = {
        "user": chosen.id,
        "tier": chosen.tier,
        "email": chosen.email,
        "billing_day": chosen.billing_day,
        "zone": chosen.zone,
    }
    print_record(chosen, await client.ask("POST", "/users", asked))
    return 0


async def _list(client: AdminClient, chosen: argparse.Namespace) -> int:
    query = {"prefix": chosen.prefix} if chosen.prefix else {}
    rows = await all_of(client, "/users", query)
    print_rows(chosen, rows, ("user", "tier", "state", "team", "email"), "there are no users")
    return 0


async def _show(client: AdminClient, chosen: argparse.Namespace) -> int:
    print_record(chosen, await client.ask("GET", _at(chosen)))
    return 0


async def _set_tier(client: AdminClient, chosen: argparse.Namespace) -> int:
    answer = await client.ask("PUT", _at(chosen, "/tier"), {"tier": chosen.tier})
    print_change(chosen, answer)
    return 0


async def _set_email(client: AdminClient, chosen: argparse.Namespace) -> int:
    answer = await client.ask("PUT", _at(chosen, "/email"), {"email": chosen.email})
    print_change(chosen, answer)
    return 0


async def _set_period(client: AdminClient, chosen: argparse.Namespace) -> int:
    asked = {"billing_day": chosen.day, "zone": chosen.zone}
    print_change(chosen, await client.ask("PUT", _at(chosen, "/period"), asked))
    return 0


async def _set_limits(client: AdminClient, chosen: argparse.Namespace) -> int:
    given = [_limit(text) for text in chosen.limits]
    limits = dict((await client.ask("GET", _at(chosen)))["limits"])
    for name, value in given:
        if value == "tier":
            limits.pop(name, None)
        else:
            limits[name] = value
    print_change(chosen, await client.ask("PUT", _at(chosen, "/limits"), limits))
    return 0


def _limit(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    if name not in _LIMITS or not value:
        raise CommandError(f"{text!r}: expected NAME=VALUE, the name one of {', '.join(_LIMITS)}")
    if value == "none":
        return name, None
    if value == "tier" or name == "gbp":
        return name, value
    if name == "models":
        return name, value.split(",")
    if not (value.isascii() and value.isdigit()):
        raise CommandError(f"{text!r}: expected a whole number, 'none' or 'tier' after {name}=")
    return name, int(value)


async def _block(client: AdminClient, chosen: argparse.Namespace) -> int:
    answer = await client.ask("POST", _at(chosen, "/block"), {"reason": chosen.reason})
    print_change(chosen, answer)
    return 0


async def _unblock(client: AdminClient, chosen: argparse.Namespace) -> int:
    print_change(chosen, await client.ask("POST", _at(chosen, "/unblock")))
    return 0


async def _delete(client: AdminClient, chosen: argparse.Namespace) -> int:
    print_record(chosen, await client.ask("DELETE", _at(chosen)))
    return 0


async def _set_used(client: AdminClient, chosen: argparse.Namespace) -> int:
    asked = {"used_tokens": chosen.tokens, "reason": chosen.reason}
    answer = await client.ask("POST", _at(chosen, "/adjustments"), asked, once_key=once_key())
    print_change(chosen, answer)
    return 0
