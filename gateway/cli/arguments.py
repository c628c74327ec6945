"""Arguments that several commands share, and the settings they lead to.

A configuration is looked for where a newcomer would: named, by environment, in this directory,
then the one that came with the program.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.config import Settings

_BESIDE_PACKAGE = Path(__file__).resolve().parents[2] / "config.yaml"
_IN_PACKAGE = Path(__file__).resolve().parents[1] / "_config.yaml"


def add_config(parser: argparse.ArgumentParser) -> None:
    """`--config FILE`."""
    parser.add_argument(
        "--config",
        type=Path,
        default=Path(os.environ["QUOTA_CONFIG"]) if "QUOTA_CONFIG" in os.environ else None,
        metavar="FILE",
        help="configuration (default: $QUOTA_CONFIG, ./config.yaml, or the one shipped)",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json`."""
    parser.add_argument("--json", action="store_true", help="print JSON for programs")


def config_path(chosen: argparse.Namespace) -> Path:
    """The configuration file of this command."""
    if chosen.config is not None:
        return Path(chosen.config)
    for path in (Path("config.yaml"), _BESIDE_PACKAGE):
        if path.is_file():
            return path
    return _IN_PACKAGE


def settings_of(chosen: argparse.Namespace) -> Settings:
    """The settings of this command; ConfigError when the file is not in order."""
    from gateway.config import load

    return load(config_path(chosen), os.environ)


def running(
    work: Callable[[argparse.Namespace], Coroutine[Any, Any, int]],
) -> Callable[[argparse.Namespace], int]:
    """An async command as a plain one."""
    return lambda chosen: asyncio.run(work(chosen))
