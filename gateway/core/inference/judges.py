"""Which judge reads the requests of which route.

A judge makes a request of the bytes of a body, or raises Refused. Nobody else needs to know which
metered APIs there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from gateway.core.inference.chat import judge_chat
from gateway.core.inference.completions import judge_completions
from gateway.core.inference.embeddings import judge_embeddings
from gateway.core.inference.request import InferenceRequest
from gateway.core.inference.responses import judge_responses
from gateway.core.routes import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES

JUDGES: Mapping[str, Callable[[bytes], InferenceRequest]] = MappingProxyType(
    {
        CHAT.name: judge_chat,
        RESPONSES.name: judge_responses,
        COMPLETIONS.name: judge_completions,
        EMBEDDINGS.name: judge_embeddings,
    }
)
