"""The admin API by its own description: whatever it allows to be sent, and what it does not.

Each operation is called with examples drawn from a fixed seed, on a gateway with real stores. What
nobody would have thought of must be answered in the described form, and never with a fault.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import (
    content_type_conformance,
    negative_data_rejection,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)
from schemathesis.core.result import Ok

from gateway.app.secrets_of_state import admin_token_of
from tests.gateway.admin_port import AdminPort
from tests.gateway.running_gateway import MakeGateway, RunningGateway

EXAMPLES = 8
CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
)


def exercise(operation: Any, base_url: str, token: str, people: list[str]) -> int:
    """Call one operation; how many of its answers were good."""
    good = 0

    @seed(7)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def call(data: st.DataObject) -> None:
        nonlocal good
        mode = data.draw(st.sampled_from([GenerationMode.POSITIVE, GenerationMode.NEGATIVE]))
        case = data.draw(operation.as_strategy(generation_mode=mode))
        known = data.draw(st.sampled_from(people))
        if mode is GenerationMode.POSITIVE and "user_id" in (case.path_parameters or {}):
            case.path_parameters["user_id"] = known
        headers = {"Authorization": f"Bearer {token}"}
        response = case.call(base_url=base_url, headers=headers)
        case.validate_response(response, checks=CHECKS, headers=headers)
        good += response.status_code < 300

    call()
    return good


@pytest.mark.timeout(180)
def test_whatever_is_sent_is_answered_as_described(start_gateway: MakeGateway) -> None:
    gateway = start_gateway()
    admin = AdminPort(gateway)
    people = ["ann", "bob", "crew"]
    for user in people[:2]:
        admin.done("POST /users", {"user": user})
    admin.done("POST /teams", {"team": "crew"})
    admin.done("PUT /teams/crew/members/bob")
    description = admin.done("GET /openapi.json")
    schema = schemathesis.openapi.from_dict(description)
    token, good = admin_token_of(gateway.settings), {}
    for result in schema.get_all_operations():
        operation: Any = result.ok() if isinstance(result, Ok) else None
        good[operation.label] = exercise(operation, gateway.admin, token, people)
    # It did get past the door: most operations did something at least once.
    assert sum(count > 0 for count in good.values()) > len(good) / 2, good
    log = gateway.stderr.read_text()
    assert "the admin API failed" not in log, log
    gateway.stop()


def test_the_description_names_every_route_with_its_scopes(gateway: RunningGateway) -> None:
    description = AdminPort(gateway).done("GET /openapi.json")
    assert description["openapi"] == "3.1.0"
    operations = [each for methods in description["paths"].values() for each in methods.values()]
    assert len(operations) > 20
    for operation in operations:
        assert operation["summary"]
        assert operation["security"][0]["token"]
        assert {"401", "403"} <= set(operation["responses"])
    asked = [
        operation
        for operation in operations
        if any(each["name"] == "Idempotency-Key" for each in operation.get("parameters", ()))
    ]
    assert asked
    assert all("money" in each["security"][0]["token"] for each in asked)
    assert "additionalProperties" in json.dumps(description["components"]["schemas"]["UserAsked"])
