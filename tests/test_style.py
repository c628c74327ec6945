"""The style of the whole tree: budgets, names, openings, marks, paths and import contracts.

A rule is a function from a file to the breaches in it; there is no list of exceptions. Each
rule is shown a planted breach, so that a rule that finds nothing cannot pass for a clean tree.
"""

import ast
import fnmatch
import io
import re
import shutil
import subprocess
import sys
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

MODULE_LINES = 300
TEST_FILE_LINES = 500
SCRIPT_LINES = 120
FUNCTION_LINES = 50
PARAMETERS = 5
LINE_CHARACTERS = 100
OPENING_LINES = range(3, 13)

CODE = {".py", ".lua", ".sql", ".sh"}
# Words that say nothing of what a thing is for.
EMPTY_WORDS = {"manager", "helper", "util", "common", "misc"}
# Marks of work put off, and of a rule set aside.
MARKS = re.compile(r"\b(TODO|FIXME|XXX|noqa|pragma)\b|\btype:\s*ignore", re.IGNORECASE)
MACHINE_PATHS = re.compile(r"(?<![\w.}])/(work|home|root)/")
REGISTRIES = re.compile(r"\b(pypi\.org|pythonhosted\.org|deb\.debian\.org|npmjs\.(org|com))\b")
# Calls that read the clock, chance, the environment or the outside; core may make none of them.
IMPURE_CALLS = {
    *("open", "print", "input", "eval", "exec", "__import__"),
    *("now", "utcnow", "today", "fromtimestamp", "getenv", "urandom", "uuid1", "uuid4"),
    *("sleep", "monotonic", "perf_counter", "time_ns", "read_text", "write_text"),
}


@dataclass(frozen=True)
class Source:
    """One file of the tree, as the rules see it."""

    path: Path  # from the root of the tree
    text: str

    @cached_property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text if self.is_python else "")

    @property
    def is_python(self) -> bool:
        return self.path.suffix == ".py"

    @property
    def is_gateway(self) -> bool:
        return self.is_python and self.path.parts[0] == "gateway"

    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node

    def comments(self) -> Iterator[tuple[int, str]]:
        """The comments of a Python file; of another, every line, since it may hold one."""
        if not self.is_python:
            yield from enumerate(self.lines, 1)
            return
        for token in tokenize.generate_tokens(io.StringIO(self.text).readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string


Rule = Callable[[Source], Iterator[str]]


# --- the rules -----------------------------------------------------------------------------


def file_length(source: Source) -> Iterator[str]:
    if source.path.suffix not in CODE:
        return
    kind = MODULE_LINES
    if source.path.parts[0] == "tests":
        kind = TEST_FILE_LINES
    elif source.path.suffix == ".lua":
        kind = SCRIPT_LINES
    if len(source.lines) > kind:
        yield f"{len(source.lines)} lines, the limit is {kind}"


def line_length(source: Source) -> Iterator[str]:
    if source.path.suffix in CODE:
        for number, line in enumerate(source.lines, 1):
            if len(line) > LINE_CHARACTERS:
                yield f"line {number} has {len(line)} characters, the limit is {LINE_CHARACTERS}"


def function_length(source: Source) -> Iterator[str]:
    for function in source.functions():
        lines = (function.end_lineno or function.lineno) - function.lineno + 1
        if lines > FUNCTION_LINES:
            yield f"{function.name} has {lines} lines, the limit is {FUNCTION_LINES}"


def parameter_count(source: Source) -> Iterator[str]:
    for function in source.functions():
        wanted = function.args
        every = [*wanted.posonlyargs, *wanted.args, *wanted.kwonlyargs]
        every += [extra for extra in (wanted.vararg, wanted.kwarg) if extra]
        names = [parameter.arg for parameter in every]
        count = len(names) - (names[:1] in (["self"], ["cls"]))
        if count > PARAMETERS:
            yield f"{function.name} takes {count} parameters, the limit is {PARAMETERS}"


def opening(source: Source) -> Iterator[str]:
    """Each module says what it is, what it promises, what it refuses to know."""
    if not source.is_gateway or not source.text.strip():
        return
    lines = len((ast.get_docstring(source.tree) or "").splitlines())
    short = source.path.name in ("__init__.py", "__main__.py")
    if lines not in (range(1, OPENING_LINES.stop) if short else OPENING_LINES):
        yield f"opens with {lines} lines; 3 to 12 say what it is, promises and refuses to know"


def telling_names(source: Source) -> Iterator[str]:
    if not source.is_python:
        return
    kinds = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    names = [node.name for node in ast.walk(source.tree) if isinstance(node, kinds)]
    for name in [source.path.stem, *names]:
        words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)
        if {word.lower().rstrip("s") for word in words} & EMPTY_WORDS:
            yield f"the name {name} does not say what it is for"


