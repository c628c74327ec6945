"""`check-config`: what is in the file, and which of its models are past their end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.cli.main import main

SHIPPED = Path(__file__).parents[3] / "config.yaml"


def checked(
    capsys: pytest.CaptureFixture[str], folder: Path, until: str, *options: str
) -> list[str]:
    """What it prints of the shipped file in which gpt-4o-mini ends on that day."""
    text = SHIPPED.read_text(encoding="utf-8")
    start = text.index("until:", text.index("  gpt-4o-mini:"))
    file = folder / "config.yaml"
    day = len("until: 2027-01-14")
    file.write_text(f"{text[:start]}until: {until}{text[start + day :]}", encoding="utf-8")
    assert main(["check-config", "--config", str(file), *options]) == 0
    return capsys.readouterr().out.splitlines()


def test_a_model_past_its_end_is_noted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    note = "note    gpt-4o-mini is no longer served: it was to end on 2001-02-03"
    assert note in checked(capsys, tmp_path, "2001-02-03")
    assert note in checked(capsys, tmp_path, '"2001-02-03"')


def test_a_model_that_goes_on_is_not(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    lines = checked(capsys, tmp_path, "9999-12-31")
    assert not [line for line in lines if "gpt-4o-mini is" in line]


def test_the_day_is_listed_as_text(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    listing = json.loads("".join(checked(capsys, tmp_path, "9999-12-31", "--json")))
    assert listing["models"]["gpt-4o-mini"]["until"] == "9999-12-31"
    assert listing["models"]["gpt-6-luna"]["until"] is None
