"""`POST /v1/completions`: prompts continued, as the older API has it.

Every prompt gets `n` choices, of which the best of `best_of` are shown: the others are written and
counted all the same. Without a limit it is OpenAI's 16 tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.standin import fields
from gateway.standin.chat_ask import CHOICES_MAX, include_usage
from gateway.standin.chat_wire import DONE, STREAM_ERROR
from gateway.standin.directives import OF_TEXT, Directives
from gateway.standin.errors import invalid
from gateway.standin.face import Face
from gateway.standin.fields import Body
from gateway.standin.inputs import Input, inputs_of
from gateway.standin.output import Output, Wanted, planned
from gateway.standin.reply import Setting, Whole, halved_at
from gateway.standin.usage import Report, Usage

CAP_TOKENS_DEFAULT = 16  # OpenAI's, as the next one
PROMPTS_MAX = 2_048

_KNOWN_PARAMETERS = """
    model prompt best_of echo frequency_penalty logit_bias logprobs max_tokens n presence_penalty
    seed stop stream stream_options suffix temperature top_p user
"""
_PARAMETERS = frozenset(_KNOWN_PARAMETERS.split())


@dataclass(frozen=True, slots=True)
class _Ask:
    model: str
    stream: bool
    include_usage: bool
    echoed: tuple[str, ...]
    output: Output
    directives: Directives
    report: Report


def completions(body: dict[str, Any], setting: Setting) -> CompletionsReply:
    """The reply; raises Refused with OpenAI's 400."""
    if not setting.face.ignores_unknown:
        fields.known_only(body, _PARAMETERS)
    model = setting.model or fields.model_of(body)
    prompts = inputs_of(body, "prompt", PROMPTS_MAX)
    stream = fields.flag(body, "stream")
    orders = fields.orders(prompts[-1].text, OF_TEXT, stream, "prompt")
    cap = fields.number(body, "max_tokens", least=0)
    wanted = Wanted(CAP_TOKENS_DEFAULT if cap is None else cap)
    output = planned(orders, wanted, setting.count_tokens)
    choices, written = _choices(body, stream)
    usage = Usage(
        sum(prompt.tokens(setting.count_tokens) for prompt in prompts),
        output.tokens * written * len(prompts),
    )
    ask = _Ask(
        model,
        stream,
        include_usage(body, stream, setting.face),
        _echoed(prompts, fields.flag(body, "echo"), choices),
        output,
        orders,
        Report(usage, orders.usage),
    )
    return CompletionsReply(ask, setting)


def _choices(body: Body, stream: bool) -> tuple[int, int]:
    """Choices to show and to write a prompt."""
    shown = fields.number(body, "n", CHOICES_MAX) or 1
    best_of = fields.number(body, "best_of", CHOICES_MAX)
    written = shown if best_of is None else best_of
    if written < shown:
        raise invalid("You requested that the server return more choices than it will generate.")
    if stream and written > shown:
        raise invalid("Cannot stream results with best_of > n.", "best_of")
    return shown, written


def _echoed(prompts: tuple[Input, ...], echo: bool, choices: int) -> tuple[str, ...]:
    """What each choice repeats of its prompt, all choices of the first prompt coming first."""
    return tuple(prompt.text if echo else "" for prompt in prompts for _ in range(choices))


class CompletionsReply:
    """One answer."""

    def __init__(self, ask: _Ask, setting: Setting) -> None:
        self._ask = ask
        self._setting = setting
        told = ask.include_usage and not ask.report.left_out
        self.tells_usage = told and setting.face is not Face.COMPATIBLE

    @property
    def directives(self) -> Directives:
        return self._ask.directives

    @property
    def report(self) -> Report:
        return self._ask.report

    @property
    def hidden_tokens(self) -> int:
        return 0

    def events(self) -> CompletionsReply | None:
        return self if self._ask.stream else None

    def whole(self) -> Whole:
        part, reason = self._ask.output.parts[0], self._reason
        answer = self._head()
        answer["choices"] = [
            self._choice(index, echoed + part.text, reason)
            for index, echoed in enumerate(self._ask.echoed)
        ]
        if not self._ask.report.left_out:
            answer["usage"] = self._usage()
        written, tokens = part.half
        body = msgspec.json.encode(answer)
        return halved_at(body, b'"text":"', (self._ask.echoed[0] + written, tokens))

    def opening(self) -> bytes:
        """The prompts, if they shall be repeated."""
        echoes = enumerate(self._ask.echoed)
        return b"".join(self._event(index, echoed) for index, echoed in echoes if echoed)

    def chunks(self, chunk_tokens: int) -> Iterator[tuple[bytes, int]]:
        endless = self._ask.directives.never_ends
        for written, tokens in self._ask.output.parts[0].chunks(chunk_tokens, endless):
            for index in range(len(self._ask.echoed)):
                yield self._event(index, written), tokens

    def closing(self) -> bytes:
        reason = self._reason
        ended = [self._event(index, "", reason) for index in range(len(self._ask.echoed))]
        if self.tells_usage:
            ended.append(_line({**self._head(), "choices": [], "usage": self._usage()}))
        return b"".join([*ended, DONE])

    def broken(self) -> bytes:
        return STREAM_ERROR

    @property
    def _reason(self) -> str:
        return "length" if self._ask.output.cut else "stop"

    def _choice(self, index: int, written: str, reason: str | None) -> dict[str, Any]:
        return {"text": written, "index": index, "logprobs": None, "finish_reason": reason}

    def _event(self, index: int, written: str, reason: str | None = None) -> bytes:
        chunk = {**self._head(), "choices": [self._choice(index, written, reason)]}
        return _line({**chunk, "usage": None} if self.tells_usage else chunk)

    def _head(self) -> dict[str, Any]:
        return {
            "id": f"cmpl-{self._setting.id}",
            "object": "text_completion",
            "created": self._setting.created_s,
            "model": self._ask.model,
        }

    def _usage(self) -> dict[str, Any]:
        return self._ask.report.shown(self._ask.report.told.of_completions())


def _line(event: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % msgspec.json.encode(event)
