"""Make the virtual environment that quota-gateway runs in, is tested in or is locked with.

`python3 bootstrap.py run|test|tools` needs Python 3.11, pip and nothing else: no venv or
ensurepip package, no compiler, no root. It makes `.venv` (or the one that VENV or an activated
environment names) and puts in the packages of `requirements/*.lock`, each checked against its
hash, and the project itself, so that `.venv/bin/quota-gateway` exists. It promises that a
second call does nothing and takes milliseconds, that an interrupted call heals at the next
one, and that a failure says what to do. It refuses to touch a directory that is not a virtual
environment, to compile anything, and to know which package index pip uses.
This file keeps to words that Python 3.6 can read, so that an old one can be told so.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

OLDEST = (3, 11)
OLDEST_PIP = 23  # 22.3 brought `pip --python`, which needs no pip inside the environment
ROOT = Path(__file__).resolve().parent
STATE = ".quota-gateway.json"  # inside the environment: what of it is complete, and who made it

# What each set is made of, in order. A part is a lock file; PROJECT is the tree itself.
PROJECT = "project"
SETS = {
    "run": ("build", "run", PROJECT),
    "test": ("build", "run", "test", PROJECT),
    "tools": ("tools",),
}

ADVICE = {
    "No space left": "The disk is full.",
    "DO NOT MATCH THE HASHES": (
        "A downloaded file is not the one that was locked: do not use it. Check the index or\n"
        "mirror that pip is configured with, empty its cache (pip cache purge), and try again."
    ),
    "CERTIFICATE_VERIFY_FAILED": (
        "The index answered with a certificate that pip does not trust: set PIP_CERT."
    ),
    "connection broken by": (
        "The package index does not answer. A network is needed for the first start only. Behind\n"
        "a mirror, set it as for any pip: PIP_INDEX_URL, or `index-url` in pip.conf. With no\n"
        "network at all, carry the wheels over: `pip download -d wheels -r requirements/run.lock\n"
        "-r requirements/build.lock` where there is one, then, with the full path of that folder,\n"
        "PIP_NO_INDEX=1 PIP_FIND_LINKS=/path/to/wheels make run."
    ),
    "No matching distribution found": (
        "There is no ready-made wheel of that package for this Python and platform, or the index\n"
        "that pip is configured with does not carry it. Python 3.11 to 3.13 on Linux with glibc\n"
        "(x86-64, arm64) and on macOS (arm64) are served."
    ),
    "Permission denied": "Name an environment that you may write: make run VENV=~/quota-venv",
}


class Failure(Exception):
    """The environment could not be made; the text says why and what to do."""


def main(arguments: "list[str]") -> int:
    if tuple(sys.version_info) < OLDEST:
        wanted, found = dotted(OLDEST), dotted(sys.version_info[:3])
        return fail(
            f"Python {wanted} or newer is needed; this is {found} ({sys.executable}).\n"
            "Name a newer one: make run PYTHON=python3.12"
        )
    if len(arguments) != 1 or arguments[0] not in SETS:
        return fail("usage: python3 bootstrap.py " + "|".join(SETS))
    try:
        prepare(chosen_environment(), arguments[0])
    except Failure as failure:
        return fail(str(failure))
    except KeyboardInterrupt:
        return fail("interrupted. The next call starts the environment anew.")
    return 0


def fail(text: str) -> int:
    print("bootstrap: " + text.replace("\n", "\n           "), file=sys.stderr)
    return 1


def dotted(version: "tuple[int, ...]") -> str:
    return ".".join(str(part) for part in version)


def chosen_environment() -> Path:
    """VENV, else the activated environment, else `.venv` beside this file."""
    named = os.environ.get("VENV") or os.environ.get("VIRTUAL_ENV") or str(ROOT / ".venv")
    return Path(os.path.abspath(os.path.expanduser(named)))


def prepare(environment: Path, name: str) -> None:
    """Bring `environment` to hold the set `name`; raise Failure when that cannot be."""
    if not missing_parts(environment, name):
        return
    with only_one(environment):
        if not missing_parts(environment, name):
            return  # another call was faster
        started = time.monotonic()
        ensure_environment(environment)
        parts = missing_parts(environment, name)
        say(f"installing {', '.join(parts)} into {shown(environment)} ...")
        install(environment, parts)
        say(f"done in {time.monotonic() - started:.1f} s")


def say(text: str) -> None:
    print(f"bootstrap: {text}", file=sys.stderr, flush=True)


def shown(path: Path) -> str:
    return os.path.relpath(str(path)) if ROOT in path.parents else str(path)


@contextlib.contextmanager
def only_one(environment: Path) -> "Iterator[None]":
    """Hold the folder around the environment, so that two calls do not mix their files."""
    try:
        environment.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(str(environment.parent), os.O_RDONLY)
    except OSError as error:
        raise Failure(unwritable(environment, error)) from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def unwritable(environment: Path, error: OSError) -> str:
    return (
        f"{shown(environment)} cannot be made: {error.strerror}.\n"
        "Name a folder that you may write: make run VENV=~/quota-venv"
    )


# --- what is there -------------------------------------------------------------------------


class State(NamedTuple):
    """What an environment says of itself."""

    ours: bool  # made by this file, so that it may be thrown away
    home: str  # where it stood and which Python it had: scripts and folders depend on both
    complete: "dict[str, str]"


def read_state(environment: Path) -> State:
    try:
        return State(**json.loads((environment / STATE).read_text()))
    except (OSError, ValueError, TypeError):
        return State(False, "", {})


def write_state(environment: Path, state: State) -> None:
    written = environment / (STATE + ".new")
    written.write_text(json.dumps(state._asdict()))
    written.replace(environment / STATE)


def python_of(environment: Path) -> Path:
    return environment / "bin" / "python"


def home_of(environment: Path) -> str:
    return f"{environment} {python_of(environment).resolve()}"


def missing_parts(environment: Path, name: str) -> "list[str]":
    """The parts of the set that the environment does not hold as they stand in the tree now."""
    state = read_state(environment)
    whole = state.home == home_of(environment) and python_of(environment).exists()
    complete = state.complete if whole else {}
    return [part for part in SETS[name] if complete.get(part) != digest(part)]


def digest(part: str) -> str:
    """Changes when the part does; the project's also when the tree has moved."""
    source = "pyproject.toml" if part == PROJECT else f"requirements/{part}.lock"
    where = str(ROOT) if part == PROJECT else ""
    return hashlib.sha256(where.encode() + (ROOT / source).read_bytes()).hexdigest()


