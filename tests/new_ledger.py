"""An embedded ledger as it is before anybody has used it, ready made.

Making one (initdb, every migration) costs seconds of processor time, and more than a hundred tests
begin with a state directory of their own. So each worker makes one, and copies it.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def put_new_ledger(state_dir: Path) -> None:
    """Lay one into a state directory; one that has a ledger keeps it."""
    home = state_dir / "postgres"
    if home.exists():
        return
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    home.mkdir(mode=0o700)
    subprocess.run(["cp", "-a", _made() / "postgres" / "data", home], check=True)


@cache
def _made() -> Path:
    """A state directory after `quota-gateway migrate`."""
    place = Path(tempfile.mkdtemp(prefix="qg-ledger-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    ours = {"PYTHONPATH": str(ROOT), "QUOTA_STATE_DIR": str(place), "QUOTA_PEPPER": ""}
    stores = {"REDIS_URL": "embedded", "DATABASE_URL": "embedded"}
    subprocess.run(
        [sys.executable, "-m", "gateway", "migrate", "--config", ROOT / "config.yaml"],
        env={**os.environ, **ours, **stores},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return place
