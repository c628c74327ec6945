"""The commands of the manifests as processes: migrate, jobs and a gateway, each with its own state.

They get the variables that their containers name, no more; the stores are the session's.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from gateway.adapters.embedded.run_as import die_with_parent
from tests.deploy.facts import ROOT
from tests.deploy.manifests import Document, containers, deployments, pod_of
from tests.gateway.loopback import ask
from tests.gateway.running_gateway import prompt
from tests.gateway.standin_process import UPSTREAM_KEY, StandInProcess

_PROGRAM = (sys.executable, "-m", "gateway")


def container(name: str) -> Document:
    """Of all pods with shared gateways, the container of this name."""
    pods = map(pod_of, deployments("shared").values())
    (found,) = (each for pod in pods for each in containers(pod) if each["name"] == name)
    return found


class Pods:
    """`values`: what the secrets hold. The folder that a ConfigMap would fill is empty, as it is
    without one: the shipped configuration is used."""

    def __init__(self, place: Path, values: dict[str, str], upstream: str) -> None:
        self._place, self._values = place, values
        free = dict.fromkeys(("PROXY", "OPS", "ADMIN"), "127.0.0.1:0")
        self._free = {f"QUOTA_{name}_LISTEN": address for name, address in free.items()}
        self._free |= {"QUOTA_OPENAI_BASE_URL": upstream, "NO_PROXY": "*"}
        (place / "etc").mkdir()

    def _environ(self, name: str) -> dict[str, str]:
        named = {each["name"] for each in container(name)["env"]}
        kept = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        state = {"QUOTA_STATE_DIR": str(self._place / name), "PYTHONPATH": str(ROOT)}
        return kept | self._free | state | {key: self._values[key] for key in named}

    def run(self, name: str, *words: str) -> str:
        """A command in this container, by default its own; what it prints."""
        done = subprocess.run(
            [*_PROGRAM, *(words or container(name)["args"])],
            cwd=self._place / "etc",
            env=self._environ(name),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def running(self, name: str) -> Iterator[dict[str, str]]:
        """Its places while the block lasts; then it must end well."""
        process = subprocess.Popen(
            [*_PROGRAM, *container(name)["args"]],
            cwd=self._place / "etc",
            env=self._environ(name),
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=partial(die_with_parent, signal.SIGTERM, os.getpid()),
        )
        assert process.stdout is not None
        try:
            ready, *places = process.stdout.readline().split()
            assert ready == "ready"
            yield dict(each.split("=", 1) for each in places)
        finally:
            process.terminate()
            process.communicate(timeout=40)
        assert process.returncode == 0


def test_who_is_made_beside_the_jobs_is_served_by_gateways(
    tmp_path: Path, redis_url: str, postgres_url: str
) -> None:
    stand_in = StandInProcess()
    values = {"REDIS_URL": redis_url, "DATABASE_URL": postgres_url}
    values |= {"OPENAI_API_KEY": UPSTREAM_KEY, "QUOTA_PEPPER": "0123456789abcdef"}
    pods = Pods(tmp_path, values, stand_in.url)
    with ExitStack() as stack:
        stack.callback(stand_in.stop)
        assert "applied" in pods.run("migrate")
        jobs, gateway = (stack.enter_context(pods.running(name)) for name in ("jobs", "gateway"))
        assert gateway["admin"] == "none"
        assert [ask(f"{each['ops']}/readyz").status for each in (jobs, gateway)] == [200, 200]
        pods.run("jobs", "user", "create", "alice", "--tier", "free")
        key = json.loads(pods.run("jobs", "key", "create", "alice", "--json"))["key"]
        reply = ask(
            f"{gateway['proxy']}/v1/chat/completions",
            "POST",
            json.dumps(prompt("Hello")).encode(),
            {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
        )
        assert reply.status == 200, reply.text
