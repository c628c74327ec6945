"""Requests to `/quota/v1` of a running gateway, and the service keys that some of them need."""

from __future__ import annotations

import json
import uuid
from typing import Any

from gateway.app.secrets_of_state import pepper_of
from gateway.app.stores import Stores
from tests.gateway.loopback import Reply, ask
from tests.gateway.running_gateway import MODEL, RunningGateway


def report(gateway: RunningGateway, key: str, **fields: Any) -> Reply:
    """Usage of 100 tokens, reported under an id of its own, changed by `fields`."""
    body = {"id": uuid.uuid4().hex, "model": MODEL, "total_tokens": 100, **fields}
    if {"prompt_tokens", "output_tokens"} & fields.keys():
        del body["total_tokens"]
    return post(gateway, "usage", key, body)


def post(gateway: RunningGateway, path: str, key: str, body: Any) -> Reply:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    return ask(f"{gateway.proxy}/quota/v1/{path}", "POST", raw, headers)


def status(gateway: RunningGateway, key: str, query: str = "") -> Reply:
    return ask(
        f"{gateway.proxy}/quota/v1/status{query}", headers={"Authorization": f"Bearer {key}"}
    )


def service_key(gateway: RunningGateway) -> str:
    """A service key, of a user of its own."""
    owner = f"service-{uuid.uuid4().hex[:12]}"

    async def make(stores: Stores) -> str:
        accounts = stores.accounts(gateway.settings)
        await accounts.create_user(owner, "free")
        return (await accounts.create_key(owner, pepper_of(gateway.settings), True)).key

    return gateway.in_stores(make)
