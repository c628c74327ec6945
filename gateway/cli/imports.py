"""`user import`: people of another system, from a CSV file.

First everything is read and foreseen, and each line that is not in order is told with its number;
then nothing is done. Only with `--apply`, and only where all lines are in order, they are taken in.
The same file again changes nothing.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.cli.asking import Commands, add_asking
from gateway.cli.failures import FAILED, CommandError

if TYPE_CHECKING:
    from gateway.app.admin_client import AdminClient

_BATCH_ROWS = 500
_COLUMNS = ("id", "tier", "email", "zone", "used_tokens")
_FIELD_CHARS = 320


def add_import(actions: Commands) -> None:
    """Add `user import`."""
    parser = add_asking(
        actions, "import", "take in users of another system from a CSV file", _import
    )
    parser.add_argument(
        "file", type=Path, metavar="FILE.csv", help=f"with the columns {', '.join(_COLUMNS)}"
    )
    parser.add_argument(
        "--apply", action="store_true", help="do it (without: only say what would happen)"
    )
    parser.add_argument("--dry-run", action="store_true", help="only say it, which is the default")


async def _import(client: AdminClient, chosen: argparse.Namespace) -> int:
    if chosen.apply and chosen.dry_run:
        raise CommandError("user import: either --apply or --dry-run")
    lines, wrong = _read(chosen.file)
    foreseen = await _send(client, lines, dry_run=True)
    wrong += _refusals(foreseen)
    applied = chosen.apply and not wrong
    told = await _send(client, lines, dry_run=False) if applied else foreseen
    if applied:  # somebody else may have been faster meanwhile
        wrong = _refusals(told)
    _print(chosen, told, sorted(wrong), applied)
    return FAILED if wrong else 0


def _refusals(told: list[tuple[int, dict[str, Any]]]) -> list[tuple[int, str]]:
    return [
        (line, note) for line, row in told if row["outcome"] == "refused" for note in row["notes"]
    ]


async def _send(
    client: AdminClient, lines: list[tuple[int, dict[str, Any]]], dry_run: bool
) -> list[tuple[int, dict[str, Any]]]:
    """What becomes, or would become, of each line."""
    answered = []
    for first in range(0, len(lines), _BATCH_ROWS):
        batch = lines[first : first + _BATCH_ROWS]
        asked = {"rows": [row for _, row in batch], "dry_run": dry_run}
        rows = (await client.ask("POST", "/imports", asked))["rows"]
        answered += [(line, row) for (line, _), row in zip(batch, rows, strict=True)]
    return answered


def _read(path: Path) -> tuple[list[tuple[int, dict[str, Any]]], list[tuple[int, str]]]:
    """The lines that can be sent, with their numbers, and what is wrong with the others."""
    lines: list[tuple[int, dict[str, Any]]] = []
    wrong: list[tuple[int, str]] = []
    first_seen: dict[str, int] = {}
    for number, cells in _cells(path):
        row, faults = _row(cells)
        before = first_seen.setdefault(row["user"], number)
        if before != number:
            faults.append(f"id '{row['user']}': it stands in line {before} already")
        if faults:
            wrong += [(number, fault) for fault in faults]
        else:
            lines.append((number, row))
    return lines, wrong


def _cells(path: Path) -> Iterator[tuple[int, dict[str, str | None]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            given = tuple(reader.fieldnames or ())
            unknown = [name for name in given if name not in _COLUMNS]
            if "id" not in given or unknown or len(set(given)) != len(given):
                raise CommandError(
                    f"{path}, line 1: expected a head of {', '.join(_COLUMNS)} (id is needed, the "
                    f"others may be left out), found {', '.join(given) or 'nothing'}"
                )
            for cells in reader:
                yield reader.line_num, cells
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CommandError(f"{path} cannot be read as CSV in UTF-8: {error}") from error


def _row(cells: dict[str, str | None]) -> tuple[dict[str, Any], list[str]]:
    """A line as it is sent, and what is wrong with it before it is."""
    faults = []
    if None in cells or None in cells.values():
        faults.append("expected as many cells as the head has")
    texts = {name: (cells.get(name) or "").strip() for name in _COLUMNS}
    if not texts["id"]:
        faults.append("id: expected one, found nothing")
    for name, text in texts.items():
        if len(text) > _FIELD_CHARS or "\0" in text:
            faults.append(f"{name}: expected at most {_FIELD_CHARS} characters, none of them NUL")
    used = texts["used_tokens"] or "0"
    if not (used.isascii() and used.isdigit() and int(used) <= 10**12):
        faults.append(f"used_tokens '{used}': expected a whole number from 0 to 10^12")
        used = "0"
    row = {"user": texts["id"], "used_tokens": int(used)}
    row |= {name: texts[name] for name in ("tier", "email", "zone") if texts[name]}
    return row, faults


def _print(
    chosen: argparse.Namespace,
    told: list[tuple[int, dict[str, Any]]],
    wrong: list[tuple[int, str]],
    applied: bool,
) -> None:
    counts = {
        "created": sum(row["outcome"] == "create" for _, row in told),
        "there_already": sum(row["outcome"] == "exists" for _, row in told),
        "wrong_lines": len({line for line, _ in wrong}),
        "booked_tokens": sum(row["books_tokens"] for _, row in told),
    }
    if chosen.json:
        rows = [{"line": line, **row} for line, row in told]
        errors = [{"line": line, "message": message} for line, message in wrong]
        print(json.dumps({"applied": applied, **counts, "rows": rows, "errors": errors}))
        return
    for line, row in told:
        if row["outcome"] != "refused":
            print(f"line {line}: {_sentence(row)}")
    for line, message in wrong:
        print(f"line {line}: WRONG: {message}")
    print(
        f"\n{counts['created']:,} created, {counts['there_already']:,} there already, "
        f"{counts['wrong_lines']:,} lines wrong, {counts['booked_tokens']:,} tokens booked as used"
    )
    if not applied:
        print("Nothing was done: " + ("put these lines in order." if wrong else "--apply does it."))


def _sentence(row: dict[str, Any]) -> str:
    does = "create" if row["outcome"] == "create" else "there already"
    booked = f", book {row['books_tokens']:,} tokens as used" if row["books_tokens"] else ""
    notes = "".join(f"; {note}" for note in row["notes"])
    return f"{does} {row['user']}{booked}{notes}"
