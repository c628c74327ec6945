"""The admin port of a running gateway, asked as a program would."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.app.secrets_of_state import admin_token_of
from tests.gateway.loopback import Reply, ask
from tests.gateway.running_gateway import RunningGateway


@dataclass(frozen=True)
class AdminPort:
    """`token` None: the one of the state directory."""

    gateway: RunningGateway
    token: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def ask(
        self,
        at: str,
        body: Any = None,
        once: str | None = None,
        authorization: str | None = None,
    ) -> Reply:
        """`METHOD /path` below /admin/v1; a body that is not bytes is sent as JSON, and an
        `authorization` of '' not at all."""
        method, _, path = at.partition(" ")
        token = self.token or admin_token_of(self.gateway.settings)
        if authorization is None:
            authorization = f"Bearer {token}"
        headers = {"Authorization": authorization} if authorization else {}
        headers |= self.headers
        if once is not None:
            headers["Idempotency-Key"] = once
        raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        return ask(f"{self.gateway.admin}/admin/v1{path}", method, raw, headers)

    def done(self, at: str, body: Any = None, once: str | None = None) -> Any:
        """What a request that must succeed answers."""
        reply = self.ask(at, body, once)
        assert reply.status in (200, 201), reply.text
        return reply.json

    def with_scopes(self, *scopes: str) -> AdminPort:
        """The same by a token that has these."""
        made = self.done("POST /tokens", {"name": "a test", "scopes": scopes})
        return AdminPort(self.gateway, made["token"])

    def audit(self, **query: str) -> list[dict[str, Any]]:
        """The newest lines of the audit."""
        asked = "&".join(f"{name}={value}" for name, value in query.items())
        data: list[dict[str, Any]] = self.done(f"GET /audit?limit=200&{asked}")["data"]
        return data
