"""`serve --demo`: a user on each tier with a key, and a screen that says how to try them.

The demo keys follow from this state directory's own pepper, so they are the same at every start and
stored nowhere; another state directory has others.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from gateway.adapters.prometheus_metrics import ProxyMetrics
from gateway.app.secrets_of_state import pepper_of
from gateway.app.stores import Stores, open_stores
from gateway.config import Settings
from gateway.core.identity import format_key, key_digest
from gateway.core.rid import make_rid


async def welcome(settings: Settings, places: Mapping[str, str]) -> None:
    """Make sure the demo users exist, and print the screen."""
    keys = {}
    async with open_stores(settings, ProxyMetrics(settings.models), "demo") as stores:
        for tier in settings.plan.tiers:
            keys[tier] = await _demo_key(settings, stores, tier)
    # Plain text: lines to paste must not be framed, wrapped or coloured.
    print("\n".join(_screen(settings, places, keys)), flush=True)


async def _demo_key(settings: Settings, stores: Stores, tier: str) -> str:
    pepper, user_id = pepper_of(settings), f"demo-{tier}"
    secret = hmac.new(pepper, f"demo key of {tier}".encode(), hashlib.sha256).digest()
    key = format_key(secret)
    if await stores.directory.identity_of_user(user_id) is None:
        await stores.accounts(settings).create_user(user_id, tier)
    digest = key_digest(key, pepper)
    if await stores.directory.identity_of_key(digest) is None:
        key_id = make_rid(stores.clock.now_ms(), secret)
        await stores.directory.create_key(key_id, user_id, digest)
    return key


def _screen(
    settings: Settings, places: Mapping[str, str], keys: Mapping[str, str]
) -> Iterator[str]:
    real = ", ".join(each.base_url for each in settings.upstreams.values())
    upstream = f"{places['stand_in']}   the built-in stand-in: no money is spent"
    yield ""
    yield "quota-gateway is up"
    yield ""
    yield f"  proxy     {places['proxy']}/v1   set OPENAI_BASE_URL to this"
    yield f"  ops       {places['ops']}/metrics   also /healthz, /readyz"
    yield f"  admin     {places['admin']}   token in {settings.state_dir / 'admin-token'}"
    yield f"  upstream  {upstream if 'stand_in' in places else real}"
    yield f"  data      {settings.state_dir.resolve()}"
    yield ""
    yield "Demo users, their tokens a month, and their keys:"
    yield ""
    for tier, key in keys.items():
        yield f"  demo-{tier:<6}{settings.plan.tiers[tier].tokens:>10,}   {key}"
    tier, key = next(iter(keys.items()))
    yield ""
    yield "Try one (x-quota-remaining-tokens shows the quota counting down):"
    yield ""
    named = [name for name, model in settings.models.items() if not model.is_pattern]
    yield f"  {_curl(places['proxy'], key, named[0] if named else 'MODEL')}"
    yield ""
    yield "See a refusal: bring that user to the limit, then paste the line above again:"
    yield ""
    limit = settings.plan.tiers[tier].tokens
    yield f"  {_command()} user set-used demo-{tier} {limit} --reason 'trying it out'"
    yield ""
    yield "Ctrl-C stops everything. The next start finds the same users, keys and figures."
    yield ""


def _curl(proxy: str, key: str, model: str) -> str:
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello!"}]})
    return (
        f"curl -i {proxy}/v1/chat/completions -H 'Authorization: Bearer {key}' "
        f"-H 'Content-Type: application/json' -d {shlex.quote(body)}"
    )


def _command() -> str:
    """This program as it can be typed here."""
    script = Path(sys.executable).with_name("quota-gateway")
    return os.path.relpath(script) if script.exists() else f"{sys.executable} -m gateway"
