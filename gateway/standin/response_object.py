"""The `response` object, as it begins, ends and fails: what was asked for, repeated with defaults.

OpenAI repeats the settings of a request in every answer, `store` and the limit included, so a
client sees what a proxy in between made of them.
"""

from __future__ import annotations

from typing import Any

from gateway.standin.chat_ask import tier_of
from gateway.standin.reply import Setting
from gateway.standin.responses_ask import ResponsesAsk

_REPEATED: dict[str, Any] = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "store": True,
    "temperature": 1.0,
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}


class ResponseObject:
    """One answer's `response`, in whatever state."""

    def __init__(self, ask: ResponsesAsk, setting: Setting) -> None:
        self._ask = ask
        self._setting = setting

    def begun(self) -> dict[str, Any]:
        """Nothing is written yet."""
        return {**self._shown("in_progress", []), "service_tier": "auto"}

    def ended(self, output: list[dict[str, Any]]) -> dict[str, Any]:
        """All is written, or as much as the cap allowed."""
        cut = self._ask.output.cut
        ended = self._shown("incomplete" if cut else "completed", output)
        if cut:
            ended["incomplete_details"] = {"reason": "max_output_tokens"}
        else:
            ended["completed_at"] = self._setting.created_s
        report = self._ask.report
        ended["usage"] = None if report.left_out else report.shown(report.told.of_responses())
        return ended

    def failed(self, error: dict[str, Any]) -> dict[str, Any]:
        """The model failed; what it cost is not told."""
        return {**self._shown("failed", []), "error": error}

    def _shown(self, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
        asked = self._ask.body
        given = {name: asked[name] for name in _REPEATED if asked.get(name) is not None}
        reasoning = {"effort": None, "summary": None, **(asked.get("reasoning") or {})}
        text = {"format": {"type": "text"}, "verbosity": "medium", **(asked.get("text") or {})}
        return {
            "id": f"resp_{self._setting.id}",
            "object": "response",
            "created_at": self._setting.created_s,
            "status": status,
            "completed_at": None,
            "error": None,
            "incomplete_details": None,
            "model": self._ask.model,
            "output": output,
            **_REPEATED,
            **given,
            "reasoning": reasoning,
            "service_tier": tier_of(asked),
            "text": text,
            "usage": None,
        }
