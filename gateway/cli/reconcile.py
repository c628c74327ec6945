"""`ledger reconcile`: the ledger against OpenAI's usage and costs, as a table, JSON or CSV.

Ends with 1 when they differ by more than is tolerated, so it can stand in a script. The admin key
comes from the environment, because a command line is read by everybody on the machine.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from collections.abc import Iterable
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

from gateway.cli.arguments import add_config, add_json, running, settings_of
from gateway.cli.failures import FAILED, CommandError

if TYPE_CHECKING:
    from gateway.app.reconcile import Wanted
    from gateway.config import Settings
    from gateway.core.reconciling import Comparison, Line, Side

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

_WIDTH = 170
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def add_reconcile(actions: Commands) -> None:
    """Add `reconcile` to the actions of `ledger`."""
    parser = actions.add_parser(
        "reconcile", help="compare with OpenAI's usage and costs, day by day; 1 if they differ"
    )
    add_config(parser)
    add_json(parser)
    for name, day in (("--from", "first"), ("--to", "last")):
        parser.add_argument(
            name, dest=day, type=_day, required=True, metavar="DAY", help=f"the {day} day (UTC)"
        )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write the lines to a file")
    parser.add_argument(
        "--admin-key-env",
        default="OPENAI_ADMIN_KEY",
        metavar="NAME",
        help="the environment variable with OpenAI's admin key (OPENAI_ADMIN_KEY)",
    )
    parser.add_argument(
        "--tolerance-percent",
        type=float,
        default=1.0,
        metavar="P",
        help="how much tokens and money may differ (1)",
    )
    parser.add_argument(
        "--project", action="append", default=[], metavar="ID", help="only this project at OpenAI"
    )
    parser.add_argument(
        "--upstream", action="append", metavar="NAME", help="the upstream that is OpenAI, if it is "
        "reached under another address"
    )  # fmt: skip
    parser.add_argument(
        "--gbp-per-usd", type=_rate, metavar="RATE", help="instead of prices.gbp_per_unit"
    )
    parser.add_argument(
        "--api-base",
        default="https://api.openai.com/v1",
        metavar="URL",
        help="another address of OpenAI's API",
    )
    parser.set_defaults(run=running(_reconcile))


async def _reconcile(chosen: argparse.Namespace) -> int:
    from gateway.app.reconcile import reconcile

    settings = settings_of(chosen)
    wanted = _wanted(chosen, settings)
    compared = await reconcile(settings, wanted, _admin_key(chosen.admin_key_env))
    is_within = compared.is_within(chosen.tolerance_percent)
    rows = [_row(line, wanted.gbp_per_usd) for line in compared.lines]
    if chosen.csv is not None:
        _write(chosen.csv, rows)
    if chosen.json:
        summary = {
            "is_within": is_within,
            "tolerance_percent": chosen.tolerance_percent,
            "tokens_off_percent": round(compared.tokens_off_percent, 4),
            "cost_off_percent": round(compared.cost_off_percent, 4),
            "explained_tokens": compared.explained_tokens,
            "gbp_per_usd": str(wanted.gbp_per_usd),
        }
        print(json.dumps({**summary, "lines": rows}))
    else:
        _print(compared, wanted.gbp_per_usd)
        words = "within" if is_within else "beyond"
        print(f"{words} the tolerance of {chosen.tolerance_percent:g} %")
    return 0 if is_within else FAILED


def _wanted(chosen: argparse.Namespace, settings: Settings) -> Wanted:
    """What is asked for, or CommandError."""
    from gateway.app.reconcile import Wanted, openai_upstreams

    if chosen.last < chosen.first:
        raise CommandError(f"--to {chosen.last} is before --from {chosen.first}")
    upstreams = frozenset(chosen.upstream or openai_upstreams(settings))
    unknown = upstreams - settings.upstreams.keys()
    if unknown or not upstreams:
        names = ", ".join(settings.upstreams)
        raise CommandError(f"--upstream: name the one that is OpenAI; the file has {names}")
    rate, prices = chosen.gbp_per_usd, settings.file.prices
    if rate is None and prices.currency != "USD":
        raise CommandError(
            f"--gbp-per-usd is needed: the price list is in {prices.currency}, and OpenAI charges "
            "in US dollars"
        )
    where = urlsplit(chosen.api_base)
    if where.scheme != "https" and where.hostname not in _LOOPBACK:
        raise CommandError(f"--api-base {chosen.api_base}: an admin key is sent by https only")
    return Wanted(
        chosen.first,
        chosen.last,
        upstreams,
        tuple(chosen.project),
        rate or Decimal(prices.gbp_per_unit),
        chosen.api_base,
    )


def _admin_key(name: str) -> str:
    key = os.environ.get(name, "").strip()
    if not key or not all("!" <= character <= "~" for character in key):
        trouble = "is not a key" if key else "is not set"
        raise CommandError(
            f"the environment variable {name} {trouble}: put an admin key there (platform.openai."
            "com, Settings, Organization, Admin keys), or name another with --admin-key-env"
        )
    return key


def _row(line: Line, gbp_per_usd: Decimal) -> dict[str, object]:
    """A line as flat columns, for programs."""
    row: dict[str, object] = {"day": line.day, "model": line.model}
    for name, side in (("ledger", line.ledger), ("openai", line.openai)):
        row |= {
            f"{name}_calls": side.calls,
            f"{name}_input_tokens": side.input_tokens,
            f"{name}_cached_tokens": side.cached_tokens,
            f"{name}_output_tokens": side.output_tokens,
            f"{name}_gbp": _gbp(side, 9),
            f"{name}_usd": _usd(side, gbp_per_usd, 9),
        }
    return row | {
        "tokens_off": line.tokens_off,
        "gbp_off": f"{Decimal(line.nano_gbp_off) / 10**9:.9f}",
        "explained_tokens": line.explained_tokens,
        "causes": "; ".join(f"{name}: {told}" for name, told in line.causes.items()),
    }


def _write(path: Path, rows: list[dict[str, object]]) -> None:
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else ["day", "model"])
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise CommandError(f"--csv {path} cannot be written: {error.strerror}") from error


def _print(compared: Comparison, gbp_per_usd: Decimal) -> None:
    from rich.console import Console
    from rich.table import Table

    from gateway.core.reconciling import CAUSES

    table = Table(box=None, padding=(0, 1))
    for name in ("day", "model"):
        table.add_column(name, no_wrap=True)
    columns = ("ledger tokens", "OpenAI", "off", "ledger USD", "OpenAI", "ledger GBP", "OpenAI")
    for name in (*columns, "off"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("causes")
    for line in compared.lines:
        figures = _figures(line.ledger, line.openai, gbp_per_usd)
        table.add_row(line.day, line.model or "(no name)", *figures, ", ".join(line.causes))
    table.add_row("", "all", *_figures(compared.ledger, compared.openai, gbp_per_usd), style="bold")
    console = Console()
    console.width = max(console.width, _WIDTH)  # a wrapped line can be read, a cut figure cannot
    console.print(table)
    for cause, meaning in CAUSES.items():
        told = [line for line in compared.lines if cause in line.causes]
        if told:
            console.print(f"{cause}: {meaning}", style="bold", markup=False, highlight=False)
            for line in told:
                console.print(
                    f"  {line.day} {line.model}: {line.causes[cause]}",
                    markup=False,
                    highlight=False,
                )
    off = sum(abs(line.tokens_off) for line in compared.lines)
    console.print(
        f"off by {compared.tokens_off_percent:.2f} % of tokens and {compared.cost_off_percent:.2f} "
        f"% of cost, by model; estimates can be {compared.explained_tokens:,} of {off:,} tokens",
        highlight=False,
    )


def _figures(ledger: Side, openai: Side, gbp_per_usd: Decimal) -> Iterable[str]:
    off = Decimal(openai.nano_gbp - ledger.nano_gbp) / 10**9
    return (
        f"{ledger.tokens:,}",
        f"{openai.tokens:,}",
        f"{openai.tokens - ledger.tokens:+,}".replace("+0", "0"),
        _usd(ledger, gbp_per_usd, 2),
        _usd(openai, gbp_per_usd, 2),
        _gbp(ledger, 2),
        _gbp(openai, 2),
        f"{off:+z.2f}",
    )


def _gbp(side: Side, places: int) -> str:
    return f"{Decimal(side.nano_gbp) / 10**9:.{places}f}"


def _usd(side: Side, gbp_per_usd: Decimal, places: int) -> str:
    return f"{Decimal(side.nano_gbp) / 10**9 / gbp_per_usd:.{places}f}"


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a day such as 2026-11-01") from None


def _rate(text: str) -> Decimal:
    try:
        rate = Decimal(text)
    except InvalidOperation:
        rate = Decimal(0)
    if not (rate.is_finite() and rate > 0):
        raise argparse.ArgumentTypeError(f"{text!r}: expected pounds for a dollar, such as 0.79")
    return rate
