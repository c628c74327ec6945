"""One broken file per mistake: `tests/config/bad/*.yaml`.

The first line of each says what its error must say: `# expect: ...`.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.config import ConfigError, load

FOLDER = Path(__file__).parents[2] / "config" / "bad"
FILES = sorted(FOLDER.glob("*.yaml"))
EXPECT = "# expect: "
SECRET = re.compile(r"(sk|whsec)[-_]canary|pepper: canary")


def test_there_are_files_to_test() -> None:
    assert len(FILES) > 100


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_mistake_is_the_one_problem_reported_and_in_these_words(file: Path) -> None:
    first = file.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith(EXPECT)
    with pytest.raises(ConfigError) as caught:
        load(file, {})
    text = str(caught.value)
    assert first.removeprefix(EXPECT) in text
    assert text.startswith(str(file)), "an error begins with the file"
    assert len(caught.value.problems) == 1, text
    assert not SECRET.search(text)


def test_several_mistakes_are_reported_together_each_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    good = (FOLDER / "shards-zero.yaml").read_text(encoding="utf-8")
    file.write_text(f"{good}log: {{format: xml}}\nlease: {{ms: 5}}\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(file, {})
    lines = str(caught.value).splitlines()
    last = len(file.read_text(encoding="utf-8").splitlines())
    assert [line.split(": ")[0] for line in lines] == [
        f"{file}:{last - 2}",
        f"{file}:{last - 1}",
        f"{file}:{last}",
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b"# only a comment\n", "is empty"),
        (b"version: \xff\n", "is not UTF-8 text: byte 9 is wrong"),
        (b"version: \x00\n", "control characters are not allowed"),
        (b"version: " + b"[" * 2000 + b"]" * 2000, "is nested too deeply"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path: Path, content: bytes, expected: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=expected):
        load(file, {})


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read: No such file"):
        load(tmp_path / "absent.yaml", {})
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path, {})
