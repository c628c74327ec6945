"""What Azure OpenAI adds to OpenAI's answers: the verdicts of its content filter, its own errors.

The first chunk of a stream holds the verdict on the prompt and no choice, see
https://learn.microsoft.com/azure/foundry/openai/concepts/content-filter. Deployments are asked
under a dated api-version; the paths under /openai/v1 need none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.standin.errors import ErrorAnswer, Refused
from gateway.standin.face import Face

# The first version that knows `stream_options`, a preview of 2024-10-21.
STREAM_OPTIONS_SINCE = "2024-09-01"

_SAFE = {"filtered": False, "severity": "safe"}
FILTERED = dict.fromkeys(("hate", "self_harm", "sexual", "violence"), _SAFE)


def prompt_filtered() -> list[dict[str, Any]]:
    """The verdict on the prompt: nothing to object to."""
    verdict = {**FILTERED, "jailbreak": {"filtered": False, "detected": False}}
    return [{"prompt_index": 0, "content_filter_results": verdict}]


def face_of(api_version: str | None) -> Face:
    """The face of a deployment under this version; Refused with a 404 without one."""
    if not api_version:
        raise Refused(ErrorAnswer(404, "Resource not found", kind=None, code="404"))
    return Face.AZURE if api_version >= STREAM_OPTIONS_SINCE else Face.AZURE_OLD


def check_key(headers: Mapping[str, str], required: str | None) -> None:
    """Raise Refused when a key is required and neither api-key nor Authorization holds it."""
    shown = headers.get("api-key"), headers.get("Authorization")
    if required is not None and shown[0] != required and shown[1] != f"Bearer {required}":
        raise Refused(
            ErrorAnswer(
                401,
                "Access denied due to invalid subscription key or wrong API endpoint. Make sure to "
                "provide a valid key for an active subscription and use a correct regional API "
                "endpoint for your resource.",
                kind=None,
                code="401",
            )
        )
