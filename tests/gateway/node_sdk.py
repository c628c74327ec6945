"""What tests run from npm, the official Node SDK first, installed from its lock beside them.

Where Node or npm is missing a test skips with the reason; under `CI=true` it fails instead.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "node"
_INSTALL_S, _RUN_S = 300, 120


def require(*programs: str) -> None:
    """Go on only where these programs are installed."""
    missing = [name for name in programs if shutil.which(name) is None]
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"not installed: {', '.join(missing)}")
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


def install() -> None:
    """What the lock names, once; two processes may ask at the same time."""
    require("node", "npm")
    with (FOLDER / "package-lock.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = json.load(lock)["packages"]
        if all(_is_there(path, about) for path, about in wanted.items() if path):
            return
        subprocess.run(
            ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
            cwd=FOLDER,
            check=True,
            timeout=_INSTALL_S,
            stdout=subprocess.DEVNULL,
        )


def _is_there(path: str, about: dict[str, Any]) -> bool:
    """A package in the version of the lock; one for other machines may be left out."""
    found = FOLDER / path / "package.json"
    if not found.exists():
        return bool(about.get("optional"))
    return bool(json.loads(found.read_text())["version"] == about["version"])


def calls_in_node(base_url: str, key: str, model: str) -> dict[str, Any]:
    """What every call of `calls.mjs` returned in Node."""
    done = subprocess.run(
        ["node", "in_node.mjs", base_url, key, model],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        timeout=_RUN_S,
    )
    assert done.returncode == 0, done.stderr
    results: dict[str, Any] = json.loads(done.stdout)
    return results
