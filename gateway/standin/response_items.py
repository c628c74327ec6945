"""The items of a response: thoughts, a message, calls of functions, and the events about each.

An item is shown as it begins, in deltas, and whole when it is done; each kind knows its own fields
and events, which follow `openai.types.responses` of the official Python client 3.54.0.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.standin.output import Part
from gateway.standin.reply import Setting
from gateway.standin.responses_ask import ResponsesAsk
from gateway.standin.writing import SENTENCE_TOKENS, text

Told = Iterator[tuple[str, dict[str, Any]]]


class Item(Protocol):
    """One item of the output, as it begins and when it is done."""

    @property
    def id(self) -> str: ...

    def begun(self) -> dict[str, Any]: ...

    def done(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Thoughts:
    """A reasoning item: what was thought is not shown, but for a summary if that was asked for."""

    id: str
    summary: str | None
    secret: str | None

    def begun(self) -> dict[str, Any]:
        return self._shown([], None)

    def done(self) -> dict[str, Any]:
        return self._shown([] if self.summary is None else [self._part(self.summary)], self.secret)

    def summary_events(self) -> Told:
        """The summary in a single delta, which is no text of the answer."""
        if self.summary is None:
            return
        kind, at = "response.reasoning_summary_", {"summary_index": 0}
        yield f"{kind}part.added", {**at, "part": self._part("")}
        yield f"{kind}text.delta", {**at, "delta": self.summary}
        yield f"{kind}text.done", {**at, "text": self.summary}
        yield f"{kind}part.done", {**at, "part": self._part(self.summary)}

    def _shown(self, summary: list[dict[str, str]], secret: str | None) -> dict[str, Any]:
        shown = {"id": self.id, "type": "reasoning", "summary": summary}
        return shown if secret is None else {**shown, "encrypted_content": secret}

    def _part(self, written: str) -> dict[str, str]:
        return {"type": "summary_text", "text": written}


@dataclass(frozen=True, slots=True)
class Message:
    """A message of one text, or of one refusal; `mark` is what stands before it in JSON."""

    id: str
    part: Part
    cut: bool
    refuses: bool

    @property
    def mark(self) -> bytes:
        return b'"refusal":"' if self.refuses else b'"logprobs":[],"text":"'

    @property
    def delta_kind(self) -> str:
        return f"{self._kind}.delta"

    def begun(self) -> dict[str, Any]:
        return self._shown("in_progress", [])

    def done(self) -> dict[str, Any]:
        status = "incomplete" if self.cut else "completed"
        return self._shown(status, [self._content(self.part.text)])

    def opening_events(self) -> Told:
        yield "response.content_part.added", {"content_index": 0, "part": self._content("")}

    def delta(self, written: str) -> dict[str, Any]:
        return {"content_index": 0, "delta": written, **self._logprobs}

    def closing_events(self) -> Told:
        written = self.part.text
        whole = {"refusal" if self.refuses else "text": written, **self._logprobs}
        yield f"{self._kind}.done", {"content_index": 0, **whole}
        yield "response.content_part.done", {"content_index": 0, "part": self._content(written)}

    @property
    def _kind(self) -> str:
        return "response.refusal" if self.refuses else "response.output_text"

    @property
    def _logprobs(self) -> dict[str, Any]:
        return {} if self.refuses else {"logprobs": []}

    def _content(self, written: str) -> dict[str, Any]:
        if self.refuses:
            return {"type": "refusal", "refusal": written}
        return {"type": "output_text", "annotations": [], "logprobs": [], "text": written}

    def _shown(self, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": "message",
            "status": status,
            "content": content,
            "role": "assistant",
        }


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a function."""

    id: str
    part: Part
    cut: bool
    call_id: str

    mark = b'"arguments":"'
    delta_kind = "response.function_call_arguments.delta"

    def begun(self) -> dict[str, Any]:
        return self._shown("in_progress", "")

    def done(self) -> dict[str, Any]:
        return self._shown("incomplete" if self.cut else "completed", self.part.text)

    def opening_events(self) -> Told:
        yield from ()

    def delta(self, written: str) -> dict[str, Any]:
        return {"delta": written}

    def closing_events(self) -> Told:
        yield "response.function_call_arguments.done", {"arguments": self.part.text}

    def _shown(self, status: str, arguments: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": "function_call",
            "status": status,
            "arguments": arguments,
            "call_id": self.call_id,
            "name": self.part.function,
        }


def items_of(ask: ResponsesAsk, setting: Setting) -> tuple[Thoughts | None, list[Message | Call]]:
    """The thoughts, if there are any, and what follows them. Only the last item can be cut."""
    output = ask.output
    thoughts = None
    if output.reasoning_tokens:
        summary = text(0, SENTENCE_TOKENS) if ask.summarised else None
        secret = base64.b64encode(setting.id.encode()).decode() if ask.secret_thoughts else None
        thoughts = Thoughts(f"rs_{setting.id}", summary, secret)
    if not output.calls:
        refuses = ask.directives.refuse
        message = Message(f"msg_{setting.id}", output.parts[0], output.cut, refuses)
        return thoughts, [message]
    last = len(output.parts) - 1
    return thoughts, [
        Call(f"fc_{setting.id}x{at}", part, output.cut and at == last, f"call_{setting.id}x{at}")
        for at, part in enumerate(output.parts)
    ]
