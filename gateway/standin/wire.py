"""The bytes of an answer: a completion object, or the events of a stream.

Field by field what OpenAI sends. Everything that stays the same within an answer is encoded once;
a chunk is then a concatenation, because a replay sends hundreds of thousands of them.
"""

from __future__ import annotations

import msgspec

from gateway.standin.ask import ChatAsk
from gateway.standin.errors import OVERLOAD_TEXT, ErrorAnswer

DONE = b"data: [DONE]\n\n"
STREAM_ERROR = b"data: %b\n\n" % ErrorAnswer(500, OVERLOAD_TEXT, "server_error").body()


class Answer:
    """One answer's constant parts: its id, birth, model and service tier."""

    def __init__(self, ask: ChatAsk, answer_id: str, created_s: int) -> None:
        self._ask = ask
        self._id = answer_id
        self._created_s = created_s
        self._usage_in_chunks = ask.include_usage and ask.directives.usage != "none"
        head = msgspec.json.encode(self._head("chat.completion.chunk"))
        self._event_head = b"data: " + head.removesuffix(b"}") + b',"choices":['
        self._event_tail = b'],"usage":null}\n\n' if self._usage_in_chunks else b"]}\n\n"
        self._choice_heads = [
            self._event_head + b'{"index":%d,"delta":{' % index for index in range(ask.choices)
        ]

    def completion(self, text: str) -> bytes:
        """The whole answer of a call that does not stream."""
        answer = self._head("chat.completion")
        message: dict[str, object] = {
            "role": "assistant",
            "content": text,
            "refusal": None,
            "annotations": [],
        }
        answer["choices"] = [
            {
                "index": index,
                "message": message,
                "logprobs": None,
                "finish_reason": self._ask.finish_reason,
            }
            for index in range(self._ask.choices)
        ]
        if self._ask.directives.usage != "none":
            answer["usage"] = self._usage()
        return msgspec.json.encode(answer)

    def role(self, index: int) -> bytes:
        """The event that opens a choice."""
        return self._event(index, b'"role":"assistant","content":"","refusal":null', b"null")

    def content(self, index: int, text: str) -> bytes:
        """An event with text that needs no escaping."""
        return self._event(index, b'"content":"%b"' % text.encode(), b"null")

    def finish(self, index: int) -> bytes:
        """The event that ends a choice."""
        return self._event(index, b"", b'"%b"' % self._ask.finish_reason.encode())

    def usage(self) -> bytes:
        """The event after all choices; empty when usage was not asked for or is left out."""
        if not self._usage_in_chunks:
            return b""
        figures = msgspec.json.encode(self._usage())
        return self._event_head + b'],"usage":' + figures + b"}\n\n"

    def _event(self, index: int, delta: bytes, finish_reason: bytes) -> bytes:
        ending = b'},"logprobs":null,"finish_reason":' + finish_reason + b"}"
        return self._choice_heads[index] + delta + ending + self._event_tail

    def _head(self, kind: str) -> dict[str, object]:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created_s,
            "model": self._ask.model,
            "service_tier": self._ask.service_tier,
            "system_fingerprint": None,
        }

    def _usage(self) -> dict[str, object]:
        figures = self._ask.usage.as_json()
        if self._ask.directives.usage == "text":
            figures = {n: str(v) if isinstance(v, int) else v for n, v in figures.items()}
        return figures
