"""The TypeScript caller of the documents, run by Node against a gateway.

Node from 22.6 on runs it as it is. For an older one its types are taken out first: the file keeps
them where that needs no compiler, and the test says so if it does not any more.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

from tests.gateway.node_sdk import FOLDER, require
from tests.gateway.quota_calls import service_key
from tests.gateway.running_gateway import RunningGateway

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "record-usage.ts"
STRIPS_TYPES = (22, 6)
_RUN_S = 120
_TYPES = (
    (r"^export interface .*?^\}\n", ""),
    (r"^(?:export )?type \w+ =.*?;\n", ""),
    (r"^((?:export )?const \w+): \w+ =", r"\1 ="),
)


def node_version() -> tuple[int, ...]:
    require("node")
    told = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(int(part) for part in told.strip().removeprefix("v").split("."))


def without_types(text: str) -> str:
    for pattern, instead in _TYPES:
        text = re.sub(pattern, instead, text, flags=re.MULTILINE | re.DOTALL)
    return text


def run(arguments: list[str], place: Path) -> dict[str, Any]:
    version, options, module = node_version(), list[str](), EXAMPLE
    if version < STRIPS_TYPES:
        module = place / "record-usage.mjs"
        module.write_text(without_types(EXAMPLE.read_text()))
    elif version < (23, 6):
        options = ["--experimental-strip-types"]
    done = subprocess.run(
        ["node", *options, FOLDER / "record_usage.mjs", module, *arguments],
        capture_output=True,
        text=True,
        timeout=_RUN_S,
    )
    assert done.returncode == 0, done.stderr
    results: dict[str, Any] = json.loads(done.stdout)
    return results


def test_the_caller_of_the_documents(gateway: RunningGateway, tmp_path: Path) -> None:
    user, _ = gateway.new_user("lite")
    spent, _ = gateway.new_user("free", 100_000)
    results = run([gateway.proxy, service_key(gateway), user, spent], tmp_path)

    assert (results["calls"], results["lost"]["booked"]) == (3, True)
    assert results["lost"]["answer"]["charged_tokens"] == 50
    assert results["again"] == results["lost"], "the same id, the same answer"
    assert (results["other"]["status"], results["other"]["error"]["param"]) == (409, "id")
    (row,) = gateway.ledger_rows(user)
    assert (row["client_id"], row["charged_tokens"]) == ("answer-1", 50)

    refused = results["refused"]
    assert (refused["booked"], refused["status"]) == (False, 429)
    assert refused["error"]["quota"]["upgrade"]["tier"] == "lite"
    assert results["forced"]["answer"]["decision"] == "forced"
    assert results["forced"]["answer"]["cost_gbp"] == "0.000400000"
    assert gateway.shown(spent)["used_tokens"] == 100_050
    assert results["stranger"]["error"]["code"] == "invalid_api_key"
    assert "answer-1" in results["unreachable"]