# --- the environment -----------------------------------------------------------------------


def ensure_environment(environment: Path) -> None:
    """Leave a working virtual environment: the one that is there, or a new one.

    One that this file made is thrown away when it was never finished, was moved, or its Python
    has changed. One that somebody else made is used as it is, and never deleted.
    """
    state = read_state(environment)
    try:
        if state.ours:
            if state.complete and state.home == home_of(environment):
                return
            say(f"{shown(environment)} is unfinished or was moved: starting it anew")
            shutil.rmtree(str(environment))
        elif (environment / "pyvenv.cfg").exists():
            check_foreign(environment)
            return
        elif environment.exists() and os.listdir(str(environment)):
            raise Failure(
                f"{shown(environment)} is there and is not a virtual environment.\n"
                "Remove it, or name another: make run VENV=~/quota-venv"
            )
        say(f"making {shown(environment)} with Python {dotted(sys.version_info[:3])}")
        environment.mkdir(parents=True, exist_ok=True)
        write_state(environment, State(True, "", {}))  # first, so that a cut-short one is known
        venv.EnvBuilder(symlinks=True, with_pip=False).create(str(environment))
    except OSError as error:
        raise Failure(unwritable(environment, error)) from error


def check_foreign(environment: Path) -> None:
    say(f"using the virtual environment {shown(environment)}, which is there already")
    question = "import sys; print(sys.version_info >= " + repr(OLDEST) + ")"
    if ask(python_of(environment), question) != "True":
        raise Failure(
            f"the Python of {shown(environment)} does not start or is older than "
            f"{dotted(OLDEST)}.\nName another environment: make run VENV=.venv"
        )


def ask(python: Path, question: str) -> str:
    """What that Python prints for a one-line program, or "" if it fails."""
    try:
        answer = subprocess.run(
            [str(python), "-c", question], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except OSError:
        return ""
    return answer.stdout.decode().strip()


# --- packages ------------------------------------------------------------------------------


def install(environment: Path, parts: "list[str]") -> None:
    """Put the parts in; the state says complete only when all of it is."""
    pip = pip_for(environment)
    state = read_state(environment)
    try:
        write_state(environment, state._replace(complete={}))
    except OSError as error:
        raise Failure(unwritable(environment, error)) from error
    locks = [str(ROOT / "requirements" / f"{part}.lock") for part in parts if part != PROJECT]
    if locks:
        options = [word for lock in locks for word in ("-r", lock)]
        call([*pip, "--require-hashes", "--only-binary", ":all:", *options])
    if PROJECT in parts:
        call([*pip, "--no-deps", "--no-build-isolation", "--editable", str(ROOT)])
    home = home_of(environment)
    kept = state.complete if state.home == home else {}
    write_state(environment, State(state.ours, home, {**kept, **{p: digest(p) for p in parts}}))


def pip_for(environment: Path) -> "list[str]":
    """The start of an install command: the environment's own pip, else this Python's."""
    quiet = ["install", "--quiet", "--no-input", "--no-user", "--disable-pip-version-check"]
    inside = python_of(environment)
    if ask(inside, "import pip; print(1)") == "1":
        return [str(inside), "-m", "pip", *quiet]
    for python in (Path(sys.executable), Path(sys.executable).resolve()):
        version = ask(python, "import pip; print(pip.__version__)")
        if version and int(version.split(".")[0]) >= OLDEST_PIP:
            return [str(python), "-m", "pip", "--python", str(inside), *quiet]
    raise Failure(
        f"{sys.executable} has no pip of version {OLDEST_PIP} or newer.\n"
        "On Debian and Ubuntu: apt-get install python3-pip. Elsewhere: python3 -m ensurepip --user"
    )


def call(command: "list[str]") -> None:
    """Run pip and keep its words; show them, with advice, only when it fails."""
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if ended.returncode:
        raise Failure(explained(ended.stdout.decode(errors="replace")))


def explained(output: str) -> str:
    """pip's last words, and below them what they mean for the reader, where that is known."""
    tail = "\n".join(output.strip().splitlines()[-12:])
    advice = next((advice for sign, advice in ADVICE.items() if sign in output), "")
    return f"pip failed:\n{tail}\n\n{advice}".strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
