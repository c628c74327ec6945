"""The ops port opened to a network: asked from another machine, which reaches nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NoReturn
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from tests.gateway.other_machine import other_machine
from tests.gateway.running_gateway import MakeGateway

REFUSED = (0, "ConnectionRefusedError")


def test_another_machine_scrapes_and_probes_and_reaches_neither_calls_nor_administration(
    make_gateway: MakeGateway, missing: Callable[[str], NoReturn]
) -> None:
    with other_machine(missing) as machine:
        gateway = make_gateway(listen={"ops": f"{machine.address}:0"}).start()
        host, ops = machine.address, urlsplit(gateway.ops).port or 0
        assert urlsplit(gateway.ops).hostname == host
        proxy, admin = (urlsplit(each).port or 0 for each in (gateway.proxy, gateway.admin))
        assert gateway.chat(gateway.new_user()[1], "Hello").status == 200

        metrics, healthy, ready, *others = machine.ask(
            (host, ops, "/metrics"),
            (host, ops, "/healthz"),
            (host, ops, "/readyz"),
            (host, ops, "/admin/v1/users"),
            (host, ops, "/v1/models"),
            (host, proxy, "/v1/models"),
            (host, admin, "/admin/v1/users"),
        )
        found = {family.name: family for family in text_string_to_metric_families(metrics[1])}
        decided = found["quota_gateway_decisions"].samples
        admitted = [each.value for each in decided if each.labels["decision"] == "admitted"]
        assert sum(admitted) == 1
        assert (healthy[0], ready[0]) == (200, 200)
        assert set(json.loads(ready[1])["checks"].values()) == {"ok"}
        assert [status for status, _ in others[:2]] == [404, 404]
        assert others[2:] == [REFUSED, REFUSED]
        gateway.stop()
        assert machine.ask((host, ops, "/healthz")) == [REFUSED]
