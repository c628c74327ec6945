"""Trying the gateway with real traffic: replay.

Reads the arguments, shows the progress and prints what came of it; the replay itself is
`gateway.app.replay`. Exit code 1 when anything differs, stays open or does not answer.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from gateway.cli.arguments import add_config, add_json, running, settings_of
from gateway.cli.failures import FAILED, CommandError
from gateway.cli.ledger import print_verdict

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.table import Table

    from gateway.app.replay import ReplayOrder, ReplayReport

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_commands(commands: Commands) -> None:
    """Add `replay`."""
    parser = commands.add_parser(
        "replay", help="send a trace of real requests through a running gateway, then compare"
    )
    parser.add_argument(
        "file", nargs="?", type=Path, metavar="FILE",
        help="CSV: TIMESTAMP,ContextTokens,GeneratedTokens (default: a sample)",
    )  # fmt: skip
    number = _whole(1)
    parser.add_argument("--users", type=number, default=6, metavar="N", help="users (6)")
    parser.add_argument("--seed", type=_whole(0), default=7, metavar="S", help="chance (7)")
    parser.add_argument(
        "--speed", type=_speed, default=0.0, metavar="X",
        help="1: the trace's own time, 60: an hour in a minute, max: no waiting (max)",
    )  # fmt: skip
    parser.add_argument(
        "--concurrency", type=number, default=32, metavar="N", help="requests at a time (32)"
    )
    parser.add_argument(
        "--patience", type=_seconds, default=60.0, metavar="S",
        help="wait so long for a gateway that does not answer (60)",
    )  # fmt: skip
    parser.add_argument("--fresh", action="store_true", help="new users with nothing used")
    parser.add_argument("--model", metavar="NAME", help="default: the first that all may call")
    parser.add_argument("--gateway", metavar="URL", help="default: the one that runs here")
    parser.add_argument("--upstream", metavar="URL", help="stand-in to compare with (found)")
    parser.add_argument(
        "--real-upstream", action="store_true", help="go ahead without a stand-in: costs money"
    )
    add_config(parser)
    add_json(parser)
    parser.set_defaults(run=running(_replay))


async def _replay(chosen: argparse.Namespace) -> int:
    from gateway.app.replay import SAMPLE, CannotReplay, ReplayOrder, replay
    from gateway.replay.trace import TraceError

    settings = settings_of(chosen)
    if chosen.users < len(settings.plan.tiers):
        tiers = ", ".join(settings.plan.tiers)
        raise CommandError(f"--users {chosen.users}: expected one for each tier at least ({tiers})")
    order = ReplayOrder(
        trace=chosen.file or SAMPLE,
        users=chosen.users,
        seed=chosen.seed,
        speed=chosen.speed,
        concurrency=chosen.concurrency,
        patience_s=chosen.patience,
        fresh=chosen.fresh,
        model=chosen.model,
        gateway=chosen.gateway,
        upstream=chosen.upstream,
        real_upstream=chosen.real_upstream,
    )
    try:
        with _progress() as progress:
            report = await replay(settings, order, lambda rows: _advance(progress, rows))
    except TraceError as error:
        raise CommandError(str(error)) from error
    except CannotReplay as error:
        print(f"quota-gateway: {error}", file=sys.stderr)
        return FAILED
    if chosen.json:
        print(json.dumps(_as_json(order, report)))
    else:
        _print(order, report)
    if report.gone is not None:
        print(f"quota-gateway: gave up on the gateway: {report.gone}", file=sys.stderr)
    return 0 if report.in_order else FAILED


def _progress() -> Progress:
    """A bar on standard error; nothing where that is no terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    return Progress(
        TextColumn("replaying"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _advance(progress: Progress, rows: int) -> Callable[[], None]:
    task = progress.add_task("replaying", total=rows)
    return lambda: progress.advance(task)


def _as_json(order: ReplayOrder, report: ReplayReport) -> dict[str, Any]:
    verdict = report.verdict
    return {
        "trace": str(order.trace),
        "seed": order.seed,
        "in_order": report.in_order,
        **asdict(report),
        "verdict": {"agrees": verdict.agrees, **asdict(verdict)} if verdict else None,
    }


def _print(order: ReplayOrder, report: ReplayReport) -> None:
    from rich.console import Console

    console = Console()
    console.print(_table(report))
    told = sum(counts.with_usage for counts in report.tiers.values())
    behind = f", at most {report.behind_s:.1f} s behind the trace" if order.speed else ""
    console.print(f"{report.rows:,} rows in {report.elapsed_s:.1f} s{behind}")
    console.print(f"{told:,} answers told their tokens; streams do only when they are asked to")
    if report.verdict is not None:
        console.print()
        print_verdict(report.verdict)
        if not report.verdict.open_holds:
            console.print("no hold is open")


def _table(report: ReplayReport) -> Table:
    """A column for each tier."""
    from rich.table import Table

    every = report.tiers.values()
    codes = sorted({code for counts in every for code in counts.refused})
    lines = {
        "users": [counts.users for counts in every],
        "requests": [counts.requests for counts in every],
        "admitted": [counts.admitted for counts in every],
        **{f"refused: {code}": [each.refused.get(code, 0) for each in every] for code in codes},
        "failed, sent again": [counts.failed for counts in every],
        "admitted with a lower cap": [counts.lowered for counts in every],
        "prompt tokens told": [counts.prompt_tokens for counts in every],
        "output tokens told": [counts.output_tokens for counts in every],
    }
    table = Table(box=None, padding=(0, 2))
    table.add_column("")
    for tier in report.tiers:
        table.add_column(tier, justify="right")
    for name, figures in lines.items():
        table.add_row(name, *(f"{figure:,}" for figure in figures))
    return table


def _whole(least: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from {least}")
        return int(text)

    return read


def _seconds(text: str) -> float:
    return _number(text, "a number from 0")


def _speed(text: str) -> float:
    return 0.0 if text == "max" else _number(text, "max or a number from 0")


def _number(text: str, expected: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: expected {expected}")
    return number