def nothing_put_off(source: Source) -> Iterator[str]:
    if source.path.suffix in CODE:
        for number, comment in source.comments():
            if found := MARKS.search(comment):
                yield f"line {number}: {found.group()}"


def no_machine(source: Source) -> Iterator[str]:
    """No folder of one machine and no address of a package registry, in any file."""
    for pattern in (MACHINE_PATHS, REGISTRIES):
        if found := pattern.search(source.text):
            yield f"names {found.group()}"


def imports_at_the_top(source: Source) -> Iterator[str]:
    """Only the command and what it composes may import late, to start fast."""
    if not source.is_gateway or source.path.parts[1] in ("cli", "app"):
        return
    for function in source.functions():
        for node in ast.walk(function):
            if isinstance(node, ast.Import | ast.ImportFrom):
                yield f"line {node.lineno}: an import inside {function.name}"


def core_is_pure(source: Source) -> Iterator[str]:
    if source.path.parts[:2] != ("gateway", "core"):
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await):
            yield f"line {node.lineno}: core waits for nothing"
        if isinstance(node, ast.Global):
            yield f"line {node.lineno}: core keeps no state"
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", None) or getattr(node.func, "attr", None)
            if name in IMPURE_CALLS:
                yield f"line {node.lineno}: core does not call {name}"


def core_needs_little(source: Source) -> Iterator[str]:
    """Core stands on the standard library, msgspec and itself."""
    if source.path.parts[:2] != ("gateway", "core"):
        return
    allowed = {*sys.stdlib_module_names, "gateway", "msgspec"}
    for node in ast.walk(source.tree):
        names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            if name.split(".")[0] not in allowed:
                yield f"core imports {name}"


RULES: tuple[Rule, ...] = (
    file_length,
    line_length,
    function_length,
    parameter_count,
    opening,
    telling_names,
    nothing_put_off,
    no_machine,
    imports_at_the_top,
    core_is_pure,
    core_needs_little,
)


# --- the tree ------------------------------------------------------------------------------


@cache
def sources(root: Path) -> list[Source]:
    """Every text file under `root` that .gitignore does not leave out; git is not needed."""
    ignored = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text().split()] + [".git"]
    found = []
    for path in sorted(root.rglob("*")):
        inside = path.relative_to(root)
        if any(fnmatch.fnmatch(part, rule) for part in inside.parts for rule in ignored):
            continue
        if path.is_file() and b"\0" not in (content := path.read_bytes()):
            found.append(Source(inside, content.decode(errors="replace")))
    return found


def breaches(root: Path, rule: Rule) -> list[str]:
    return [f"{source.path}: {breach}" for source in sources(root) for breach in rule(source)]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_tree_keeps(rule: Rule) -> None:
    found = breaches(ROOT, rule)
    assert not found, "\n".join(found)


def test_the_tree_is_really_read() -> None:
    paths = {str(source.path) for source in sources(ROOT)}
    assert {"bootstrap.py", "gateway/__main__.py", "tests/test_style.py"} <= paths
    assert any(path.startswith("lua/") for path in paths)
    assert not any("__pycache__" in path or path.startswith(".venv/") for path in paths)


# --- the rules themselves ------------------------------------------------------------------

