"""What the gateway knows of a moderation: a model's name, and something to be judged by it.

Moderations cost nothing, here as at OpenAI, so nothing is counted and no answer is read. Texts and
pictures both pass; whatever else is in a request is upstream's to judge.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.core.inference.fields import invalid, model_of
from gateway.core.json_body import encode, read_object

DEFAULT_MODEL: Final = "omni-moderation-latest"
"""OpenAI's default for a request that names none."""


@dataclass(frozen=True, slots=True)
class ModerationRequest:
    """A request as judged; `model` is the name that was called."""

    body: Mapping[str, Any]
    model: str

    def upstream_body(self) -> bytes:
        """The body to send: what was judged, with the model named."""
        return encode({**self.body, "model": self.model})


def judge_moderation(raw: bytes) -> ModerationRequest:
    """Read a request; Refused when it is malformed."""
    body = read_object(raw)
    model = DEFAULT_MODEL if body.get("model") is None else model_of(body)
    given = body.get("input")
    if not given or not isinstance(given, str | list):
        raise invalid("input", "text, or a list of texts or of content parts")
    return ModerationRequest(body, model)
