"""The bootstrap on a small tree of its own: real pip, real hashes, wheels from a folder.

What it promises: an environment from nothing, no work when nothing changed, healing after a
kill, no touch on what is not its own, and a clear word for each way it can fail. The trees
here have a build backend of ten lines, so that no test needs a network.
"""

import ast
import base64
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PYPROJECT = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "demo"
version = "1"
"""

BACKEND = """\
import zipfile
def build_editable(folder, config_settings=None, metadata_directory=None):
    info = "demo-1.dist-info/"
    with zipfile.ZipFile(folder + "/demo-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("demo.py", "def main(): print('at your service')")
        wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\\nName: demo\\nVersion: 1\\n")
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nTag: py3-none-any\\n")
        wheel.writestr(info + "entry_points.txt", "[console_scripts]\\ndemo = demo:main\\n")
        wheel.writestr(info + "RECORD", "")
    return "demo-1-py3-none-any.whl"
"""


def write_wheel(folder: Path, name: str) -> str:
    """A package of one line in `folder`; its line for a lock."""
    folder.mkdir(exist_ok=True)
    files = {
        f"{name}.py": f"WORD = {name!r}\n",
        f"{name}-1.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n",
        f"{name}-1.dist-info/WHEEL": "Wheel-Version: 1.0\nTag: py3-none-any\n",
    }
    record = []
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=")
        record.append(f"{path},sha256={digest.decode()},{len(text)}")
    files[f"{name}-1.dist-info/RECORD"] = "\n".join(record) + "\n"
    wheel = folder / f"{name}-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            # Without the moment of its making, so that one made twice has one hash.
            archive.writestr(zipfile.ZipInfo(path), text)
    return f"{name}==1 --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"


@dataclass(frozen=True, slots=True)
class Tree:
    """A project with a bootstrap, and the one way to call it."""

    root: Path

    @property
    def python(self) -> Path:
        return self.root / ".venv" / "bin" / "python"

    def environ(self, **more: str) -> dict[str, str]:
        """This process's environment, without what would choose another place or index."""
        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("PIP_", "VENV", "VIRTUAL_ENV", "PYTHON"))
        }
        wheels = str(self.root / "wheels")
        own = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": wheels}
        return {**kept, **own, **more}

    def bootstrap(self, name: str = "run", **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "bootstrap.py", name],
            cwd=self.root,
            env=self.environ(**more),
            capture_output=True,
            text=True,
        )

    def lock(self, part: str, *names: str) -> None:
        lines = [write_wheel(self.root / "wheels", name) for name in names]
        (self.root / "requirements" / f"{part}.lock").write_text("".join(lines))

    def word(self, name: str, python: Path | None = None) -> str:
        """What the environment's own Python finds in that package."""
        code = f"import {name}; print({name}.WORD)"
        answer = subprocess.run([python or self.python, "-c", code], capture_output=True, text=True)
        return answer.stdout.strip() or answer.stderr


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return new_tree(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """One whose environment is made. Tests share it, and leave it complete."""
    made = new_tree(tmp_path_factory.mktemp("finished"))
    first = made.bootstrap()
    assert first.returncode == 0, first.stderr
    return made


def new_tree(place: Path) -> Tree:
    made = Tree(place / "project")
    (made.root / "requirements").mkdir(parents=True)
    shutil.copy(ROOT / "bootstrap.py", made.root)
    (made.root / "pyproject.toml").write_text(PYPROJECT)
    (made.root / "backend.py").write_text(BACKEND)
    made.lock("build")
    made.lock("run", "alpha")
    made.lock("test", "alpha", "beta")
    made.lock("tools", "gamma")
    return made


def test_it_makes_an_environment_and_the_second_call_does_nothing(finished: Tree) -> None:
    assert finished.word("alpha") == "alpha"
    script = finished.root / ".venv" / "bin" / "demo"
    assert subprocess.run([script], capture_output=True).stdout == b"at your service\n"
    second = finished.bootstrap(PIP_FIND_LINKS=os.devnull)  # so that any work would fail
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")


def test_a_changed_lock_and_a_larger_set_are_added(finished: Tree) -> None:
    finished.lock("run", "alpha", "delta")
    changed = finished.bootstrap()
    assert "installing run into" in changed.stderr
    assert finished.word("delta") == "delta"
    larger = finished.bootstrap("test")
    assert "installing test into" in larger.stderr
    assert finished.word("beta") == "beta"
    assert finished.bootstrap().stderr == ""


def test_a_killed_call_heals_at_the_next(tree: Tree) -> None:
    cut_short = subprocess.Popen(
        [sys.executable, "bootstrap.py", "run"],
        cwd=tree.root,
        env=tree.environ(),
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 30
    while not (tree.root / ".venv" / "pyvenv.cfg").exists():
        assert time.monotonic() < deadline, "no environment was begun"
        assert cut_short.poll() in (None, 0)
    os.killpg(cut_short.pid, signal.SIGKILL)
    cut_short.wait()
    leftover = tree.root / ".venv" / "leftover"
    leftover.touch()
    healed = tree.bootstrap()
    assert healed.returncode == 0, healed.stderr
    assert "unfinished" in healed.stderr
    assert not leftover.exists()
    assert tree.word("alpha") == "alpha"


def test_a_moved_tree_gets_a_new_environment(finished: Tree, tmp_path: Path) -> None:
    moved = Tree(tmp_path / "elsewhere")
    shutil.copytree(finished.root, moved.root, symlinks=True)
    assert moved.bootstrap().returncode == 0
    script = moved.root / ".venv" / "bin" / "demo"
    assert str(finished.root) not in script.read_text()
    assert subprocess.run([script], capture_output=True).stdout == b"at your service\n"


def test_an_existing_environment_is_used_and_kept(tree: Tree) -> None:
    other = tree.root / "other"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", other], check=True)
    theirs = other / "theirs"
    theirs.touch()
    assert tree.bootstrap("tools", VIRTUAL_ENV=str(other)).returncode == 0
    assert tree.word("gamma", other / "bin" / "python") == "gamma"
    tree.lock("tools", "gamma", "delta")
    assert tree.bootstrap("tools", VENV=str(other), VIRTUAL_ENV="/elsewhere").returncode == 0
    assert tree.word("delta", other / "bin" / "python") == "delta"
    assert theirs.exists()
    assert not (tree.root / ".venv").exists()


def test_a_folder_that_is_no_environment_is_left_alone(tree: Tree) -> None:
    folder = tree.root / "mine"
    folder.mkdir()
    (folder / "letter").write_text("dear")
    refused = tree.bootstrap(VENV=str(folder))
    assert refused.returncode == 1
    assert "is not a virtual environment" in refused.stderr
    assert [path.name for path in folder.iterdir()] == ["letter"]


def test_a_file_that_was_not_locked_is_refused(tree: Tree) -> None:
    with (tree.root / "wheels" / "alpha-1-py3-none-any.whl").open("ab") as wheel:
        wheel.write(b"more")
    refused = tree.bootstrap()
    assert refused.returncode == 1
    assert "not the one that was locked" in refused.stderr


def test_a_silent_index_is_named(tree: Tree) -> None:
    # Port 9 (discard) has no listener on any machine this runs on; a refusal comes at once.
    silent = {"PIP_NO_INDEX": "0", "PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "1"}
    shutil.rmtree(tree.root / "wheels")
    refused = tree.bootstrap(**silent)
    assert refused.returncode == 1
    assert "The package index does not answer." in refused.stderr


def test_a_package_without_a_wheel_is_named(tree: Tree) -> None:
    (tree.root / "wheels" / "alpha-1-py3-none-any.whl").unlink()
    refused = tree.bootstrap()
    assert refused.returncode == 1
    assert "no ready-made wheel" in refused.stderr


def test_a_python_without_pip_is_named(tree: Tree) -> None:
    shadow = tree.root / "shadow"
    shadow.mkdir()
    (shadow / "pip.py").write_text("raise ImportError")
    refused = tree.bootstrap(PYTHONPATH=str(shadow))
    assert refused.returncode == 1
    assert "apt-get install python3-pip" in refused.stderr


def test_a_place_that_cannot_be_written_is_named(tree: Tree) -> None:
    (tree.root / "file").touch()
    refused = tree.bootstrap(VENV=str(tree.root / "file" / "venv"))
    assert refused.returncode == 1
    assert "Name a folder that you may write" in refused.stderr


def test_an_old_python_reads_the_file_and_is_told_so(tree: Tree) -> None:
    ast.parse((ROOT / "bootstrap.py").read_text(), feature_version=(3, 6))
    code = "import sys; sys.version_info = (3, 9, 2); import bootstrap; bootstrap.main(['run'])"
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=tree.root, capture_output=True, text=True
    )
    assert "Python 3.11 or newer is needed; this is 3.9.2" in told.stderr


@pytest.mark.parametrize("name", ["", "walk"])
def test_an_unknown_set_is_refused_with_the_known_ones(tree: Tree, name: str) -> None:
    refused = tree.bootstrap(name)
    assert refused.returncode == 1
    assert "run|test|tools" in refused.stderr
