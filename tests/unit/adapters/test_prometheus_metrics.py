"""Each metric counts what its name says, and no text of a request becomes a label."""

from __future__ import annotations

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.adapters.prometheus_jobs_metrics import JobsMetrics
from gateway.adapters.prometheus_metrics import ProxyMetrics
from gateway.core.event import UsageEvent, encode_event, ledger_row

EVENT = UsageEvent(
    event_id="017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
    payer="ada",
    user_id="ada",
    tier="free",
    route="chat",
    model="gpt-4o-mini",
    price_id="2026",
    charged_tokens=120,
    cost_nano_gbp=2_500_000_000,
    quality="measured",
    outcome="done",
    prompt_tokens=100,
    cached_tokens=40,
    output_tokens=30,
    reasoning_tokens=10,
)
ROW = ledger_row(0, "1-0", encode_event(EVENT), b"1 1 1 200 120 0 0 0 0 0")


def shown(metrics: ProxyMetrics | JobsMetrics) -> dict[tuple[str, ...], float]:
    """(name less the prefix, values of the labels …) -> value."""
    families = text_string_to_metric_families(metrics.render().decode())
    return {
        (sample.name.removeprefix("quota_gateway_"), *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


@pytest.fixture
def proxy() -> ProxyMetrics:
    return ProxyMetrics(["gpt-4o-mini"])


def test_a_settlement_is_counted_in_tokens_of_each_kind_and_in_pounds(proxy: ProxyMetrics) -> None:
    for _ in range(2):
        proxy.charged(EVENT, hold_tokens=200)
    found = shown(proxy)
    tokens = {key[1:]: value for key, value in found.items() if key[0] == "tokens_total"}
    of = ("gpt-4o-mini",)
    assert {(kind, *model): value for (*model, kind, _), value in _by_kind(tokens).items()} == {
        ("prompt", *of): 200,
        ("cached", *of): 80,
        ("output", *of): 60,
        ("reasoning", *of): 20,
        ("charged", *of): 240,
        ("held", *of): 400,
        ("overdraft", *of): 0,
    }
    assert found["cost_gbp_total", "gpt-4o-mini", "free"] == pytest.approx(5.0)


def _by_kind(tokens: dict[tuple[str, ...], float]) -> dict[tuple[str, ...], float]:
    return {(model, kind, tier): value for (kind, model, tier), value in tokens.items()}


def test_what_is_charged_beyond_the_hold_is_overdraft(proxy: ProxyMetrics) -> None:
    proxy.charged(EVENT, hold_tokens=100)
    assert shown(proxy)["tokens_total", "overdraft", "gpt-4o-mini", "free"] == 20


@pytest.mark.parametrize("model", ["gpt-9", "", "x" * 5000, 'a"} 1\nforged_total 9'])
def test_a_model_that_is_not_configured_is_other(proxy: ProxyMetrics, model: str) -> None:
    proxy.charged(msgspec.structs.replace(EVENT, model=model), 200)
    proxy.first_byte_seconds(model, 0.3)
    proxy.prompt_measured(model, 9, 9)
    proxy.unpriced(model)
    labels = {label for key in shown(proxy) for label in key[1:]}
    assert "other" in labels
    assert model not in labels - {""}
    assert ("forged_total",) not in shown(proxy)


def test_users_keys_and_ids_appear_nowhere(proxy: ProxyMetrics) -> None:
    jobs = JobsMetrics()
    event = msgspec.structs.replace(
        EVENT, user_id="secret-user", payer="secret-payer", tag="secret-tag", client_id="secret-id"
    )
    proxy.charged(event, 200)
    jobs.booked([ledger_row(0, "1-0", encode_event(event), b"1 1 1 200 120 0 0 0 0 0")])
    assert b"secret" not in proxy.render() + jobs.render()


def test_decisions_endings_and_hydrations_are_counted_by_their_labels(proxy: ProxyMetrics) -> None:
    proxy.decided("free", "chat", "refused", "insufficient_quota")
    proxy.decided("free", "chat", "refused", "insufficient_quota")
    proxy.hold_ended("settled")
    proxy.hydrated("joined")
    found = shown(proxy)
    assert found["decisions_total", "refused", "insufficient_quota", "chat", "free"] == 2
    assert found["hold_endings_total", "settled"] == 1
    assert found["hydrations_total", "joined"] == 1


def test_an_outage_is_seen_growing_and_counted_once() -> None:
    at_s = [0.0]
    proxy = ProxyMetrics([], "bounded", lambda: at_s[0])
    assert shown(proxy)["outage_seconds_total", "bounded"] == 0
    for is_open, for_s, counted in ((True, 2, 2), (True, 3, 5), (False, 4, 5), (True, 1, 6)):
        proxy.breaker_open(is_open)
        at_s[0] += for_s
        assert shown(proxy)["outage_seconds_total", "bounded"] == counted
    at_s[0] += 7
    proxy.breaker_open(False)
    assert shown(proxy)["outage_seconds_total", "bounded"] == 13


def test_the_estimate_is_shown_as_measured_by_counted(proxy: ProxyMetrics) -> None:
    for measured in (98, 100, 100, 103):
        proxy.prompt_measured("gpt-4o-mini", 100, measured)
    found = shown(proxy)
    of = ("gpt-4o-mini",)
    assert found["estimate_ratio_count", *of] == 4
    assert found["estimate_ratio_sum", *of] == pytest.approx(4.01)
    below = {k[1]: value for k, value in found.items() if k[0] == "estimate_ratio_bucket"}
    assert (below["0.98"], below["0.999"], below["1.001"], below["1.05"]) == (1, 1, 3, 4)


def test_a_settlement_alone_says_nothing_of_the_estimate(proxy: ProxyMetrics) -> None:
    proxy.charged(EVENT, 200)
    assert ("estimate_ratio_count", "gpt-4o-mini") not in shown(proxy)


def test_the_jobs_show_rows_backlogs_holds_and_epochs() -> None:
    jobs = JobsMetrics()
    jobs.booked([ROW])
    jobs.dead(3)
    jobs.lag_seconds(0.5)
    jobs.outbox(2, 7, 1.5)
    jobs.holds_open(4)
    jobs.expired()
    jobs.tier_used("free", 99)
    jobs.tier_cap("free", 100)
    jobs.waits("drain", "ledger")
    jobs.waits("sweep", "redis")
    jobs.waits("sweep", None)
    jobs.epoch(2, 5)
    jobs.drift(6)
    told = ("notifications_total", "way_away")  # below
    assert {key: value for key, value in shown(jobs).items() if key[0] not in told} == {
        ("ledger_rows_total", "usage", "measured"): 1,
        ("ledger_dead_total",): 3,
        ("ledger_lag_seconds",): 0.5,
        ("outbox_events", "2"): 7,
        ("outbox_age_seconds", "2"): 1.5,
        ("holds_open",): 4,
        ("hold_endings_total", "expired"): 1,
        ("tier_used_tokens", "free"): 99,
        ("tier_cap_tokens", "free"): 100,
        ("jobs_waiting", "redis"): 0,
        ("jobs_waiting", "ledger"): 1,
        ("epoch", "2"): 5,
        ("drift_tokens",): 6,
    }


def test_of_every_kind_of_news_and_every_way_a_zero_is_shown() -> None:
    found = shown(JobsMetrics())
    assert [found["way_away", way] for way in ("mail", "webhook", "operators")] == [0, 0, 0]
    zeros = {key[1:] for key, value in found.items() if key[0] == "notifications_total"}
    assert ("crossing", "sent") in zeros
    assert ("canary_failed", "dead") in zeros
    assert len(zeros) == 9 * 3


def test_of_two_webhooks_each_is_counted_away_on_its_own() -> None:
    jobs = JobsMetrics()
    for address in ("a", "b", "b"):
        jobs.way_away("webhook", address, True)
    assert shown(jobs)["way_away", "webhook"] == 2
    jobs.way_away("webhook", "a", False)
    assert shown(jobs)["way_away", "webhook"] == 1
    jobs.take(())  # a reload, in which the other one may have gone
    assert shown(jobs)["way_away", "webhook"] == 0


def test_two_processes_count_apart() -> None:
    first, second = ProxyMetrics(["m"]), ProxyMetrics(["m"])
    first.hold_ended("settled")
    assert ("hold_endings_total", "settled") not in shown(second)
