"""Proof that the tests can fail: plant faults in copies of the project and run its tests there.

`python -m tests.mutants.run --seed 3 --count 20` draws faults of the scripts; each must make the
tests of the scripts fail. Then a store that always admits must make acceptance tests fail. The
tests of the scripts' headers are left out: they would notice a skipped write by its absence.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.mutants.lua_mutants import Mutant, drawn

ROOT = Path(__file__).resolve().parents[2]
_PARTS = ("gateway", "lua", "tests", "config.yaml", "pyproject.toml")
_SCRIPT_TESTS = ("tests/lua", "tests/contract/test_quota_store.py", "tests/contract/test_limits.py")
_LEFT_OUT = ("--ignore=tests/lua/test_headers.py",)
_ACCEPTANCE = (
    "tests/gateway/test_gateway_story.py",
    "tests/gateway/test_gateway_caps.py",
    "tests/gateway/test_gateway_three.py",
    "tests/gateway/test_gateway_sdk.py",
    "tests/contract/test_limits.py",
)
_ADMITTED_WRONGLY_MIN = 5
_TIMEOUT_S = 600


def main() -> int:
    """0 when every fault was noticed."""
    asked = _arguments().parse_args()
    with tempfile.TemporaryDirectory(prefix="mutants-") as place:
        sound = _copy(Path(place), "sound")
        if asked.count and _pytest(sound, (*_SCRIPT_TESTS, *_LEFT_OUT, "-x"))[0] != 0:
            print("the tests fail without any fault: nothing can be proved")
            return 2
        mutants = drawn(ROOT / "lua", asked.seed, asked.count)
        with ThreadPoolExecutor(asked.at_once) as pool:
            noticed = list(pool.map(lambda mutant: _is_noticed(Path(place), mutant), mutants))
        always = _fails_when_all_is_admitted(Path(place))
    print(f"{sum(noticed)} of {len(mutants)} faults noticed (seed {asked.seed})")
    print(f"a store that always admits fails {always} tests, {_ADMITTED_WRONGLY_MIN} are enough")
    return 0 if all(noticed) and always >= _ADMITTED_WRONGLY_MIN else 1


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--at-once", type=int, default=2)
    return parser


def _is_noticed(place: Path, mutant: Mutant) -> bool:
    started_s = time.monotonic()
    copy = _copy(place, f"{mutant.script}-{mutant.line}-{abs(hash(mutant.becomes))}")
    mutant.plant(copy / "lua")
    code, said = _pytest(copy, (*_SCRIPT_TESTS, *_LEFT_OUT, "-x"))
    shutil.rmtree(copy)
    verdict = {0: "NOT NOTICED", 1: "noticed"}.get(code, f"pytest ended with {code}")
    print(f"{verdict} after {time.monotonic() - started_s:.0f} s: {mutant.kind}")
    print(
        f"  {mutant.script}:{mutant.line}\n  - {mutant.was.strip()}\n  + {mutant.becomes.strip()}"
    )
    print(f"  {said}", flush=True)
    return code == 1


def _fails_when_all_is_admitted(place: Path) -> int:
    """How many acceptance tests a gateway fails that grants every call what it wants."""
    copy = _copy(place, "always")
    limits = copy / "lua" / "limits.lua"
    head = "local function most_output(account, member, tier, packs_left, ask)\n"
    text = limits.read_text()
    assert head in text
    limits.write_text(text.replace(head, f"{head}  do\n    return ask.wanted\n  end\n"))
    _, said = _pytest(copy, _ACCEPTANCE)
    print(f"always admitting: {said}")
    failed = re.search(r"(\d+) failed", said)
    return int(failed[1]) if failed else 0


def _copy(place: Path, name: str) -> Path:
    copy = place / name
    copy.mkdir()
    for part in _PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / part)
    return copy


def _pytest(folder: Path, words: tuple[str, ...]) -> tuple[int, str]:
    """The exit code, and the last line of the summary."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
    )
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    failed = [line for line in lines if line.startswith("FAILED")]
    return done.returncode, "; ".join([*failed[:1], *lines[-1:]])[:300]


if __name__ == "__main__":
    sys.exit(main())
