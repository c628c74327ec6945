"""Each promise names the tests that hold it, and each test that is named exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "promises.md").read_text()
PROMISES = tuple(f"I{number}" for number in range(1, 18))
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))


@cache
def functions_of(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, kinds))


def section(promise: str) -> str:
    found = re.search(rf"^## {promise}\n(.*?)(?=^## )", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None, f"docs/promises.md has no section {promise}"
    return found.group(1)


@pytest.mark.parametrize(("path", "name"), NAMED, ids=[name for _, name in NAMED])
def test_a_test_that_is_named_exists(path: str, name: str) -> None:
    assert name.startswith("test_")
    assert name in functions_of(path)


@pytest.mark.parametrize("promise", PROMISES)
def test_each_promise_stands_in_the_table_and_names_a_test(promise: str) -> None:
    assert PAGE.count(f"| [{promise}](#{promise.lower()}) |") == 1
    assert re.search(r"^- `tests/[\w/]+\.py::\w+`$", section(promise), re.MULTILINE)


def test_every_name_of_a_test_is_read() -> None:
    assert PAGE.count(".py::") == len(re.findall(r"`tests/[\w/]+\.py::\w+`", PAGE))
