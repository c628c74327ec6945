"""The ledger against OpenAI's counts: a real ledger, and a server with recorded pages."""

from __future__ import annotations

import asyncio
import csv
import json
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec.structs import replace
from openai.types.admin.organization.usage_completions_response import UsageCompletionsResponse
from openai.types.admin.organization.usage_costs_response import UsageCostsResponse
from openai.types.admin.organization.usage_embeddings_response import UsageEmbeddingsResponse

from gateway.adapters.postgres.connection import open_pool
from gateway.adapters.postgres.ledger import PostgresLedger
from gateway.cli import main
from gateway.core.event import LedgerRow
from gateway.core.rid import derived_rid, make_rid
from tests.contract.ledger_samples import no_doubles, sample_row
from tests.contract.organisation_api import ADMIN_KEY, PAGES, OrganisationApi

ROOT = Path(__file__).resolve().parents[2]
THIRD_MS = int(datetime(2026, 11, 3, tzinfo=UTC).timestamp() * 1000)
FOURTH_MS = THIRD_MS + 86_400_000
POUND = 10**9
RANGE = ("--from", "2026-11-03", "--to", "2026-11-04")


@pytest.fixture(scope="module")
def api() -> Iterator[OrganisationApi]:
    served = OrganisationApi()
    yield served
    served.stop()


@pytest.fixture(autouse=True)
def as_it_was(api: OrganisationApi, monkeypatch: pytest.MonkeyPatch) -> None:
    api.status, api.raw = 200, b""
    api.asked.clear()
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("OPENAI_ADMIN_KEY", ADMIN_KEY)


@pytest.fixture
def config(ledger_url: str, tmp_path: Path) -> Path:
    """The configuration that ships, on that ledger, with a model of another upstream."""
    shipped = yaml.safe_load((ROOT / "config.yaml").read_text())
    shipped["ledger"]["url"] = ledger_url
    shipped["redis"]["url"] = "redis://127.0.0.1:9"  # nobody asks it
    shipped["identity"]["keys"]["pepper"] = "p" * 40
    shipped["prices"]["gbp_per_unit"] = "0.8"
    shipped["upstreams"]["own"] = {"base_url": "http://127.0.0.1:9/v1"}
    shipped["models"]["llama"] = {**shipped["models"]["gpt-4o-mini"], "upstream": "own"}
    del shipped["models"]["llama"]["until"]
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(shipped))
    return path


def call(at_ms: int, prompt: int, output: int, gbp: float, **changes: Any) -> LedgerRow:
    """One row of a call that began a second before it ended."""
    rid = changes.pop("event_id", make_rid(at_ms - 1000, b"0123456789"))
    return sample_row(
        f"{at_ms}-0", event_id=rid, prompt_tokens=prompt, output_tokens=output,
        cost_nano_gbp=round(gbp * POUND), **changes,
    )  # fmt: skip


def rows() -> list[LedgerRow]:
    """Two days on which all that is known to differ does."""
    noon, rid = THIRD_MS + 43_200_000, make_rid(THIRD_MS + 1, b"corrected!")
    lapsed = call(noon + 3, 900, 700, 0.9, event_id=rid, quality="estimated", outcome="expired")
    mended = replace(
        call(FOURTH_MS + 9, 1000, 500, -0.1, event_id=rid), kind="correction", corrects=rid,
        event_id=derived_rid(rid, "late"),
    )  # fmt: skip
    return [
        call(noon, 2000, 1000, 0.4, cached_tokens=600),
        call(noon + 1, 800, 100, 0.1, quality="partial", outcome="client_gone"),
        call(noon + 2, 0, 0, 0, quality="estimated", outcome="unknown_upstream", status=502),
        lapsed,
        mended,
        call(noon + 4, 5000, 0, 1.0, outcome="recorded"),
        call(noon + 5, 900, 0, 0.08, model="text-embedding-3-small", route="embeddings"),
        call(noon + 6, 7000, 7000, 3.0, model="llama"),
        call(FOURTH_MS + 100, 1000, 500, 0.4),
        call(FOURTH_MS + 7_200_000, 1000, 500, 0.4),
        call(FOURTH_MS + 86_400_000, 9, 9, 9.0),
        call(THIRD_MS - 1, 9, 9, 9.0),
    ]


def book(ledger_url: str, booked: Sequence[LedgerRow]) -> None:
    async def run() -> None:
        pool = await open_pool(ledger_url)
        ledger = PostgresLedger(pool, ledger_url)
        await ledger.book(booked, [], no_doubles)
        await pool.close()

    asyncio.run(run())


def reconcile(api: OrganisationApi, config: Path, *words: str) -> int:
    base = ("--config", str(config), "--api-base", api.url)
    return main(["ledger", "reconcile", *RANGE, *base, *words])


def test_the_recorded_pages_have_openai_s_shape() -> None:
    kinds: dict[str, Any] = {
        "usage_completions": UsageCompletionsResponse,
        "usage_embeddings": UsageEmbeddingsResponse,
        "costs": UsageCostsResponse,
    }
    for path in PAGES.glob("*.json"):
        kind = kinds[path.stem.removesuffix("_2")]
        read = kind.model_validate_json(path.read_bytes())
        assert not read.model_extra, path
        for result in [each for bucket in read.data for each in bucket.results]:
            assert set(result.model_extra or {}) <= {"organization_id"}, path


