"""`check-config --diff`: what a reload would change, what of it needs a restart, what it means.

Asked of the running gateway, which compares in its own process and environment, so no secret leaves
it; or, with `--against`, compared with an old file here. Nothing is changed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.cli.arguments import config_path, settings_of
from gateway.cli.failures import CommandError

if TYPE_CHECKING:
    from gateway.config import Settings
    from gateway.config.changes import Change

NEEDS_RESTART = 3
_ASKED, _WITHIN_S = ("proxy-1", "jobs"), 10.0


def add_diff(parser: argparse.ArgumentParser) -> None:
    """`--diff [FILE]` and `--against OLD`."""
    parser.add_argument(
        "--diff",
        nargs="?",
        type=Path,
        const=Path(),
        metavar="FILE",
        help="what a reload of FILE (default: the configuration) would change; exit code "
        f"{NEEDS_RESTART} when it needs a restart",
    )
    parser.add_argument(
        "--against",
        type=Path,
        metavar="OLD",
        help="compare with this file instead of the running gateway",
    )


def show_changes(chosen: argparse.Namespace) -> int:
    """Print them; the exit code."""
    from msgspec.structs import asdict

    from gateway.config import load
    from gateway.config.changes import changes_between
    from gateway.config.meaning import meaning

    new = config_path(chosen) if chosen.diff in (None, Path()) else chosen.diff
    if chosen.against is not None:
        old = load(chosen.against, os.environ)
        changes = changes_between(old.file, load(new, os.environ).file)
    else:
        changes = asyncio.run(_changes_of_running(settings_of(chosen), new))
    if chosen.json:
        print(json.dumps([asdict(each) | {"meaning": meaning(each)} for each in changes], indent=2))
    else:
        for each in changes:
            print(f"{each.key}: {_both(each)}\n    {meaning(each)}")
        if not changes:
            print("nothing would change")
    return NEEDS_RESTART if any(each.needs_restart for each in changes) else 0


async def _changes_of_running(settings: Settings, new: Path) -> list[Change]:
    import msgspec

    from gateway.app.inside import Question, ask_inside
    from gateway.config.changes import Change
    from gateway.config.document import read_text
    from gateway.web.configuration import CHANGES_PATH

    question = Question(CHANGES_PATH, _WITHIN_S, "POST", read_text(new))
    for process in _ASKED:
        status, said = await ask_inside(settings, process, question)
        if status == 200:
            return msgspec.json.decode(said, type=list[Change])
        if status:
            raise CommandError(f"{new} would be refused: {json.loads(said)['error']}")
    raise CommandError(
        f"no gateway runs on {settings.state_dir}: start one, or name an old file by --against"
    )


def _both(change: Change) -> str:
    before, after = _shown(change.before), _shown(change.after)
    if before == after:  # a secret, or the part of a store's URL that nobody may see
        return "changed"
    if change.before is None:
        return f"new: {after}"
    return f"gone: {before}" if change.after is None else f"{before} → {after}"


def _shown(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
