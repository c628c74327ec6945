"""`/quota/v1` says what it takes, and takes whatever else is sent without failing.

Schemathesis reads the description and sends what fits it, what hardly does, and what does not.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.loopback import ask
from tests.gateway.quota_calls import service_key
from tests.gateway.running_gateway import RunningGateway

SEED, EXAMPLES = 7, 12
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
)


def described(gateway: RunningGateway) -> Any:
    reply = ask(f"{gateway.proxy}/quota/v1/openapi.json")
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    return reply.json


def test_the_description_has_every_route_and_its_strict_bodies(
    gateway: RunningGateway, shop: RunningGateway
) -> None:
    told, told_of_shop = described(gateway), described(shop)
    assert told["openapi"].startswith("3.1")
    everywhere = {f"/quota/v1/{name}" for name in ("usage", "check", "status", "preferences")}
    assert set(told["paths"]) == everywhere
    of_payments = {f"/quota/v1/{name}" for name in ("topup", "payments/stripe")}
    assert set(told_of_shop["paths"]) == everywhere | of_payments
    event = told_of_shop["paths"]["/quota/v1/payments/stripe"]["post"]
    assert event["security"] == []
    assert [each["name"] for each in event["parameters"]] == ["Stripe-Signature"]
    usage = told["components"]["schemas"]["UsageBody"]
    assert (usage["required"], usage["additionalProperties"]) == (["id", "model"], False)
    assert set(told["paths"]["/quota/v1/usage"]["post"]["responses"]) >= {"200", "409", "429"}


@pytest.mark.parametrize("by_service", [False, True], ids=["a user who may buy", "a service"])
def test_nothing_that_is_sent_makes_it_fail(
    request: pytest.FixtureRequest, tmp_path: Path, by_service: bool
) -> None:
    gateway: RunningGateway = request.getfixturevalue("gateway" if by_service else "shop")
    key = service_key(gateway) if by_service else gateway.new_user("full")[1]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--no-color", "run"),
            f"{gateway.proxy}/quota/v1/openapi.json",
            *("--checks", ",".join(CHECKS), "--seed", str(SEED)),
            *("--max-examples", str(EXAMPLES), "--no-shrink"),
            *("--phases", "coverage,fuzzing", "--generation-database", "none"),
            *("--request-timeout", "20", "--warnings", "off"),
            *("--header", f"Authorization: Bearer {key}"),
        ],
        cwd=tmp_path,
        env={**os.environ, "NO_PROXY": "*", "no_proxy": "*"},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "internal_error" not in done.stdout
    if not by_service:
        assert gateway.metric("decisions_total", route="quota_topup", decision="admitted")
        assert gateway.metric("decisions_total", route="quota_payments_stripe", decision="refused")
