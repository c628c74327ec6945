"""What a new file changes: key by key, without secrets, what needs a restart, and what it means."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from gateway.cli.main import main
from gateway.config import Settings, load
from gateway.config.changes import (
    NEEDS_RESTART,
    Change,
    NeedsRestart,
    changes_between,
    refuse_restart,
)
from gateway.config.meaning import meaning
from gateway.config.shape import File
from tests.gateway.running_gateway import merged

SHIPPED = Path(__file__).parents[3] / "config.yaml"
SECRET = "sk-a-new-key-that-nobody-may-see"


def changed(folder: Path, changes: Mapping[str, Any], without: str = "") -> Settings:
    """The shipped file with these laid over it; `without` a tier."""
    tree = merged(yaml.safe_load(SHIPPED.read_text()), changes)
    tree["plan"]["tiers"].pop(without, None)
    file = folder / "new.yaml"
    file.write_text(yaml.safe_dump(tree, sort_keys=False))
    return load(file, {})


def compared(folder: Path, changes: Mapping[str, Any], without: str = "") -> list[Change]:
    return changes_between(load(SHIPPED, {}).file, changed(folder, changes, without).file)


def test_the_same_file_changes_nothing(tmp_path: Path) -> None:
    assert compared(tmp_path, {}) == []


def test_each_changed_key_is_named_once_with_both_values(tmp_path: Path) -> None:
    line = {"tokens": 7}
    tiers = {"free": {"tokens": 80_000, "limits": {"rpm": 60}}, "new": line}
    found = compared(tmp_path, {"plan": {"tiers": tiers}})
    assert [(each.key, each.before) for each in found] == [
        ("plan.tiers.free.tokens", 100_000),
        ("plan.tiers.free.limits.rpm", None),
        ("plan.tiers.new", None),
    ]
    assert [each.after for each in found[:2]] == [80_000, 60]
    assert found[2].after["tokens"] == 7
    assert not any(each.needs_restart for each in found)


def test_a_secret_that_changed_is_not_shown(tmp_path: Path) -> None:
    changes = {
        "upstreams": {"openai": {"api_key": SECRET}},
        "redis": {"url": f"redis://:{SECRET}@there/0"},
    }
    found = compared(tmp_path, changes)
    assert [each.key for each in found] == ["redis.url", "upstreams.openai.api_key"]
    assert SECRET not in msgspec.json.encode(found).decode()


def test_what_needs_a_restart_is_refused_and_named(tmp_path: Path) -> None:
    new = changed(
        tmp_path,
        {"workers": 3, "listen": {"ops": "127.0.0.1:9"}, "log": {"decisions": "all"}},
    )
    with pytest.raises(NeedsRestart, match=r"restart to change workers, listen\.ops;"):
        refuse_restart(load(SHIPPED, {}).file, new.file)


@pytest.mark.parametrize("key", NEEDS_RESTART)
def test_every_key_that_needs_a_restart_is_in_the_file(key: str) -> None:
    kind: Any = File
    for name in key.split("."):
        kind = {each.encode_name: each.type for each in msgspec.structs.fields(kind)}[name]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"plan": {"tiers": {"free": {"tokens": 0}}}}, "who have used more are refused"),
        ({"plan": {"tiers": {"free": {"tokens": 10**6}}}}, "who were refused may go on"),
        ({"plan": {"tiers": {"new": {"tokens": 1}}}}, "may be given to users"),
        ({"plan": {"thresholds_percent": [50]}}, "from the next settlement on"),
        ({"prices": {"gbp_per_unit": "0.80"}}, "admitted from now on"),
        ({"upstreams": {"openai": {"idle_s": 9}}}, "calls from now on go there"),
        ({"cors": {"origins": ["*"]}}, "binds at the next call"),
        ({"state_dir": "elsewhere"}, "needs a restart"),
    ],
)
def test_a_change_says_what_it_means(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    (change,) = compared(tmp_path, changes)
    assert says in meaning(change)


def test_a_tier_that_is_gone_is_a_warning(tmp_path: Path) -> None:
    found = compared(tmp_path, {"plan": {"tiers": {"lite": {"upgrade": None}}}}, without="full")
    (gone,) = (each for each in found if each.after is None and each.key == "plan.tiers.full")
    assert "503" in meaning(gone)


def test_the_command_compares_with_an_old_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed(tmp_path, {"plan": {"tiers": {"free": {"tokens": 80_000}}}})
    asked = ["check-config", "--diff", str(tmp_path / "new.yaml"), "--against", str(SHIPPED)]
    assert main(asked) == 0
    assert capsys.readouterr().out.startswith("plan.tiers.free.tokens: 100,000 → 80,000\n    binds")
    changed(tmp_path, {"upstreams": {"openai": {"api_key": SECRET}}, "workers": 3})
    assert main(asked) == 3
    out = capsys.readouterr().out
    assert "workers: 1 → 3\n    needs a restart" in out
    assert SECRET not in out


def test_where_no_gateway_runs_the_command_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed(tmp_path, {"state_dir": str(tmp_path)})
    assert main(["check-config", "--config", str(tmp_path / "new.yaml"), "--diff"]) == 2
    assert "no gateway runs" in capsys.readouterr().err