def test_each_day_and_model_is_compared_and_each_difference_has_its_causes(
    api: OrganisationApi, config: Path, ledger_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    book(ledger_url, rows())
    table = config.with_name("out.csv")
    assert reconcile(api, config, "--json", "--csv", str(table)) == 1
    told = json.loads(capsys.readouterr().out)
    lines = {(line["day"], line["model"]): line for line in told["lines"]}
    assert list(lines) == [
        ("2026-11-03", "gpt-4o-mini"),
        ("2026-11-03", "text-embedding-3-small"),
        ("2026-11-04", "gpt-4.5-preview-2025-02-27"),
        ("2026-11-04", "gpt-4o-mini"),
        ("2026-11-04", "web search tool calls"),
    ]
    first = lines["2026-11-03", "gpt-4o-mini"]
    ledger = {name: first[f"ledger_{name}"] for name in ("calls", "input_tokens", "output_tokens")}
    assert ledger == {"calls": 4, "input_tokens": 3800, "output_tokens": 1600}
    assert (first["ledger_gbp"], first["ledger_usd"]) == ("1.300000000", "1.625000000")
    assert (first["openai_gbp"], first["openai_usd"]) == ("1.600000000", "2.000000000")
    assert (first["tokens_off"], first["gbp_off"]) == (5100 + 2100 - 5400, "0.300000000")
    assert first["explained_tokens"] == 900
    causes = dict(cause.split(": ", 1) for cause in first["causes"].split("; "))
    assert causes == {
        "beside": "1 request",
        "client_gone": "1 call, 900 tokens",
        "upstream_failed": "1 call, 0 tokens",
        "recorded": "1 call, 5,000 tokens",
        "snapshots": "gpt-4o-mini-2024-07-18",
    }
    assert lines["2026-11-03", "text-embedding-3-small"]["causes"] == ""
    second = lines["2026-11-04", "gpt-4o-mini"]
    assert (second["tokens_off"], second["ledger_gbp"]) == (0, "0.800000000")
    assert "unknown_model" in lines["2026-11-04", "web search tool calls"]["causes"]
    with table.open() as file:
        written = list(csv.DictReader(file))
    assert written == [{name: str(value) for name, value in line.items()} for line in told["lines"]]
    asked = [(name, query.get("page")) for name, query in api.asked]
    names = ("usage_completions", "usage_embeddings", "costs")
    assert [name for name, page in asked] == [name for name in names for _ in range(2)]
    assert [page is None for _, page in asked] == [True, False] * 3
    query = api.asked[0][1]
    assert (query["start_time"], query["end_time"]) == ([str(THIRD_MS // 1000)], ["1793836800"])
    assert (query["bucket_width"], query["group_by"]) == (["1d"], ["model"])
    assert api.asked[4][1]["group_by"] == ["line_item"]


def test_a_person_reads_a_table_and_what_each_cause_means(
    api: OrganisationApi, config: Path, ledger_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    book(ledger_url, rows())
    assert reconcile(api, config, "--tolerance-percent", "60", "--project", "proj_a") == 0
    told = capsys.readouterr()
    assert re.search(r"2026-11-03 +gpt-4o-mini +5,400 +7,200 +\+1,800 +1\.62 +2\.00", told.out)
    assert "client_gone: the client left" in told.out
    assert "  2026-11-03 gpt-4o-mini: 1 call, 900 tokens" in told.out
    assert told.out.splitlines()[-1] == "within the tolerance of 60 %"
    assert ADMIN_KEY not in told.out + told.err
    assert {tuple(query["project_ids"]) for _, query in api.asked} == {("proj_a",)}


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "OpenAI answered 401: it is no valid admin key. Make one at"),
        (403, "OpenAI answered 403: the key may not read usage."),
        (404, "is --api-base right?"),
        (429, "OpenAI answered 429: too many requests. Wait a minute"),
        (503, "OpenAI has trouble of its own (503). Try again later"),
        (400, "refused the question (400): You have insufficient permissions: Bearer *** at"),
        (302, "refused the question (302)"),
    ],
)
def test_a_refusal_says_what_to_do_and_never_the_key(
    api: OrganisationApi, config: Path, capsys: pytest.CaptureFixture[str], status: int, words: str
) -> None:
    api.status = status
    assert reconcile(api, config) == 1
    told = capsys.readouterr()
    assert told.err.startswith("quota-gateway: OpenAI ")
    assert words in told.err
    assert ADMIN_KEY not in told.out + told.err
    assert len(told.err.splitlines()) == 1


def test_what_is_not_openai_is_told_so(
    api: OrganisationApi, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for raw in (b"<html>", b'{"data": 3, "has_more": false}', b"\xff"):
        api.raw = raw
        assert reconcile(api, config) == 1
        assert "is no page of usage or costs" in capsys.readouterr().err
    api.raw = (PAGES / "costs.json").read_bytes().replace(b'"usd"', b'"eur"')
    api.raw = api.raw.replace(b'"object"', b'"input_tokens": 0, "num_model_requests": 0, "object"')
    api.raw = re.sub(rb'"has_more": true', b'"has_more": false', api.raw)
    assert reconcile(api, config) == 1
    assert "charges in 'eur'" in capsys.readouterr().err
    gone = ("--api-base", "http://127.0.0.1:9/v1")
    assert reconcile(api, config, *gone) == 1
    assert "OpenAI cannot be reached (ClientConnectorError)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--to", "2026-11-02"), "--to 2026-11-02 is before --from 2026-11-03"),
        (("--admin-key-env", "NO_SUCH"), "the environment variable NO_SUCH is not set"),
        (("--upstream", "azure"), "the file has openai, own"),
        (("--api-base", "http://example.test/v1"), "an admin key is sent by https only"),
    ],
)
def test_what_cannot_be_asked_is_told_before_anybody_is_asked(
    api: OrganisationApi,
    config: Path,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, str],
    told: str,
) -> None:
    assert reconcile(api, config, *words) == 2
    assert told in capsys.readouterr().err
    assert api.asked == []
