"""What chats and completions share of their requests: options of a stream, and the way out.

Usage is asked for in every stream whose upstream can report it, beside whatever the client asked
for. What is stored upstream, and what the gateway sets itself, is left out of what is sent on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gateway.core.inference.caps import CAPS
from gateway.core.inference.fields import invalid
from gateway.core.inference.request import Sending

CHOICES_MAX: Final = 128
"""OpenAI's own bound on n."""

STORED: Final = frozenset({"background", "container", "conversation", "previous_response_id"})
"""Objects of the one upstream account, and work that ends after its answer."""

# Upstream takes `metadata` only for answers that it stores.
_LEFT_OUT: Final = frozenset({*CAPS, "metadata", "store"})


def asked_usage(body: Mapping[str, Any]) -> bool:
    """Whether the client wants the usage chunk of its stream."""
    options = body.get("stream_options") or {}
    if not isinstance(options, dict):
        raise invalid("stream_options", "an object")
    return options.get("include_usage") is True


def sent_body(body: Mapping[str, Any], stream: bool, sending: Sending) -> dict[str, Any]:
    """The body on its way to an upstream, still without a cap."""
    sent = dict(body)
    if not _LEFT_OUT.isdisjoint(sent):
        for name in _LEFT_OUT:
            sent.pop(name, None)
    sent["model"] = sending.model
    if not sending.dialect.stream_usage:
        sent.pop("stream_options", None)
    elif stream:
        sent["stream_options"] = {**(sent.get("stream_options") or {}), "include_usage": True}
    return sent
