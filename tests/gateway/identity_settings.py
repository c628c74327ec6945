"""The section `identity` for gateways whose callers are known by more than keys."""

from __future__ import annotations

from typing import Any

from tests.fakes.issuer import AUDIENCE, NAME, SECRET

FRONT = "127.0.0.1"


def identity(jwks_url: str) -> dict[str, Any]:
    """An issuer with a secret, who may make users; the same with published keys, who may not; and a
    front at 127.0.0.1, under the same secret."""
    by_secret = _entry(algorithms=["HS256"], secret=SECRET, create=True)
    by_keys = _entry(algorithms=["RS256", "ES256"], jwks_url=jwks_url, leeway_s=0)
    header = {
        "name": "X-User-Id",
        "secret_header": "X-Front-Secret",
        "secret": SECRET,
        "tier_header": "X-User-Tier",
        "email_header": "X-User-Email",
        "peers": [f"{FRONT}/32"],
        "create": True,
    }
    return {"jwt": [by_secret, by_keys], "header": header}


def _entry(**fields: object) -> dict[str, object]:
    claims = {"tier": "app_metadata.tier"}
    return {"issuer": NAME, "audience": AUDIENCE, "claims": claims, **fields}
