"""What OpenAI's API offers and this gateway refuses, each with the reason that its caller is told.

An operation is open if it stands in the table of routes; this table opens nothing and closes
nothing, for what stands in neither is refused all the same, only without a reason. The tests hold
both tables against a list of all of OpenAI's operations, so that none is left undecided.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refusal:
    """One pattern of refused operations, and why: a clause that follows a colon.

    `METHOD /path` is that operation alone; `/path` is every method, on it and on all below it.
    `{id}` stands for one segment. Paths are OpenAI's own, below `/v1`.
    """

    pattern: str
    reason: str


# By reason. The first pattern that matches decides, so the narrow stand above the wide.
_REASONS: dict[str, tuple[str, ...]] = {
    "it hands out a key, with which calls would go past this gateway": (
        *("/chatkit/sessions", "/realtime/client_secrets", "/realtime/sessions"),
        *("/realtime/transcription_sessions", "/realtime/translations/client_secrets"),
    ),
    "its session stays open, and tokens are held here call by call": (
        "/live",
        "/realtime",
        "GET /responses",
    ),
    "it reads stored files and conversations of any user": ("POST /responses/input_tokens",),
    "this version does not meter it": (
        *("/content_provenance_checks", "/decisions", "/fine_tuning/alpha"),
        *("POST /responses/compact",),
    ),
    "it is not billed by tokens of text": (
        *("/audio/speech", "/audio/transcriptions", "/audio/translations", "/images"),
    ),
    "files of all users would lie in one account": ("/files", "/uploads"),
    "stored objects of all users would lie in one account": (
        *("/assistants", "/audio/voice_consents", "/audio/voices", "GET /chat/completions"),
        *("/chat/completions/{id}", "/chatkit/threads", "/containers", "/conversations"),
        *("/responses/{id}", "/skills", "/threads", "/vaults", "/vector_stores"),
    ),
    "its jobs work on after the answer, when nobody holds tokens": (
        *("/agents", "/batches", "/evals", "/fine_tuning/jobs", "/videos"),
    ),
    "it administers the account": (
        *("/fine_tuning/checkpoints", "DELETE /models/{id}", "/organization", "/projects"),
        *("/safety", "/webhook_endpoints", "/webhook_event_types"),
    ),
}
REFUSALS = tuple(
    Refusal(pattern, reason) for reason, patterns in _REASONS.items() for pattern in patterns
)

# As ids and names are written. Braces let a path of OpenAI's own description be asked for; dots
# alone are no id, but the way to another path.
_SEGMENT = r"(?!\.+(?:/|\Z))[A-Za-z0-9._:{}-]{1,128}"


def _method_and_path(pattern: str) -> tuple[str, re.Pattern[str]]:
    method, _, path = pattern.rpartition(" ")
    below = "" if method else f"(?:/{_SEGMENT})*"
    return method, re.compile("/v1" + path.replace("{id}", _SEGMENT) + below)


_MATCHED = tuple((*_method_and_path(refusal.pattern), refusal) for refusal in REFUSALS)


def refusal_for(method: str, path: str) -> Refusal | None:
    """What refuses this operation; None where none is known. `path` begins with `/v1`, no query.

    Only the listed bytes match: a path that is merely equivalent to a listed one is unknown.
    """
    for wanted, paths, refusal in _MATCHED:
        if wanted in ("", method) and paths.fullmatch(path):
            return refusal
    return None
