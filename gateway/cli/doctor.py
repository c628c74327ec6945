"""`doctor`: what is wrong, and what to do, line by line.

Exit code 1 where anything is wrong; a warning leaves it 0.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING, TypeAlias

from gateway.cli.arguments import add_config, add_json, config_path, settings_of
from gateway.cli.failures import FAILED

if TYPE_CHECKING:
    from gateway.app.doctor import Finding

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
_WIDTH, _STATE, _CHECK = 110, 9, 22


def add_commands(commands: Commands) -> None:
    """Add `doctor`."""
    parser = commands.add_parser(
        "doctor", help="look at the configuration and all around it; say what to do"
    )
    add_config(parser)
    add_json(parser)
    parser.set_defaults(run=_doctor)


def _doctor(chosen: argparse.Namespace) -> int:
    from gateway.app.doctor import worst

    findings = asyncio.run(_findings(chosen))
    state = worst(findings)
    if chosen.json:
        listing = {"state": state, "findings": [asdict(each) for each in findings]}
        print(json.dumps(listing, indent=2, ensure_ascii=False))
    else:
        for each in findings:
            print(_lines(each))
    return FAILED if state == "wrong" else 0


async def _findings(chosen: argparse.Namespace) -> list[Finding]:
    from gateway.app.doctor import Finding, examine
    from gateway.config import ConfigError

    try:
        settings = settings_of(chosen)
    except ConfigError as error:
        advice = "correct it: nothing else can be looked at before"
        problems = str(error).splitlines()
        return [Finding("configuration", "wrong", text, advice) for text in problems]
    in_order = Finding("configuration", "ok", f"{config_path(chosen)} is in order")
    return [in_order, *await examine(settings)]


def _lines(finding: Finding) -> str:
    head = f"{finding.state:<{_STATE}}{finding.check:<{_CHECK}}"
    inside = " " * len(head)

    def wrapped(text: str, first: str) -> str:
        return textwrap.fill(
            text, _WIDTH, initial_indent=first, subsequent_indent=inside, break_on_hyphens=False
        )

    said = wrapped(finding.found, head)
    if finding.advice is None:
        return said
    return f"{said}\n{wrapped(f'→ {finding.advice}', inside)}"
