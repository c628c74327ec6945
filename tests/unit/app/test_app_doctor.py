"""What the doctor says of settings that are allowed and still not what anybody wants."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.app.doctor import Finding, around, configured, worst
from gateway.config import Settings, load

SHIPPED = Path(__file__).parents[3] / "config.yaml"
OPENAI = {"base_url": "https://api.openai.com/v1", "api_key": "sk-of-nobody"}
NOW_MS = 1_795_000_000_000  # November 2026


def settings(folder: Path, **changes: Any) -> Settings:
    """The shipped file with other sections, and no environment."""
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(SHIPPED.read_text()), **changes}))
    return load(file, {})


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "ok"),
        ({"api_key": ""}, "wrong"),
        ({"base_url": "http://10.0.0.5:8000/v1"}, "warning"),
        ({"base_url": "http://127.0.0.1:11434/v1", "api_key": ""}, "ok"),
        ({"base_url": "http://localhost:11434/v1", "api_key": ""}, "ok"),
        ({"base_url": "http://localhost.example.org/v1"}, "warning"),
    ],
)
def test_an_upstream_has_a_key_and_is_not_overheard(
    tmp_path: Path, changes: dict[str, str], state: str
) -> None:
    (found,) = configured.upstreams(
        settings(tmp_path, upstreams={"openai": OPENAI | changes}), None
    )
    assert found.state == state
    assert "sk-of-nobody" not in f"{found}"


def test_behind_the_stand_in_no_key_is_needed(tmp_path: Path) -> None:
    (found,) = configured.upstreams(settings(tmp_path), "http://127.0.0.1:8795/v1")
    assert found.state == "ok"


def test_a_state_dir_below_a_file_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = configured.state_dir(settings(tmp_path, state_dir=str(tmp_path / "file" / "state")))
    assert found.state == "wrong"
    assert str(tmp_path / "file") in found.found


def test_models_at_the_default_price_are_named(tmp_path: Path) -> None:
    assert configured.prices(settings(tmp_path), NOW_MS).state == "ok"
    line = {"input": "10", "cached": "5", "output": "40"}
    version = {"id": "v", "from": "2026-11-01T00:00:00Z", "per_million": {"*": line}}
    prices = {"currency": "USD", "gbp_per_unit": "0.79", "versions": [version]}
    found = configured.prices(settings(tmp_path, prices=prices), NOW_MS)
    assert (found.state, "gpt-4o-mini" in found.found) == ("warning", True)
    early = configured.prices(settings(tmp_path), 0)
    assert (early.state, "has not begun" in early.found) == ("warning", True)


def test_packs_that_nobody_can_buy_are_a_warning(tmp_path: Path) -> None:
    assert configured.payments(settings(tmp_path)).state == "warning"
    sold = settings(tmp_path, refusal={"topup_url": "https://app.example.org/packs"})
    assert configured.payments(sold).state == "ok"


def test_hooks_that_are_overheard_are_a_warning_and_never_shown(tmp_path: Path) -> None:
    def found(url: str) -> Finding:
        operators = [{"webhook": url}]
        return configured.webhooks(settings(tmp_path, notify={"operators": operators}))

    assert found("https://hooks.example.org/T0/secret").state == "ok"
    overheard = found("http://hooks.example.org/T0/secret")
    assert overheard.state == "warning"
    assert "secret" not in f"{overheard}"


def test_who_is_not_ready_is_named_with_the_reason() -> None:
    def found(checks: Mapping[str, str] | None) -> Finding:
        return around.processes(around.Readiness("http://127.0.0.1:8791", checks, {}))

    assert found({"proxy-1": "ok", "jobs": "ok"}).state == "ok"
    late = found({"proxy-1": "the event loop was late", "jobs": "ok"})
    assert (late.state, late.found) == ("wrong", "proxy-1: the event loop was late")
    assert found(None).state == "warning"


def test_links_are_for_others_and_encrypted(tmp_path: Path) -> None:
    def state(url: str) -> str:
        return asyncio.run(around.public_url(settings(tmp_path, public_url=url), False)).state

    assert state("https://quota.example.org") == "ok"
    assert state("http://quota.example.org") == state("http://127.0.0.1:8790") == "warning"


def test_the_worst_line_counts() -> None:
    ok, warning = Finding("c", "ok", "f"), Finding("c", "warning", "f")
    assert worst([ok]) == "ok"
    assert worst([ok, warning]) == "warning"
    assert worst([ok, Finding("c", "wrong", "f"), warning]) == "wrong"
