"""The JSON Schema takes what the gateway takes, as far as a schema can tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from gateway.config import schema

ROOT = Path(__file__).parents[3]


def shipped() -> dict[str, Any]:
    """As an editor reads it: a day is a text."""
    tree = yaml.safe_load((ROOT / "config.yaml").read_text())
    return dict(json.loads(json.dumps(tree, default=str)))


def test_the_file_in_the_documents_is_the_schema() -> None:
    """Written by `quota-gateway check-config --schema > docs/config.schema.json`."""
    assert json.loads((ROOT / "docs" / "config.schema.json").read_text()) == json.loads(
        json.dumps(schema())
    )


def test_editors_are_told_of_it() -> None:
    first = (ROOT / "config.yaml").read_text().partition("\n")[0]
    assert first == "# yaml-language-server: $schema=docs/config.schema.json"


def test_what_ships_is_valid() -> None:
    jsonschema_rs.validator_for(schema()).validate(shipped())


@pytest.mark.parametrize(
    ("section", "key", "value", "is_valid"),
    [
        ("redis", "shards", "${SHARDS:-16}", True),
        ("redis", "shards", "sixteen", False),
        ("redis", "shards", 0, False),
        ("redis", "mode", "${MODE}", True),
        ("redis", "mode", "sometimes", False),
        ("redis", "url", "redis://there", True),
        ("redis", "hosts", "there", False),
        ("prices", "gbp_per_unit", "${RATE}", True),
        ("prices", "gbp_per_unit", 0.79, False),
        ("refusal", "upgrade_url", None, True),
        ("log", "format", "yaml", False),
    ],
)
def test_a_value_or_what_is_expanded_to_one_is_taken(
    section: str, key: str, value: object, is_valid: bool
) -> None:
    tree = shipped()
    tree[section][key] = value
    assert jsonschema_rs.validator_for(schema()).is_valid(tree) is is_valid
