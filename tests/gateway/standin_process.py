"""The stand-in upstream as a process of its own: it outlives every gateway in front of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gateway.adapters.embedded.run_as import die_with_parent
from tests.gateway.loopback import ask
from tests.gateway.waiting_for import until

# The only key that it lets in; no other place but the configuration may ever hold this text.
UPSTREAM_KEY = "sk-upstream-canary-7f3c1e9b5d2a"
_COMMAND = (sys.executable, "-m", "gateway", "mock-openai")
_ROOT = Path(__file__).resolve().parents[2]


class StandInProcess:
    """`mock-openai`, which may be stopped and started again; `url` ends in /v1."""

    def __init__(self, *options: str) -> None:
        self.url = ""
        self._address, self._options = "127.0.0.1:0", options
        self.start()

    def start(self) -> None:
        """Start it, after the first time where it was."""
        self._process = subprocess.Popen(
            (*_COMMAND, "--listen", self._address, "--require-key", UPSTREAM_KEY, *self._options),
            cwd=_ROOT,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=partial(die_with_parent, signal.SIGTERM, os.getpid()),
        )
        assert self._process.stdout is not None
        ready, _, self.url = self._process.stdout.readline().strip().partition(" openai=")
        assert ready == "ready"
        self._address = urlsplit(self.url).netloc
        self._own = f"http://{self._address}/stand-in"

    def stop(self) -> None:
        """End it, with everything that still runs in it."""
        self._process.terminate()
        self._process.communicate(timeout=20)

    def reset(self) -> None:
        """Forget what it served."""
        ask(f"{self._own}/reset", "POST")

    def add_call_of_nobody(self) -> None:
        """A call that no gateway made."""
        body = b'{"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}'
        reply = ask(
            f"{self.url}/chat/completions",
            "POST",
            body,
            {"Authorization": f"Bearer {UPSTREAM_KEY}"},
        )
        assert reply.status == 200

    def served(self, user_id: str) -> dict[str, int]:
        """What it served on behalf of this user: requests and tokens."""
        users = ask(f"{self._own}/served").json["users"]
        nothing = {"requests": 0, "prompt_tokens": 0, "completion_tokens": 0}
        return dict(users.get(user_id, nothing))

    def requests(self) -> int:
        """How many requests of inference it got, from anybody."""
        return int(ask(f"{self._own}/served?calls=0").json["requests"])

    def paths(self) -> dict[str, Any]:
        """What arrived, by method and path, of any kind."""
        return dict(ask(f"{self._own}/paths").json)

    def calls(self) -> dict[str, dict[str, Any]]:
        """Its newest calls by request id."""
        return dict(ask(f"{self._own}/served").json["calls"])

    def last(self) -> dict[str, Any]:
        """The newest request as it came."""
        return dict(ask(f"{self._own}/last").json)

    def await_held(self, name: str, calls: int = 1) -> None:
        """Wait until so many calls wait at the gate `name`."""

        def held() -> bool:
            waiting = ask(f"{self._own}/waiting").json
            return bool(waiting.get(name, 0) == calls)

        until(held, 20, f"{calls} calls at {name}")

    def release(self, name: str) -> None:
        """Let them go on."""
        ask(f"{self._own}/release/{name}", "POST")
