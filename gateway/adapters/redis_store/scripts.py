"""The Lua scripts: read from `lua/`, put together with their prelude, named by digest.

A script names the preludes it wants in its header (`-- prelude: values account`); the loader puts
these files between the shebang line and the body. A missing file or header stops the start.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

NAMES = (
    "caught_up", "correct", "entitle", "extend", "forget", "hydrate", "keep", "open", "reassert",
    "reserve", "settle", "share", "snapshot",
)  # fmt: skip
_PRELUDE = re.compile(r"^-- prelude: ([\w ]+)$", re.MULTILINE)


class ScriptError(Exception):
    """A script file that is missing or not in order; the text names the file."""


@dataclass(frozen=True, slots=True)
class Script:
    """One script, ready to send. `sha` is what EVALSHA wants."""

    name: str
    source: str
    sha: str


def lua_folder() -> Path:
    """Where the scripts are: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[2]
    for folder in (package / "_lua", package.parent / "lua"):
        if folder.is_dir():
            return folder
    raise ScriptError(f"the folder lua/ is missing beside {package}: reinstall quota-gateway")


def load_script(folder: Path, name: str, shebang: bool = True) -> Script:
    """Read one script. Without `shebang` the first line is left out (fakeredis knows none)."""
    first, body = _read(folder / f"{name}.lua").split("\n", 1)
    if not first.startswith("#!lua"):
        raise ScriptError(f"{folder / name}.lua: the first line must be a #!lua line")
    prelude = _PRELUDE.search(body)
    parts = [first] if shebang else []
    if prelude:
        parts.extend(_read(folder / f"{each}.lua") for each in prelude.group(1).split())
    parts.append(body)
    source = "\n".join(parts)
    return Script(name, source, hashlib.sha1(source.encode()).hexdigest())


def load_scripts(folder: Path, shebang: bool = True) -> dict[str, Script]:
    """All scripts by name; ScriptError when one is missing."""
    return {name: load_script(folder, name, shebang) for name in NAMES}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ScriptError(f"{path}: {error.strerror}: reinstall quota-gateway") from error
