"""What the upstream of a benchmark answers: OpenAI's headers, a completion of about 1 KB, a stream.

The bytes are the same in every run. The headers are as many and as long as those that
api.openai.com sends, since both proxies must read them.
"""

from __future__ import annotations

import json

CHUNKS = 200
PROMPT_TOKENS, OUTPUT_TOKENS = 230, 120
_WORDS = (
    "A quota is a promise about the future that is kept one request at a time. Whoever holds it "
    "must know, before a call goes out, what the call may cost at most, and afterwards what it "
    "did cost. "
)
HEADERS = (
    ("access-control-expose-headers", "X-Request-ID"),
    ("openai-organization", "example-organisation"),
    ("openai-processing-ms", "412"),
    ("openai-project", "proj_0123456789abcdefghijklmn"),
    ("openai-version", "2020-10-01"),
    ("x-ratelimit-limit-requests", "30000"),
    ("x-ratelimit-limit-tokens", "150000000"),
    ("x-ratelimit-remaining-requests", "29999"),
    ("x-ratelimit-remaining-tokens", "149999722"),
    ("x-ratelimit-reset-requests", "2ms"),
    ("x-ratelimit-reset-tokens", "0s"),
    ("x-request-id", "req_0123456789abcdef0123456789abcdef"),
    ("x-openai-proxy-wasm", "v0.1"),
    ("cf-cache-status", "DYNAMIC"),
    ("strict-transport-security", "max-age=31536000; includeSubDomains; preload"),
    ("x-content-type-options", "nosniff"),
    ("cf-ray", "0123456789abcdef-LHR"),
    ("alt-svc", 'h3=":443"; ma=86400'),
)
_COMMON = {
    "id": "chatcmpl-0123456789abcdefghijklmnopqrs",
    "created": 1790000000,
    "model": "gpt-6-luna",
    "service_tier": "default",
    "system_fingerprint": "fp_0123456789",
}


def completion(prompt_tokens: int, output_tokens: int) -> bytes:
    """A whole answer of about 1 KB that says it cost so much."""
    message: dict[str, object] = {"role": "assistant", "content": _WORDS * 2, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    answer = {**_COMMON, "object": "chat.completion", "choices": [choice]}
    return json.dumps({**answer, "usage": _usage(prompt_tokens, output_tokens)}, indent=1).encode()


def events(prompt_tokens: int, output_tokens: int) -> list[bytes]:
    """A stream in CHUNKS pieces: text in each but the last, which ends it and tells its usage."""
    texts = [word + " " for word in _WORDS.split()]
    opening = _event([_choice({"role": "assistant", "content": "", "refusal": None}, None)], None)
    written = [
        _event([_choice({"content": texts[at % len(texts)]}, None)], None)
        for at in range(CHUNKS - 1)
    ]
    closing = _event([_choice({}, "stop")], None)
    told = _event([], _usage(prompt_tokens, output_tokens))
    return [opening + written[0], *written[1:], closing + told + b"data: [DONE]\n\n"]


def _choice(delta: dict[str, object], reason: str | None) -> dict[str, object]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}


def _event(choices: list[dict[str, object]], usage: dict[str, object] | None) -> bytes:
    chunk = {**_COMMON, "object": "chat.completion.chunk", "choices": choices, "usage": usage}
    return b"data: %b\n\n" % json.dumps(chunk, separators=(",", ":")).encode()


def _usage(prompt_tokens: int, output_tokens: int) -> dict[str, object]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": prompt_tokens + output_tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
