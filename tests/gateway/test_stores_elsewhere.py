"""A gateway on stores that somebody else runs."""

from __future__ import annotations

from collections.abc import Callable

from tests.gateway.running_gateway import RunningGateway


def test_serve_runs_on_stores_that_it_did_not_start(
    start_gateway: Callable[..., RunningGateway], redis_url: str, postgres_url: str
) -> None:
    gateway = start_gateway(
        redis={"url": redis_url},
        ledger={"url": postgres_url},
        identity={"keys": {"pepper": "a-pepper-of-this-test"}},
    )
    user_id, key = gateway.new_user("free")
    assert gateway.chat(key, "Hello").status == 200
    assert gateway.ledger_rows(user_id)[0]["quality"] == "measured"
    assert sorted(path.name for path in gateway.state_dir.iterdir()) == [
        "admin-token",
        "run",
        "spill",
    ]
