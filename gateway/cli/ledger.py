"""The ledger on the command line: does it agree, and what stands in it.

`verify` ends with 1 on any difference, so it can stand in a script; `export` streams, however many
entries there are.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeAlias

from gateway.cli.arguments import add_config, add_json, running, settings_of
from gateway.cli.failures import FAILED, CommandError
from gateway.cli.reconcile import add_reconcile

if TYPE_CHECKING:
    from gateway.app.verify import Verdict

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


_WIDTH = 140


def add_commands(commands: Commands) -> None:
    """Add `ledger …`."""
    ledger = commands.add_parser("ledger", help="compare and export the ledger")
    actions = ledger.add_subparsers(metavar="ACTION", required=True)
    verified = actions.add_parser(
        "verify", help="compare Redis, ledger and the stand-in, user by user; 1 if they differ"
    )
    add_config(verified)
    add_json(verified)
    verified.add_argument("--upstream", metavar="URL", help="also compare with this stand-in")
    verified.add_argument(
        "--wait", type=float, default=5.0, metavar="S", help="wait for open holds to end (5)"
    )
    verified.set_defaults(run=running(_verify))

    repaired = actions.add_parser(
        "repair", help="show where Redis and the ledger differ; with --apply, mend it in Redis"
    )
    add_config(repaired)
    add_json(repaired)
    repaired.add_argument("--user", metavar="ID", help="only this user's, or team's, account")
    repaired.add_argument(
        "--apply", action="store_true", help="do it; otherwise nothing is changed"
    )
    repaired.add_argument(
        "--book",
        metavar="REASON",
        help="the ledger has lost it: mend it there, by a correction entry with this reason",
    )
    repaired.set_defaults(run=running(_repair))

    exported = actions.add_parser("export", help="write the entries to standard output")
    add_config(exported)
    exported.add_argument("--format", choices=("csv", "ndjson"), default="csv")
    exported.add_argument("--user", metavar="ID", help="only this user's")
    exported.add_argument("--after", metavar="EVENT_ID", help="only entries after this one")
    exported.add_argument("--from", dest="start", metavar="DATE", help="from this day on (UTC)")
    exported.add_argument("--until", metavar="DATE", help="before this day (UTC)")
    exported.set_defaults(run=running(_export))

    add_reconcile(actions)


async def _verify(chosen: argparse.Namespace) -> int:
    from gateway.app.command_stores import opened_for_command
    from gateway.app.verify import verify

    async with opened_for_command(settings_of(chosen), "cli:verify") as stores:
        verdict = await verify(stores, chosen.upstream, chosen.wait)
    if chosen.json:
        print(json.dumps({"agrees": verdict.agrees, **asdict(verdict)}))
    else:
        print_verdict(verdict)
    return 0 if verdict.agrees else FAILED


async def _repair(chosen: argparse.Namespace) -> int:
    from gateway.app.command_stores import opened_for_command
    from gateway.app.repair import Wanted, repair

    wanted = Wanted(chosen.user, chosen.apply, chosen.book)
    async with opened_for_command(settings_of(chosen), "cli:repair") as stores:
        lines = await repair(stores, wanted)
    if chosen.json:
        print(json.dumps({"differ": [asdict(line) for line in lines]}))
    for line in () if chosen.json else lines:
        print(f"{line.account}: {line.words}")
    if not lines and not chosen.json:
        print("Redis and the ledger agree: there is nothing to repair")
    elif not chosen.apply and not chosen.json:
        print("nothing was changed; add --apply to do so")
    return 0 if all(line.is_repaired for line in lines) else FAILED


def print_verdict(verdict: Verdict) -> None:
    """The comparison as a table, and what it means in one line."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 2))
    table.add_column("user", no_wrap=True)
    table.add_column("tier")
    columns = ["ledger", "redis off", "packs off"]
    if verdict.compared_upstream:
        columns += ["upstream", "upstream off", "unmeasured calls", "their difference"]
    for column in columns:
        table.add_column(column, justify="right")
    for line in verdict.lines:
        cells = [f"{line.ledger_tokens:,}", _off(line.redis_off), _off(line.packs_off)]
        if verdict.compared_upstream:
            cells += [f"{line.upstream_tokens:,}", _off(line.upstream_off)]
            cells += [str(line.unmeasured_calls), f"{line.unmeasured_off:,}"]
        table.add_row(line.user, line.tier, *cells)
    console = Console()
    console.width = max(console.width, _WIDTH)  # a wrapped line can be read, a cut figure cannot
    console.print(table)
    total = sum(line.ledger_tokens for line in verdict.lines)
    console.print(f"{len(verdict.lines)} users, {total:,} tokens in the ledger")
    if verdict.open_holds:
        console.print(f"{verdict.open_holds} holds are still open")
    if verdict.unbooked_calls:
        console.print(f"[red]{verdict.unbooked_calls} calls were served and are in no row[/]")
    for fault in verdict.pack_faults:
        console.print(fault, style="red", markup=False)
    console.print("[green]no difference[/]" if verdict.agrees else "[red]they differ[/]")


def _off(tokens: int) -> str:
    return f"[red]{tokens:+,}[/]" if tokens else "0"


async def _export(chosen: argparse.Namespace) -> int:
    from gateway.adapters.postgres.reports import ExportFilter
    from gateway.app.command_stores import opened_for_command

    wanted = ExportFilter(
        after_event_id=chosen.after,
        user_id=chosen.user,
        from_ms=_day_ms("--from", chosen.start),
        until_ms=_day_ms("--until", chosen.until),
    )
    async with opened_for_command(settings_of(chosen), "cli:export") as stores:
        writer: csv.DictWriter[str] | None = None
        async for row in stores.reports.export(wanted):
            if chosen.format == "ndjson":
                print(json.dumps(row, ensure_ascii=False))
                continue
            if writer is None:
                writer = csv.DictWriter(sys.stdout, fieldnames=list(row))
                writer.writeheader()
            writer.writerow(row)
    return 0


def _day_ms(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        day = datetime.fromisoformat(text)
    except ValueError as error:
        raise CommandError(f"{option} {text!r}: expected a date such as 2026-11-01") from error
    return int(day.replace(tzinfo=day.tzinfo or UTC).timestamp() * 1000)
