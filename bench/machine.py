"""On what a benchmark ran: the machine, the versions of all that took part, the date."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

_PACKAGES = ("aiohttp", "uvloop", "hiredis", "redis", "asyncpg", "httptools", "tiktoken")
_PROGRAMS = {
    "redis-server": "--version",
    "postgres": "--version",
    "nginx": "-v",
    "wrk": "-v",
}


def described() -> dict[str, str]:
    """Words for a reader; what is not installed is left out."""
    system = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    packages = {name: _package(name) for name in _PACKAGES}
    programs = {name: _program(name, option) for name, option in _PROGRAMS.items()}
    versions = {**packages, **programs}
    return {
        "date": f"{datetime.now(UTC):%-d %B %Y}",
        "machine": f"{_processor()}, {os.cpu_count()} cores, Linux {platform.release()}, {system}",
        "python": platform.python_version(),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items() if version),
    }


def _processor() -> str:
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _package(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _program(name: str, option: str) -> str:
    usual = ["/usr/sbin", *(str(path) for path in Path("/usr/lib/postgresql").glob("*/bin"))]
    where = shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), *usual)))
    if where is None:
        return ""
    told = subprocess.run((where, option), capture_output=True, text=True)
    version = re.search(r"\d+\.\d+(\.\d+)?", told.stdout + told.stderr)
    return version[0] if version else ""
