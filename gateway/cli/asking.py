"""How a command reaches the admin API, and how it prints what that answers.

`--json` prints the answers as they are. Without it people read: one record as aligned lines, many
as a table.
"""

from __future__ import annotations

import argparse
import json
import os
import textwrap
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from gateway.cli.arguments import add_config, add_json, running, settings_of
from gateway.cli.failures import CommandError

if TYPE_CHECKING:
    from gateway.app.admin_client import AdminClient

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
Work: TypeAlias = "Callable[[AdminClient, argparse.Namespace], Coroutine[Any, Any, int]]"
Row: TypeAlias = Mapping[str, Any]

_TOKEN_VARIABLE = "QUOTA_ADMIN_TOKEN"
_GAP = "  "
_WIDTH = 80


def add_asking(actions: Commands, name: str, says: str, work: Work) -> argparse.ArgumentParser:
    """A command that asks the admin API."""
    parser = actions.add_parser(name, help=says, description=says)
    add_config(parser)
    add_json(parser)
    parser.add_argument(
        "--url",
        default=os.environ.get("QUOTA_ADMIN_URL"),
        help="admin address of a gateway elsewhere (default: $QUOTA_ADMIN_URL, else the one of "
        f"the configuration); its token is taken from ${_TOKEN_VARIABLE}",
    )

    async def run(chosen: argparse.Namespace) -> int:
        async with _client(chosen) as client:
            return await work(client, chosen)

    parser.set_defaults(run=running(run))
    return parser


@asynccontextmanager
async def _client(chosen: argparse.Namespace) -> AsyncIterator[AdminClient]:
    from gateway.app.admin_client import Far, far_client, near_client

    if chosen.url is None:
        async with near_client(settings_of(chosen)) as client:
            yield client
        return
    token = os.environ.get(_TOKEN_VARIABLE)
    if not token:
        raise CommandError(
            f"{chosen.url} wants a token: put it into the variable {_TOKEN_VARIABLE} "
            "('quota-gateway token create' makes one, beside that gateway)"
        )
    async with far_client(Far(chosen.url, token)) as client:
        yield client


def once_key() -> str:
    """A name of its own for a request that books something."""
    return f"cli-{uuid.uuid4()}"


def print_record(chosen: argparse.Namespace, record: Row, leave_out: Sequence[str] = ()) -> None:
    """One record: as JSON, or as aligned lines; what is null is not said."""
    if chosen.json:
        print(json.dumps(record, ensure_ascii=False))
        return
    said = {
        name.replace("_", " "): as_text(value)
        for name, value in record.items()
        if value is not None and name not in leave_out
    }
    width = max(len(name) for name in said)
    for name, text in said.items():
        print(f"{name:<{width}}{_GAP}{text}")


def print_change(chosen: argparse.Namespace, change: Row) -> None:
    """A user after a change, and in words what the change does."""
    print_record(chosen, change, ("before", "now", "next_period"))
    if not chosen.json:
        for title, name in (("Now", "now"), ("Next period", "next_period")):
            said = f"{title + ':':<14}{change[name]}"
            print("\n" + textwrap.fill(said, _WIDTH, subsequent_indent=" " * 14))


def print_rows(
    chosen: argparse.Namespace, rows: Sequence[Row], columns: Sequence[str], none: str
) -> None:
    """Many records: as a JSON list, or as a table of these columns, figures to the right."""
    if chosen.json:
        print(json.dumps(list(rows), ensure_ascii=False))
        return
    if not rows:
        print(none)
        return
    cells = [[as_text(row[name]) for name in columns] for row in rows]
    heads = [name.replace("_", " ") for name in columns]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    is_figure = [isinstance(rows[0][name], int) for name in columns]
    for line in (heads, *cells):
        placed = [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, is_figure, strict=True)
        ]
        print(_GAP.join(placed).rstrip())


def as_text(value: object) -> str:
    """A value as people read it: thousands apart, nothing as a dash."""
    if value in (None, "", {}):  # as a pattern, {} would be any dict
        return "-"
    match value:
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case dict():
            return ", ".join(
                f"{name} {'no limit' if each is None else as_text(each)}"
                for name, each in value.items()
            )
        case list():
            return " ".join(map(as_text, value))
    return str(value)


async def all_of(client: AdminClient, path: str, query: Mapping[str, str]) -> list[dict[str, Any]]:
    """All rows of a list."""
    return [row async for row in client.pages(path, query)]
