"""Several processes' metrics become one page that says the same as they do."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gateway.adapters.canary_metrics import CanaryMetrics
from gateway.adapters.metrics_merge import MergedMetrics


class Process:
    """One process's registry, with one metric of each kind."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.calls = Counter("calls", "Calls", ["tier", "reason"], registry=self.registry)
        self.plain = Counter("plain", "Without labels", registry=self.registry)
        self.open = Gauge("holds_open", "Open", registry=self.registry)
        self.loop_lag = Gauge("loop_lag_seconds", "Late", registry=self.registry)
        self.age = Gauge("outbox_age_seconds", "Age", ["shard"], registry=self.registry)
        self.took = Histogram(
            "took_seconds", "Time", ["phase"], buckets=(0.1, 1, 10), registry=self.registry
        )

    def text(self, life: str = "1") -> str:
        return f"# life {life}\n{generate_latest(self.registry).decode()}"


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def merge_metrics(texts: Iterable[str]) -> str:
    return MergedMetrics().of({f"process-{number}": text for number, text in enumerate(texts)})


def merged(*processes: Process) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return samples(merge_metrics(process.text() for process in processes))


def labels(**given: str) -> frozenset[tuple[str, str]]:
    return frozenset(given.items())


def test_counters_of_the_same_labels_add_up_and_others_stay_apart() -> None:
    first, second = Process(), Process()
    first.calls.labels("free", "ok").inc(3)
    second.calls.labels("free", "ok").inc(4)
    second.calls.labels("lite", "ok").inc(5)
    first.plain.inc()
    second.plain.inc(2)
    found = merged(first, second)
    assert found["calls_total", labels(tier="free", reason="ok")] == 7
    assert found["calls_total", labels(tier="lite", reason="ok")] == 5
    assert found["plain_total", labels()] == 3


def test_gauges_add_up() -> None:
    first, second = Process(), Process()
    first.open.set(3)
    second.open.set(4)
    assert merged(first, second)["holds_open", labels()] == 7


def test_of_lateness_and_age_the_worst_process_counts() -> None:
    first, second = Process(), Process()
    first.loop_lag.set(0.25)
    second.loop_lag.set(0.125)
    first.age.labels("3").set(2)
    second.age.labels("3").set(9)
    found = merged(first, second)
    assert found["loop_lag_seconds", labels()] == 0.25
    assert found["outbox_age_seconds", labels(shard="3")] == 9


def test_one_process_alone_is_shown_as_it_is() -> None:
    process = Process()
    process.calls.labels("free", "ok").inc()
    process.took.labels("before").observe(0.5)
    assert merged(process) == samples(process.text())


def test_buckets_add_up_keep_their_order_and_their_borders() -> None:
    first, second = Process(), Process()
    for seconds in (0.05, 0.5, 50):
        first.took.labels("before").observe(seconds)
    second.took.labels("before").observe(5)
    second.took.labels("after").observe(0.05)
    text = merge_metrics([first.text(), second.text()])
    lines = [line for line in text.splitlines() if line.startswith("took_seconds")]
    assert lines == [
        'took_seconds_bucket{le="0.1",phase="before"} 1.0',
        'took_seconds_bucket{le="1.0",phase="before"} 2.0',
        'took_seconds_bucket{le="10.0",phase="before"} 3.0',
        'took_seconds_bucket{le="+Inf",phase="before"} 4.0',
        'took_seconds_count{phase="before"} 4.0',
        'took_seconds_sum{phase="before"} 55.55',
        'took_seconds_bucket{le="0.1",phase="after"} 1.0',
        'took_seconds_bucket{le="1.0",phase="after"} 1.0',
        'took_seconds_bucket{le="10.0",phase="after"} 1.0',
        'took_seconds_bucket{le="+Inf",phase="after"} 1.0',
        'took_seconds_count{phase="after"} 1.0',
        'took_seconds_sum{phase="after"} 0.05',
    ]


def test_labels_of_any_text_come_through_unchanged() -> None:
    odd = 'quote " slash \\ line\nend, brace } and \\n'
    first, second = Process(), Process()
    first.calls.labels(odd, "ok").inc()
    second.calls.labels(odd, "ok").inc()
    again = merge_metrics([merge_metrics([first.text(), second.text()])])
    assert samples(again)["calls_total", labels(tier=odd, reason="ok")] == 2


def test_help_and_type_stand_once_before_their_samples() -> None:
    first, second = Process(), Process()
    for process in (first, second):
        process.calls.labels("free", "ok").inc()
    lines = merge_metrics([first.text(), second.text()]).splitlines()
    place = lines.index("# HELP calls_total Calls")
    assert lines[place + 1] == "# TYPE calls_total counter"
    assert lines[place + 2].startswith("calls_total{")
    assert sum(line.startswith("# TYPE") for line in lines) == 6


def test_when_a_series_began_is_not_shown() -> None:
    process = Process()
    process.calls.labels("free", "ok").inc()
    assert "_created" in process.text()
    assert "_created" not in merge_metrics([process.text()])


def test_a_metric_that_only_one_process_has_is_shown() -> None:
    other = CollectorRegistry()
    Gauge("epoch", "Epoch", ["shard"], registry=other).labels("1").set(4)
    text = merge_metrics([Process().text(), generate_latest(other).decode()])
    assert samples(text)["epoch", labels(shard="1")] == 4


def test_of_no_process_there_is_nothing_to_show() -> None:
    assert merge_metrics([]) == ""
    assert merge_metrics(["", "\n"]) == ""


def test_what_a_process_had_counted_stays_when_it_dies_and_when_it_is_started_again() -> None:
    page, first, second = MergedMetrics(), Process(), Process()
    first.plain.inc(3)
    first.took.labels("before").observe(0.5)
    first.open.set(5)
    second.plain.inc(2)
    second.open.set(1)

    def shown(one: str | None) -> tuple[float, float, float]:
        found = samples(page.of({"one": one, "two": second.text()}))
        buckets = found["took_seconds_bucket", labels(phase="before", le="1.0")]
        return found["plain_total", labels()], buckets, found["holds_open", labels()]

    assert shown(first.text("a")) == (5, 1, 6)
    assert shown(None) == (5, 1, 1)
    for life in ("b", "c"):
        again = Process()
        before = shown(None)[0]
        assert shown(again.text(life))[0] == before
        again.plain.inc(10)
        again.open.set(2)
        assert shown(again.text(life)) == (before + 10, 1, 3)
    assert shown(None) == (25, 1, 1)


def test_a_process_that_was_never_heard_counts_nothing() -> None:
    assert MergedMetrics().of({"one": None}) == ""


def test_of_what_is_proven_the_worst_counts_and_who_says_nothing_does_not() -> None:
    well, ill, silent = (Process() for _ in range(3))
    CanaryMetrics(well.registry).found("proven")
    CanaryMetrics(ill.registry).found("unproven")
    assert merged(well, silent)["quota_gateway_canary_ok", labels()] == 1
    assert merged(well, ill)["quota_gateway_canary_ok", labels()] == 0
    assert merged(silent).keys().isdisjoint({("quota_gateway_canary_ok", labels())})
