"""Good files: what they become, what the environment adds, what is listed.

The shipped `config.yaml` is the main specimen, so that it cannot rot.
"""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from functools import partial
from pathlib import Path

import pytest
from msgspec import structs

from gateway.app.proxy_terms import terms_of
from gateway.config import ConfigError, Settings, effective, load, schema
from gateway.config.values import Address
from gateway.core.models import Weights
from gateway.core.plan import PackOffer
from gateway.core.pricing import cost_nano_gbp, held_nano_gbp, line_of_call
from gateway.core.usage import Usage
from gateway.flow.terms import OutageTerms

ROOT = Path(__file__).parents[3]
SHIPPED = ROOT / "config.yaml"
NOVEMBER_2026_MS = 1_795_000_000_000
MINIMAL = """\
version: 1
upstreams:
  openai: {base_url: "https://api.openai.com/v1"}
models:
  mini: {upstream: openai, tokenizer: o200k_base, context_tokens: 1000,
         output_tokens_max: 100, output_tokens_default: 50}
prices:
  currency: USD
  gbp_per_unit: "0.79"
  versions:
    - id: v1
      from: "2026-11-01T00:00:00Z"
      per_million: {"*": {input: "10", cached: "5", output: "40"}}
plan:
  default_tier: free
  tiers:
    free: {tokens: 1000}
"""


def load_text(folder: Path, text: str, **environ: str) -> Settings:
    file = folder / "config.yaml"
    file.write_text(text, encoding="utf-8")
    return load(file, environ)


def test_the_shipped_file_needs_nothing_from_the_environment() -> None:
    settings = load(SHIPPED, {})
    assert settings.redis.url.is_embedded
    assert settings.ledger.url.is_embedded
    assert settings.listen.proxy == Address("127.0.0.1", 8790)
    assert settings.listen.body_bytes_max == 16 * 1024 * 1024


def test_what_a_gateway_may_spend_in_an_outage_is_shared_out_among_its_workers() -> None:
    assert terms_of(load(SHIPPED, {})).outage == OutageTerms("bounded", 2000)
    assert terms_of(load(SHIPPED, {"QUOTA_WORKERS": "3"})).outage.tokens == 666


def test_the_shipped_plan_is_the_price_list() -> None:
    plan = load(SHIPPED, {}).plan
    tiers = plan.tiers.values()
    assert [(tier.name, tier.tokens, tier.upgrade) for tier in tiers] == [
        ("free", 100_000, "lite"),
        ("lite", 1_000_000, "full"),
        ("full", 1_602_000, None),
    ]
    assert plan.tiers["full"].packs == PackOffer(320_000, Decimal("2.00"), 365)
    assert plan.tiers["free"].packs is plan.tiers["lite"].packs is None
    assert plan.default_tier == "free"
    assert plan.thresholds_percent == (80, 95, 100)


def test_limits_come_in_the_words_of_core_and_money_in_nano_gbp(tmp_path: Path) -> None:
    limits = 'rpm: 60, tpm: 9000, concurrent: 5, gbp: "2.50", tier_tokens: 70000'
    text = MINIMAL.replace(
        "{tokens: 1000}", f"{{tokens: 1000, shadow: true, limits: {{{limits}}}}}"
    )
    tier = load_text(tmp_path, text).plan.tiers["free"]
    assert (tier.requests_a_minute, tier.tokens_a_minute, tier.concurrent) == (60, 9_000, 5)
    assert (tier.nano_gbp, tier.tier_tokens, tier.shadow) == (2_500_000_000, 70_000, True)


def test_every_shipped_model_has_its_own_price() -> None:
    settings = load(SHIPPED, {})
    for name in settings.models:
        assert not settings.prices.price_for(name, NOVEMBER_2026_MS).is_default, name
    assert settings.prices.price_for("unheard-of", NOVEMBER_2026_MS).is_default


def test_the_first_shipped_model_is_a_name_that_nobody_ends() -> None:
    settings = load(SHIPPED, {})
    first = next(iter(settings.file.models))
    assert first == "gpt-6-luna"
    assert settings.file.models[first].until is None
    assert settings.file.models["gpt-4o-mini"].until == date(2027, 1, 14)


def test_what_is_not_priced_is_dearer_than_all_that_is() -> None:
    prices = load(SHIPPED, {}).prices
    for version in prices.versions:
        dearest = held_nano_gbp(version.lines["*"], 10**6)
        for name, line in version.lines.items():
            prompt, output = held_nano_gbp(line, 10**6)
            assert (prompt <= dearest[0], output <= dearest[1]) == (True, True), name


@pytest.mark.parametrize("rate", ["0.78919", "1.00001", "123456.98765"])
def test_the_shipped_prices_are_exact_at_every_rate(tmp_path: Path, rate: str) -> None:
    shipped = SHIPPED.read_text(encoding="utf-8")
    file = tmp_path / "config.yaml"
    file.write_text(shipped.replace('gbp_per_unit: "0.79"', f'gbp_per_unit: "{rate}"'))
    assert load(file, {}).file.prices.gbp_per_unit == rate


