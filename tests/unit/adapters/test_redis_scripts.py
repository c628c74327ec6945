"""The loader puts scripts together, names them by what they are, and stops at what is missing."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.adapters.redis_store.scripts import (
    NAMES,
    ScriptError,
    load_script,
    load_scripts,
    lua_folder,
)

SCRIPT = "#!lua flags=allow-oom\n-- purpose: an example.\n-- prelude: %s\nreturn twice(1)\n"
ONE, BOTH = SCRIPT % "beginning", SCRIPT % "earlier beginning"
PRELUDE = "local function twice(n) return n * 2 end\n"
EARLIER = "local two = 2\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "example.lua").write_text(ONE)
    (tmp_path / "beginning.lua").write_text(PRELUDE)
    (tmp_path / "earlier.lua").write_text(EARLIER)
    return tmp_path


def test_the_prelude_stands_between_the_shebang_and_the_script(folder: Path) -> None:
    shebang, body = ONE.split("\n", 1)
    script = load_script(folder, "example")
    assert script.source == f"{shebang}\n{PRELUDE}\n{body}"
    assert script.name == "example"


@pytest.mark.parametrize("named", [("earlier", "beginning"), ("beginning", "earlier")])
def test_several_preludes_stand_in_the_order_in_which_they_are_named(
    folder: Path, named: tuple[str, str]
) -> None:
    (folder / "example.lua").write_text(SCRIPT % " ".join(named))
    source = load_script(folder, "example").source
    texts = {"earlier": EARLIER, "beginning": PRELUDE}
    assert source.index(texts[named[0]]) < source.index(texts[named[1]])
    assert source.index(texts[named[1]]) < source.index("return twice")


def test_the_digest_is_that_of_what_is_sent(folder: Path) -> None:
    script = load_script(folder, "example")
    assert script.sha == hashlib.sha1(script.source.encode()).hexdigest()
    (folder / "beginning.lua").write_text(PRELUDE.replace("2", "3"))
    assert load_script(folder, "example").sha != script.sha
    (folder / "example.lua").write_text(BOTH)
    of_both = load_script(folder, "example").sha
    (folder / "earlier.lua").write_text(EARLIER.replace("2", "3"))
    assert load_script(folder, "example").sha != of_both


def test_without_shebang_only_that_line_is_missing(folder: Path) -> None:
    whole, bare = load_script(folder, "example"), load_script(folder, "example", shebang=False)
    assert whole.source == f"{ONE.splitlines()[0]}\n{bare.source}"


def test_a_script_that_names_no_prelude_gets_none(folder: Path) -> None:
    (folder / "example.lua").write_text("#!lua\nreturn 1\n")
    assert load_script(folder, "example").source == "#!lua\nreturn 1\n"


@pytest.mark.parametrize("name", ["example", "beginning", "earlier"])
def test_a_missing_file_is_named_and_stops_the_start(folder: Path, name: str) -> None:
    (folder / "example.lua").write_text(BOTH)
    (folder / f"{name}.lua").unlink()
    with pytest.raises(ScriptError, match=rf"{name}\.lua: No such file"):
        load_script(folder, "example")


def test_a_script_without_shebang_is_named_and_stops_the_start(folder: Path) -> None:
    (folder / "example.lua").write_text("return 1\n")
    with pytest.raises(ScriptError, match=r"example\.lua: the first line must be a #!lua line"):
        load_script(folder, "example")


def test_every_script_of_the_product_loads() -> None:
    scripts = load_scripts(lua_folder())
    assert set(scripts) == set(NAMES)
    assert len({script.sha for script in scripts.values()}) == len(NAMES)
    for script in scripts.values():
        assert script.source.startswith("#!lua")


def test_the_folder_is_found_from_any_directory(tmp_path: Path) -> None:
    code = "from gateway.adapters.redis_store.scripts import lua_folder; print(lua_folder())"
    root = Path(__file__).parents[3]
    found = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(root)!r}); {code}"],
        cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert (Path(found.stdout.strip()) / "settle.lua").is_file()
