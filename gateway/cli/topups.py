"""Packs and adjustments: credit a payment, take one back, list, correct what counts as used.

Works beside a running gateway and without one. A change has reached Redis when the command ends;
the same payment may be named again, and is credited (or taken back) once.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from gateway.cli.asking import (
    Commands,
    add_asking,
    once_key,
    print_change,
    print_record,
    print_rows,
)

if TYPE_CHECKING:
    from gateway.app.admin_client import AdminClient

_COLUMNS = ("payment", "state", "granted", "spent", "left", "bought", "ends", "refund")


def add_commands(commands: Commands) -> None:
    """Add `topup …` and `adjust`."""
    topup = commands.add_parser("topup", help="packs of tokens: credit, refund, list")
    actions = topup.add_subparsers(metavar="ACTION", required=True)
    credit = add_asking(actions, "credit", "credit the pack that a payment bought", _credit)
    credit.add_argument("id", help="user id; of a member of a team, the team gets the pack")
    credit.add_argument("--payment", required=True, metavar="REF", help="names the payment, once")
    credit.add_argument("--packs", type=int, default=1, metavar="N", help="how many (1)")
    refund = add_asking(actions, "refund", "take back the pack of a payment", _refund)
    refund.add_argument("payment", metavar="REF", help="the payment it was credited for")
    refund.add_argument("--reason", required=True, help="why; goes into the ledger")
    listed = add_asking(actions, "list", "the packs of a user, the newest first", _list)
    listed.add_argument("id", help="user id")
    add_asking(actions, "problems", "payments that somebody has to look at", _problems)

    adjust = add_asking(commands, "adjust", "add tokens to what counts as used", _adjust)
    adjust.add_argument("id", help="user id")
    adjust.add_argument("tokens", type=int, help="below 0 gives tokens back")
    adjust.add_argument("--reason", required=True, help="why; goes into the ledger")
    adjust.add_argument("--key", help="your own name for it: the same again changes nothing")


def _of_user(chosen: argparse.Namespace, end: str) -> str:
    from gateway.app.admin_client import part

    return f"/users/{part(chosen.id)}{end}"


async def _credit(client: AdminClient, chosen: argparse.Namespace) -> int:
    asked = {"payment": chosen.payment, "packs": chosen.packs}
    at = _of_user(chosen, "/packs")
    print_record(chosen, await client.ask("POST", at, asked, once_key=once_key()))
    return 0


async def _refund(client: AdminClient, chosen: argparse.Namespace) -> int:
    asked = {"payment": chosen.payment, "reason": chosen.reason}
    print_record(chosen, await client.ask("POST", "/refunds", asked, once_key=once_key()))
    return 0


async def _list(client: AdminClient, chosen: argparse.Namespace) -> int:
    answer = await client.ask("GET", _of_user(chosen, "/packs"))
    if chosen.json:
        print(json.dumps(answer, ensure_ascii=False))
        return 0
    packs = answer["packs"]
    if packs:
        print_rows(chosen, [_cells(pack) for pack in packs], _COLUMNS, "")
    left_tokens = sum(pack["left_tokens"] for pack in packs)
    print(f"{len(packs)} pack{'' if len(packs) == 1 else 's'}, {left_tokens:,} tokens left")
    return 0


async def _problems(client: AdminClient, chosen: argparse.Namespace) -> int:
    answer = await client.ask("GET", "/payments/problems")
    if chosen.json:
        print(json.dumps(answer, ensure_ascii=False))
        return 0
    columns = ("at", "order", "user", "payment", "problem")
    print_rows(chosen, answer["problems"], columns, "no payment waits for anybody")
    return 0


async def _adjust(client: AdminClient, chosen: argparse.Namespace) -> int:
    from gateway.app.admin_client import part

    # A key is the user's own: the same ticket may concern several of them.
    key = once_key() if chosen.key is None else f"{part(chosen.id)}/{part(chosen.key)}"
    asked = {"tokens": chosen.tokens, "reason": chosen.reason}
    at = _of_user(chosen, "/adjustments")
    print_change(chosen, await client.ask("POST", at, asked, once_key=key))
    return 0


def _cells(pack: dict[str, Any]) -> dict[str, Any]:
    """A pack as a line of the table: days, and the refund in words."""
    refund = "-"
    if pack["refunded_at"]:
        refund = f"{pack['refunded_at'][:10]}: {pack['refund_reason']}"
    return {
        "payment": pack["payment"],
        "state": pack["state"],
        **{name: pack[f"{name}_tokens"] for name in ("granted", "spent", "left")},
        "bought": pack["bought_at"][:10],
        "ends": pack["ends_at"][:10],
        "refund": refund,
    }
