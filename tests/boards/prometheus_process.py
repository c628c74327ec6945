"""A real Prometheus over the rules and alerts that ship, on a free port, in a hurry.

It scrapes and evaluates each second; how long alerts wait may be scaled down. Everything else is
as in deploy/prometheus.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from gateway.adapters.embedded.run_as import die_with_parent
from tests.boards.prometheus_files import PLACE
from tests.gateway.loopback import ask
from tests.gateway.waiting_for import until

Json = dict[str, Any]
_START_S = 30.0
_WAITS = re.compile(r"for: (\d+)(s|m)$", re.MULTILINE)


class PrometheusProcess:
    """`waits`: by what the time is divided for which a fault must last before an alert fires."""

    def __init__(self, place: Path, ops: str, waits: int = 1) -> None:
        self._place = place
        place.mkdir()
        self._write(ops, waits)
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        self.url = f"http://{address}"
        with (place / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    shutil.which("prometheus") or "prometheus",
                    f"--config.file={place / 'prometheus.yaml'}",
                    f"--storage.tsdb.path={place / 'data'}",
                    f"--web.listen-address={address}",
                ],
                stdout=subprocess.DEVNULL,
                stderr=log,
                preexec_fn=partial(die_with_parent, signal.SIGTERM, os.getpid()),
            )
        until(self._is_ready, _START_S, "Prometheus to be ready")

    def _write(self, ops: str, waits: int) -> None:
        def shorter(found: re.Match[str]) -> str:
            seconds = int(found[1]) * (60 if found[2] == "m" else 1)
            return f"for: {max(1, seconds // waits)}s"

        main = (PLACE / "prometheus.yaml").read_text()
        main = re.sub(
            r"(scrape_interval|scrape_timeout|evaluation_interval): \d+s", r"\1: 1s", main
        )
        (self._place / "prometheus.yaml").write_text(main)
        shutil.copy(PLACE / "rules.yaml", self._place)
        alerts = (PLACE / "alerts.yaml").read_text()
        (self._place / "alerts.yaml").write_text(_WAITS.sub(shorter, alerts))
        (self._place / "targets").mkdir()
        target = json.dumps([{"targets": [urlsplit(ops).netloc]}])
        (self._place / "targets" / "gateway.yaml").write_text(target)

    def _is_ready(self) -> bool:
        assert self._process.poll() is None, (self._place / "log").read_text()
        try:
            return ask(f"{self.url}/-/ready").status == 200
        except OSError:
            return False

    def _get(self, path: str, **asked: Any) -> Any:
        reply = ask(f"{self.url}/api/v1/{path}?{urlencode(asked)}")
        assert reply.status == 200, (asked, reply.text)
        return reply.json["data"]

    def query(self, expression: str) -> list[Json]:
        """The series of an expression as it is now: labels, and [time, value as text]."""
        found: list[Json] = self._get("query", query=expression)["result"]
        return found

    def over(self, expression: str, start_s: float, end_s: float, step_s: float) -> list[Json]:
        """The same over time."""
        asked = {"query": expression, "start": start_s, "end": end_s, "step": step_s}
        found: list[Json] = self._get("query_range", **asked)["result"]
        return found

    def rules(self) -> list[Json]:
        """Each rule with its health."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def firing(self) -> set[str]:
        """The names of the alerts that fire now."""
        return {
            alert["labels"]["alertname"]
            for alert in self._get("alerts")["alerts"]
            if alert["state"] == "firing"
        }

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(20)
