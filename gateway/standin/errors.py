"""Refusals as OpenAI words them.

`Refused` is raised wherever a call cannot be served; its `ErrorAnswer` is what the client reads.
The texts are OpenAI's own, because what a gateway does with them is what gets tested: the one for
a wrong key, for instance, names part of that key.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

INVALID = "invalid_request_error"
OVERLOAD_TEXT = "The server had an error while processing your request. Sorry about that!"


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """One error answer: HTTP status, OpenAI's error object, Retry-After in seconds."""

    status: int
    message: str
    kind: str | None = INVALID
    param: str | None = None
    code: str | None = None
    retry_after_s: int | None = None

    def body(self) -> bytes:
        """`{"error": {...}}` as JSON."""
        return msgspec.json.encode(
            {
                "error": {
                    "message": self.message,
                    "type": self.kind,
                    "param": self.param,
                    "code": self.code,
                }
            }
        )


class Refused(Exception):
    """This call gets an error answer instead of a completion."""

    def __init__(self, answer: ErrorAnswer) -> None:
        super().__init__(answer.message)
        self.answer = answer


def invalid(message: str, param: str | None = None, code: str | None = None) -> Refused:
    """A 400 about the request itself."""
    return Refused(ErrorAnswer(400, message, param=param, code=code))


def check_key(authorization: str, required: str | None) -> None:
    """Raise Refused when a key is required and the Authorization header holds another."""
    if required is not None and authorization != f"Bearer {required}":
        raise Refused(_wrong_key(authorization.removeprefix("Bearer ").strip()))


def _wrong_key(key: str) -> ErrorAnswer:
    """The 401 for this key; as OpenAI's it shows both ends of it."""
    if not key:
        return ErrorAnswer(
            401,
            "You didn't provide an API key. You need to provide your API key in an Authorization "
            "header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY).",
        )
    shown = key if len(key) <= 8 else f"{key[:8]}{'*' * max(0, len(key) - 12)}{key[-4:]}"
    return ErrorAnswer(
        401,
        f"Incorrect API key provided: {shown}. You can find your API key at "
        "https://platform.openai.com/account/api-keys.",
        code="invalid_api_key",
    )


def unknown_url(method: str, path: str) -> ErrorAnswer:
    """The 404 for everything that is not served."""
    return ErrorAnswer(
        404,
        f"Unknown request URL: {method} {path}. Please check the URL for typos, or see the docs "
        "at https://platform.openai.com/docs/api-reference/.",
        code="unknown_url",
    )


def demanded(status: int, code: str | None, retry_after_s: int | None) -> ErrorAnswer:
    """The error that a directive asks for, worded as OpenAI words that status and code."""
    if status == 429 and code is None:
        code = "rate_limit_exceeded"
    kind = "server_error" if status >= 500 else INVALID
    message = OVERLOAD_TEXT if status >= 500 else f"The stand-in was told to answer {status}."
    if code == "insufficient_quota":
        kind = code
        message = "You exceeded your current quota, please check your plan and billing details."
    elif code == "rate_limit_exceeded":
        kind = "requests"
        message = "Rate limit reached for requests per min. Please try again later."
    return ErrorAnswer(status, message, kind, code=code, retry_after_s=retry_after_s)
