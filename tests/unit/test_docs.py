"""The documents say what the code does: every metric with its labels, every command by name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.adapters.canary_metrics import CanaryMetrics
from gateway.adapters.prometheus_jobs_metrics import JobsMetrics
from gateway.adapters.prometheus_metrics import ProxyMetrics
from gateway.adapters.redis_store.scripts import NAMES
from gateway.app.arrangement import Arrangement
from gateway.app.reloading import Reloading
from gateway.cli import main
from gateway.config import load
from gateway.core.event import Quality, UsageEvent, encode_event, ledger_row
from gateway.core.refusal import Case
from gateway.ports.deliveries import Ending, WayName
from gateway.ports.metrics import SpillTrouble, Waited

ROOT = Path(__file__).resolve().parents[2]
METRICS = (ROOT / "docs" / "metrics.md").read_text()
_ROW = re.compile(r"^\| `(quota_gateway_\w+)` \| (\w+) \|([^|]*)\|", re.MULTILINE)

EVENT = UsageEvent(
    *("017f22e2-79b0-7cc3-98c4-dc0c0c07398f", "ada", "ada", "free", "chat", "m", "p"),
    *(9, 9, "measured", "done"),
)


# Said to a connection where there is no call, and nothing is decided.
NO_CALLS = (Case.INVALID_HTTP, Case.TOO_MANY_CONNECTIONS)
REASONS = {
    case.value.code for case in Case if case.value.source == "gateway" and case not in NO_CALLS
}


def documented() -> dict[str, tuple[str, set[str]]]:
    """Name -> kind and labels, by docs/metrics.md."""
    return {
        name: (kind, set(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels in _ROW.findall(METRICS)
    }


async def refuse(text: str) -> None:
    """Of the reloads nothing has to happen."""


def exposed() -> dict[str, tuple[str, set[str]]]:
    """The same by what all processes show once everything has happened once."""
    proxy, jobs = ProxyMetrics(["m"]), JobsMetrics()
    CanaryMetrics(proxy.registry).found("proven")
    proxy.decided("free", "chat", "admitted", "ok")
    proxy.charged(EVENT, 9)
    proxy.prompt_measured("m", 9, 9)
    proxy.hold_ended("settled")
    proxy.added_seconds("before", 0.1)
    proxy.first_byte_seconds("m", 0.1)
    proxy.store_call("reserve", 0.1)
    proxy.breaker_open(True)
    proxy.spilled(1)
    proxy.spill_failed("disk")
    proxy.hydrated("finished")
    proxy.unpriced("m")
    jobs.booked([ledger_row(0, "1-0", encode_event(EVENT), b"1 1 1 9 9 0 0 0 0 0")])
    jobs.dead(1)
    jobs.lag_seconds(0.1)
    jobs.outbox(0, 1, 0.1)
    jobs.holds_open(1)
    jobs.expired()
    jobs.tier_used("free", 1)
    jobs.tier_cap("free", 1)
    jobs.epoch(0, 1)
    jobs.drift(1)
    jobs.notified("crossing", "sent")
    jobs.way_away("mail", "", True)
    found = {}
    own = Reloading(Arrangement(load(ROOT / "config.yaml", {}), (), {}), refuse).render()
    for text in (proxy.render().decode(), jobs.render().decode(), own):
        for family in text_string_to_metric_families(text):
            if family.name.endswith("_created"):
                continue
            assert family.samples, f"{family.name} was not made to show itself"
            name = f"{family.name}_total" if family.type == "counter" else family.name
            found[name] = (family.type, set(family.samples[0].labels) - {"le"})
    return found


def test_every_metric_is_documented_with_its_kind_and_labels_and_no_other_is() -> None:
    assert documented() == exposed()


def test_every_label_has_its_values_documented() -> None:
    labels = set().union(*(labels for _, labels in exposed().values()))
    described = set(re.findall(r"^\| `(\w+)`(?: of [\w ]+)? \|", METRICS, re.MULTILINE))
    assert labels <= described


@pytest.mark.parametrize(
    ("label", "values"),
    [
        ("reason", REASONS),
        ("script", set(NAMES)),
        ("quality", set(get_args(Quality))),
        ("why", set(get_args(SpillTrouble))),
        ("state", set(get_args(Ending))),
        ("store", set(get_args(Waited))),
        ("way", set(get_args(WayName))),
    ],
)
def test_the_values_of_a_closed_list_are_documented_to_the_last(
    label: str, values: set[str]
) -> None:
    found = re.search(rf"^\| `{label}` \|(.*)$", METRICS, re.MULTILINE)
    assert found is not None
    admitted = {"ok", "free", "replayed", "forced"}
    assert set(re.findall(r"`(\w+)`", found.group(1))) - admitted == values


def test_every_expression_to_watch_asks_for_a_metric_that_there_is() -> None:
    asked = set(re.findall(r"(quota_gateway_\w+?)(?:_bucket)?(?=[\[{)])", METRICS))
    assert asked
    assert asked <= set(exposed())


def commands(capsys: pytest.CaptureFixture[str], *words: str) -> list[tuple[str, ...]]:
    """Every command there is, by its own help."""
    with pytest.raises(SystemExit):
        main([*words, "--help"])
    listed = re.findall(r"^    ([a-z][a-z-]*)(?:  |$)", capsys.readouterr().out, re.MULTILINE)
    if not listed:
        return [words]
    return [found for name in listed for found in commands(capsys, *words, name)]


def test_every_command_is_mentioned_in_the_documents(capsys: pytest.CaptureFixture[str]) -> None:
    written = "".join(
        path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    )
    names = [" ".join(words) for words in commands(capsys)]
    assert {"serve", "user create", "ledger verify"} <= set(names)
    missing = [name for name in names if not re.search(rf"\b{name}\b", written)]
    assert not missing, f"no document mentions: {', '.join(missing)}"
