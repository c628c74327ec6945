"""The ways that calls can take: each an upstream, the model that is sent there, and who calls.

The gateway has all of them in its configuration; a pass-through has one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

UPSTREAM_KEY = "sk-bench-0123456789abcdefghijklmnopqrstuvwxyz0123456789"
Callers = Literal["room", "near"]
_MODELS = ("gpt-6-luna", "gpt-6-sol", "gpt-6.1-terra", "gpt-6.1-sol", "gpt-6.2-sol")


@dataclass(frozen=True, slots=True)
class Lane:
    """`callers`: users with room, or users of whose quota little is left."""

    name: str
    url: str  # without /v1
    callers: Callers = "room"


def models_of(lanes: Iterable[Lane]) -> dict[str, str]:
    """The model of each lane, by its name."""
    return dict(zip((lane.name for lane in lanes), _MODELS, strict=False))


def configured(shipped: dict[str, Any], lanes: Iterable[Lane]) -> dict[str, Any]:
    """The upstreams and models sections that send each lane's model to its upstream."""
    lanes = tuple(lanes)
    as_shipped = {**shipped["upstreams"]["openai"], "api_key": UPSTREAM_KEY}
    models = dict(shipped["models"])
    for name, model in models_of(lanes).items():
        models[model] = {**models[model], "upstream": name}
    others = {lane.name: {**as_shipped, "base_url": f"{lane.url}/v1"} for lane in lanes}
    return {"upstreams": {"openai": as_shipped, **others}, "models": models}