def test_a_million_tokens_of_gpt_4o_mini_cost_what_openai_asks_in_pounds() -> None:
    price = load(SHIPPED, {}).prices.price_for("gpt-4o-mini", NOVEMBER_2026_MS)
    million = Usage(10**6, 0, 10**6, 0)
    assert cost_nano_gbp(price, million) == round((0.15 + 0.60) * 0.79 * 10**9)


def test_a_reasoning_model_is_never_capped_to_its_thoughts() -> None:
    models = load(SHIPPED, {}).models
    assert models["gpt-6-luna"].output_tokens_min == 2048
    assert models["gpt-5.4-mini"].output_tokens_min == 2048
    assert models["gpt-4o-mini"].output_tokens_min == 16


def test_the_shipped_file_takes_its_environment() -> None:
    settings = load(
        SHIPPED,
        {
            "QUOTA_PROXY_LISTEN": "[::]:80",
            "QUOTA_OPENAI_BASE_URL": "http://127.0.0.1:9999/v1/",
            "OPENAI_API_KEY": "sk-1",
            "REDIS_URL": "unix:///run/redis.sock",
            "DATABASE_URL": "postgresql://u:p@h1:5432,h2/quota?sslmode=require",
            "QUOTA_PEPPER": "0123456789abcdef",
            "QUOTA_STATE_DIR": "/var/lib/quota",
        },
    )
    assert settings.listen.proxy == Address("::", 80)
    assert str(settings.listen.proxy) == "[::]:80"
    assert settings.upstreams["openai"].base_url == "http://127.0.0.1:9999/v1"
    assert settings.upstreams["openai"].api_key.reveal() == "sk-1"
    assert settings.redis.url.reveal() == "unix:///run/redis.sock"
    assert settings.ledger.url.shown == "postgresql://h1:5432,h2/quota"
    assert settings.identity.keys.pepper.reveal() == "0123456789abcdef"
    assert settings.state_dir == Path("/var/lib/quota")


def test_a_minimal_file_gets_the_defaults(tmp_path: Path) -> None:
    settings = load_text(tmp_path, MINIMAL)
    assert settings.redis.shards == 16
    assert settings.lease.ms == 60_000
    assert settings.models["mini"].weights == Weights()
    assert settings.plan.tiers["free"].models == ("*",)
    assert settings.plan.zone == "UTC"
    assert not settings.upstreams["openai"].api_key


@pytest.mark.parametrize(
    ("section", "key"), [("", "public_url"), ("redis", "shards"), ("listen", "proxy")]
)
def test_settings_cannot_be_changed(tmp_path: Path, section: str, key: str) -> None:
    settings = load_text(tmp_path, MINIMAL)
    with pytest.raises(AttributeError):
        setattr(getattr(settings, section) if section else settings, key, None)


def test_a_model_may_write_nothing_and_another_may_speak(tmp_path: Path) -> None:
    silent = "output_tokens_max: 0, output_tokens_default: 0, output_tokens_min: 0, audio: true"
    text = MINIMAL.replace("output_tokens_max: 100, output_tokens_default: 50", silent)
    model = load_text(tmp_path, text).models["mini"]
    assert (model.output_tokens_max, model.output_tokens_default, model.output_tokens_min) == (
        0,
        0,
        0,
    )
    assert model.takes_audio
    assert not load_text(tmp_path, MINIMAL).models["mini"].takes_audio


def test_weights_are_kept_in_thousandths(tmp_path: Path) -> None:
    weighted = MINIMAL.replace(
        "output_tokens_default: 50", "output_tokens_default: 50, weights: {cached: 0.125}"
    )
    model = load_text(tmp_path, weighted).models["mini"]
    assert model.weights == Weights(cached_per_mille=125, reasoning_per_mille=1000)


def test_entries_may_be_patterns_and_have_another_name_upstream(tmp_path: Path) -> None:
    entry = MINIMAL[MINIMAL.index("  mini:") : MINIMAL.index("prices:")]
    named = entry.replace("mini:", "small:").replace(": 50}", ": 50, upstream_model: acme/s}")
    patterns = [entry.replace("mini:", f'"{name}":') for name in ("gpt-*", "*")]
    text = MINIMAL.replace(entry, "".join([entry, named, *patterns]))
    settings = load_text(tmp_path, text)
    assert list(settings.models) == ["mini", "small", "gpt-*", "*"]
    assert [model.is_pattern for model in settings.models.values()] == [False, False, True, True]
    assert settings.models["small"].upstream_model == "acme/s"
    assert settings.models["mini"].upstream_model is None