DOC = '"""What.\n\nPromise.\n"""\n'
PLANTED: tuple[tuple[Rule, str, str], ...] = (
    (file_length, "gateway/long.py", DOC + "A = 1\n" * 300),
    (file_length, "tests/test_long.py", "A = 1\n" * 501),
    (file_length, "lua/long.lua", "-- a line\n" * 121),
    (line_length, "lua/wide.lua", "-- " + "a" * 98),
    (function_length, "tests/long.py", "def f():\n" + "    a = 1\n" * 50),
    (parameter_count, "tests/many.py", "def f(a, b, c, /, d, *e, f): ..."),
    (parameter_count, "tests/many.py", "class A:\n    def f(self, a, b, c, d, e, *, f): ..."),
    (opening, "gateway/bare.py", "A = 1\n"),
    (opening, "gateway/brief.py", '"""One line."""\n'),
    (opening, "gateway/chatty.py", '"""' + "a\n" * 13 + '"""\n'),
    (opening, "gateway/flow/__init__.py", "A = 1\n"),
    (telling_names, "gateway/utils.py", ""),
    (telling_names, "gateway/a.py", "class KeyManager: ..."),
    (telling_names, "gateway/a.py", "async def misc_things(): ..."),
    (nothing_put_off, "gateway/a.py", "A = 1  # TODO: later"),
    (nothing_put_off, "tests/a.py", "A = 1  # type: ignore[misc]"),
    (nothing_put_off, "tests/a.py", "import os  # noqa: F401"),
    (nothing_put_off, "lua/a.lua", "-- FIXME"),
    (no_machine, "docs/a.md", "see /" + "home" + "/someone"),
    (no_machine, "requirements/a.lock", "--index-url https://" + "pypi" + ".org/simple"),
    (imports_at_the_top, "gateway/flow/a.py", "def f():\n    import time\n"),
    (core_is_pure, "gateway/core/a.py", "import datetime\nA = datetime.datetime.now()"),
    (core_is_pure, "gateway/core/a.py", "async def f(): ..."),
    (core_is_pure, "gateway/core/a.py", "def f():\n    print('here')\n"),
    (core_needs_little, "gateway/core/a.py", "from yaml import safe_load"),
    (core_needs_little, "gateway/core/a.py", "import aiohttp.web"),
)


@pytest.mark.parametrize(
    ("rule", "path", "text"), PLANTED, ids=[f"{rule.__name__}-{path}" for rule, path, _ in PLANTED]
)
def test_a_planted_breach_is_found(rule: Rule, path: str, text: str, tmp_path: Path) -> None:
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(text)
    assert len(breaches(tmp_path, rule)) == 1


def test_every_rule_is_shown_a_breach() -> None:
    assert {rule for rule, _, _ in PLANTED} == set(RULES)


def test_what_is_allowed_is_not_called_a_breach() -> None:
    fine = Source(
        Path("gateway/fine.py"),
        DOC
        + "class A:\n    def f(self, a, b, c, d, e):\n        return 'TODO'  # said, not owed\n",
    )
    empty = Source(Path("gateway/flow/__init__.py"), "")
    assert not [breach for rule in RULES for source in (fine, empty) for breach in rule(source)]


# --- the import contracts ------------------------------------------------------------------


def contracts(root: Path) -> subprocess.CompletedProcess[str]:
    """Check the contracts of `pyproject.toml` against the `gateway` package under `root`."""
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"
    return subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=100
    )


def test_imports_go_one_way() -> None:
    answer = contracts(ROOT)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_planted_imports_break_each_contract(tmp_path: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "gateway", tmp_path / "gateway")
    planted = {
        "core/planted.py": "import time\nimport gateway.app\n",
        "flow/planted.py": "import aiohttp\n",
        "config/planted.py": "import gateway.flow.planted\n",
        "stray.py": "",
    }
    for path, text in planted.items():
        (tmp_path / "gateway" / path).write_text(text)
    answer = contracts(tmp_path)
    assert answer.returncode == 1, answer.stdout + answer.stderr
    assert "gateway.core.planted -> gateway.app" in answer.stdout
    assert "gateway.core.planted -> time" in answer.stdout
    assert "gateway.flow.planted -> aiohttp" in answer.stdout
    assert "gateway.config.planted -> gateway.flow.planted" in answer.stdout
