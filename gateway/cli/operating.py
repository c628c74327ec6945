"""Keys, teams, use and operators' tokens on the command line.

Each command is one request to the admin API, or one list of it to its end. Keys and tokens are
shown once, by the command that makes them.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from gateway.cli.asking import Commands, add_asking, all_of, print_record, print_rows

if TYPE_CHECKING:
    from gateway.app.admin_client import AdminClient

_SCOPES = ("read", "write", "money")


def add_commands(commands: Commands) -> None:
    """Add `key …`, `team …`, `usage` and `token …`."""
    key = commands.add_parser("key", help="create, list and revoke API keys")
    actions = key.add_subparsers(metavar="ACTION", required=True)
    made = add_asking(actions, "create", "make a key for a user; shown once", _create_key)
    made.add_argument("id", help="user id")
    made.add_argument(
        "--service",
        action="store_true",
        help="a key that reports usage for any user, and makes no calls (docs/usage-api.md)",
    )
    listed = add_asking(actions, "list", "a user's keys, newest first", _keys)
    listed.add_argument("id", help="user id")
    ended = add_asking(actions, "revoke", "end a key; its next call is refused", _revoke_key)
    ended.add_argument("key_id", help="id of the key")

    team = commands.add_parser("team", help="create teams and change who is in them")
    actions = team.add_subparsers(metavar="ACTION", required=True)
    made = add_asking(actions, "create", "make a team", _create_team)
    made.add_argument("id", help="team id")
    made.add_argument("--tier", help="tier (default: the plan's)")
    joined = add_asking(actions, "add", "let a user spend what the team has", _add_member)
    left = add_asking(actions, "remove", "let a member pay for itself again", _remove_member)
    for parser in (joined, left):
        parser.add_argument("id", help="team id")
        parser.add_argument("user", help="user id")
    shown = add_asking(actions, "show", "a team's quota and its members", _show_team)
    shown.add_argument("id", help="team id")

    used = add_asking(commands, "usage", "what a user or a team has used", _usage)
    used.add_argument("id", help="user or team id")
    used.add_argument("--by", choices=("period", "model", "tag"), default="period")

    token = commands.add_parser("token", help="create, list and revoke tokens of the admin API")
    actions = token.add_subparsers(metavar="ACTION", required=True)
    made = add_asking(actions, "create", "make a token; shown once", _create_token)
    made.add_argument("name", help="what it is for")
    made.add_argument(
        "--scope",
        action="append",
        choices=_SCOPES,
        required=True,
        help="may be given several times",
    )
    add_asking(actions, "list", "all tokens, newest first", _tokens)
    ended = add_asking(actions, "revoke", "end a token; its next request is refused", _revoke_token)
    ended.add_argument("token_id", help="id of the token")


def _users(chosen: argparse.Namespace, end: str) -> str:
    from gateway.app.admin_client import part

    return f"/users/{part(chosen.id)}{end}"


async def _create_key(client: AdminClient, chosen: argparse.Namespace) -> int:
    asked = "/keys?service=true" if chosen.service else "/keys"
    print_record(chosen, await client.ask("POST", _users(chosen, asked)))
    return 0


async def _keys(client: AdminClient, chosen: argparse.Namespace) -> int:
    rows = (await client.ask("GET", _users(chosen, "/keys")))["data"]
    columns = ("key_id", "service", "created_at", "revoked_at")
    print_rows(chosen, rows, columns, f"{chosen.id} has no keys")
    return 0


async def _revoke_key(client: AdminClient, chosen: argparse.Namespace) -> int:
    from gateway.app.admin_client import part

    print_record(chosen, await client.ask("DELETE", f"/keys/{part(chosen.key_id)}"))
    return 0


async def _create_team(client: AdminClient, chosen: argparse.Namespace) -> int:
    asked = {"team": chosen.id, "tier": chosen.tier}
    print_record(chosen, await client.ask("POST", "/teams", asked))
    return 0


def _member(chosen: argparse.Namespace) -> str:
    from gateway.app.admin_client import part

    return f"/teams/{part(chosen.id)}/members/{part(chosen.user)}"


async def _add_member(client: AdminClient, chosen: argparse.Namespace) -> int:
    print_record(chosen, await client.ask("PUT", _member(chosen)))
    return 0


async def _remove_member(client: AdminClient, chosen: argparse.Namespace) -> int:
    print_record(chosen, await client.ask("DELETE", _member(chosen)))
    return 0


async def _show_team(client: AdminClient, chosen: argparse.Namespace) -> int:
    from gateway.app.admin_client import part

    rows = await all_of(client, f"/teams/{part(chosen.id)}/members", {})
    team = await client.ask("GET", _users(chosen, ""))
    if chosen.json:
        print_record(chosen, {**team, "members": rows})
        return 0
    print_record(chosen, team)
    print()
    print_rows(chosen, rows, ("user", "state", "email", "limits"), "nobody is in this team")
    return 0


async def _usage(client: AdminClient, chosen: argparse.Namespace) -> int:
    rows = await all_of(client, _users(chosen, "/usage"), {"by": chosen.by})
    if chosen.json:
        print_rows(chosen, rows, (), "")
        return 0
    short = [
        {
            "period": row["period_start"][:10],
            **({} if chosen.by == "period" else {chosen.by: row["name"]}),
            "calls": row["calls"],
            **{name: row[f"{name}_tokens"] for name in ("prompt", "output", "charged", "adjusted")},
            "GBP": row["cost_gbp"],
        }
        for row in rows
    ]
    columns = tuple(short[0]) if short else ()
    print_rows(chosen, short, columns, f"{chosen.id} has used nothing")
    return 0


async def _create_token(client: AdminClient, chosen: argparse.Namespace) -> int:
    asked = {"name": chosen.name, "scopes": chosen.scope}
    print_record(chosen, await client.ask("POST", "/tokens", asked))
    return 0


async def _tokens(client: AdminClient, chosen: argparse.Namespace) -> int:
    rows = (await client.ask("GET", "/tokens"))["data"]
    columns = ("token_id", "name", "scopes", "revoked_at")
    print_rows(chosen, rows, columns, "there are no tokens but the one in the state directory")
    return 0


async def _revoke_token(client: AdminClient, chosen: argparse.Namespace) -> int:
    from gateway.app.admin_client import part

    print_record(chosen, await client.ask("DELETE", f"/tokens/{part(chosen.token_id)}"))
    return 0