def test_a_price_line_becomes_one_for_each_tier_and_length(tmp_path: Path) -> None:
    line = """\
      per_million:
        mini: {input: "2", cached: "0.2", output: "8", cache_write: "2.5", audio_input: "32",
          long: {above_tokens: 272000, input: "4", cached: "0.4", output: "12",
            cache_write: "5", audio_input: "64"},
          service_tiers: {flex: "0.5"}}
        "*": {input: "10", cached: "5", output: "40"}
"""
    start = MINIMAL.index("      per_million:")
    text = MINIMAL[:start] + line + MINIMAL[MINIMAL.index("plan:") :]
    price = load_text(tmp_path, text).prices.price_for("mini", NOVEMBER_2026_MS)
    short, long = Usage(200_000, 0, 10**6, 0, 100_000), Usage(300_000, 0, 10**6, 0)
    for service_tier, dollar in ((None, 790_000_000), ("flex", 395_000_000)):
        line_of = partial(line_of_call, price, service_tier=service_tier)
        # 0.1 x 2 + 0.1 x 2.5 + 8 dollars, and 0.3 x 4 + 12.
        assert cost_nano_gbp(line_of(short), short) == dollar * 845 // 100
        assert cost_nano_gbp(line_of(long), long) == dollar * 132 // 10
        assert line_of(short).audio_input_nano_gbp == dollar * 32
        assert line_of(short).audio_output_nano_gbp is None


def test_price_versions_are_sorted_by_date(tmp_path: Path) -> None:
    older = """\
    - id: v0
      from: 2026-01-01T00:00:00Z
      per_million: {"*": {input: "1", cached: "1", output: "1"}}
plan:
"""
    prices = load_text(tmp_path, MINIMAL.replace("plan:\n", older)).prices
    assert [version.id for version in prices.versions] == ["v0", "v1"]


def test_the_environment_may_stand_inside_a_text(tmp_path: Path) -> None:
    text = f'{MINIMAL}state_dir: "/data/${{POD}}/${{NONE:-a}}$$$${{POD}}$x"\n'
    assert load_text(tmp_path, text, POD="p1").state_dir == Path("/data/p1/a$${POD}$x")


def test_an_empty_variable_counts_as_not_set_where_a_default_is_given(tmp_path: Path) -> None:
    text = f'{MINIMAL}state_dir: "${{DIR:-./var}}"\n'
    assert load_text(tmp_path, text, DIR="").state_dir == Path("var")


def test_an_empty_variable_counts_as_null_where_null_may_stand(tmp_path: Path) -> None:
    text = f'{MINIMAL}refusal: {{upgrade_url: "${{URL:-}}"}}\n'
    assert load_text(tmp_path, text).refusal.upgrade_url is None
    assert load_text(tmp_path, text, URL="https://a.b/c").refusal.upgrade_url == "https://a.b/c"


def test_a_number_may_come_from_the_environment(tmp_path: Path) -> None:
    text = f'{MINIMAL}redis: {{shards: "${{SHARDS:-8}}"}}\n'
    assert load_text(tmp_path, text).redis.shards == 8
    assert load_text(tmp_path, text, SHARDS="32").redis.shards == 32
    with pytest.raises(ConfigError, match=r"redis\.shards"):
        load_text(tmp_path, text, SHARDS="0")


@pytest.mark.parametrize(
    "injection", ["x\nversion: 2", '", shards: 1, url: "', "{a: b}", "${HOME}", "$$", "*a", "!tag"]
)
def test_a_variable_can_never_be_more_than_text(tmp_path: Path, injection: str) -> None:
    text = f'{MINIMAL}state_dir: "${{DIR}}"\n'
    settings = load_text(tmp_path, text, DIR=injection)
    assert settings.state_dir == Path(injection)
    assert settings.redis.shards == 16


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0.0.0.0:1", Address("0.0.0.0", 1)),
        ("[::1]:65535", Address("::1", 65535)),
        ("localhost:0", Address("localhost", 0)),
    ],
)
def test_forms_of_an_address(tmp_path: Path, text: str, address: Address) -> None:
    settings = load_text(tmp_path, f'{MINIMAL}listen: {{proxy: "{text}"}}\n')
    assert settings.listen.proxy == address
    assert str(address) == text


def test_port_zero_may_stand_more_than_once(tmp_path: Path) -> None:
    listen = 'listen: {proxy: "127.0.0.1:0", ops: "127.0.0.1:0", admin: "127.0.0.1:0"}\n'
    assert load_text(tmp_path, MINIMAL + listen).listen.admin.port == 0


def test_the_listing_has_the_shape_of_the_file_and_loads_again(tmp_path: Path) -> None:
    listing = effective(load(SHIPPED, {}))
    again = load_text(tmp_path, json.dumps(listing))
    assert effective(again) == listing
    assert listing["plan"]["tiers"]["full"]["packs"]["price_gbp"] == "2.00"
    assert listing["listen"]["ops"] == "127.0.0.1:8791"


def test_the_schema_knows_every_section() -> None:
    definitions = json.loads(json.dumps(schema()))["$defs"]
    file = load(SHIPPED, {}).file
    assert set(definitions["File"]["properties"]) == {
        field.encode_name for field in structs.fields(file)
    }
    assert definitions["Redis"]["properties"]["shards"]["anyOf"][0]["maximum"] == 1024
    assert definitions["Redis"]["additionalProperties"] is False
