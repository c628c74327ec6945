"""What the gateway knows of a completion's request: plain text, or token ids, to be continued.

Each prompt is answered `n` times, of the best of `best_of`, and everything written counts. OpenAI
has no model for this route since 28 September 2026; vLLM, llama.cpp, Ollama and OpenRouter have.
A field unknown here goes through; the cap sent upstream is always the cap held.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gateway.core.inference.caps import asked_cap, cap_bounds
from gateway.core.inference.chat_answer import (
    Chunk,
    Completion,
    read_chunk,
    read_completion,
    without_echo,
)
from gateway.core.inference.chat_words import broken_chunk, closing_texts
from gateway.core.inference.completing import CHOICES_MAX, STORED, asked_usage, sent_body
from gateway.core.inference.fields import (
    flag,
    invalid,
    model_of,
    refuse_fields,
    service_tier_of,
    whole,
)
from gateway.core.inference.request import Closing, Count, Sending, StreamEvent
from gateway.core.json_body import encode, read_object
from gateway.core.models import Model
from gateway.core.prompt.inputs import Input, count_inputs, inputs_of
from gateway.core.refusal import Case
from gateway.core.sse import SseEvent

OUTPUT_TOKENS_DEFAULT = 16  # OpenAI's, for this route alone
# `prompt_embeds` is vLLM's: a prompt as a tensor, whose tokens cannot be counted here.
_UNSUPPORTED = STORED | {"prompt_embeds"}


class CompletionsRequest(msgspec.Struct, frozen=True, gc=False):
    """A request as judged. `suffix`: the text after the one to be written. `echo`: each answer
    begins with its prompt, which the model did not write."""

    body: Mapping[str, Any]
    model: str
    stream: bool
    asked_usage: bool
    prompts: Sequence[Input]
    suffix: str
    choices: int
    output_tokens_asked: int
    echo: bool
    service_tier: str | None

    @property
    def text_only(self) -> bool:
        """A suffix counts once for each prompt, and stands in the body once."""
        return not self.suffix or len(self.prompts) == 1

    def count_prompt(self, model: Model, count: Count) -> int:
        suffix_tokens = count(self.suffix) if self.suffix else 0
        return count_inputs(self.prompts, count) + suffix_tokens * len(self.prompts)

    def output_bounds(self, model: Model) -> tuple[int, int]:
        return cap_bounds(self.model, self.output_tokens_asked, model)

    def upstream_body(self, sending: Sending) -> bytes:
        body = sent_body(self.body, self.stream, sending)
        return encode({**body, "max_tokens": sending.output_tokens})

    def read_whole(self, raw: bytes) -> Completion:
        answer = read_completion(raw)
        return without_echo(answer, self._echoed) if self.echo else answer

    def read_event(self, event: SseEvent) -> Chunk:
        """An echo comes in pieces of any size, so it is taken for written text, unless nothing may
        be written at all: that errs upwards, and only where upstream reports no usage."""
        chunk = read_chunk(event.data or b"", event.name)
        return without_echo(chunk, None) if self.echo and not self.output_tokens_asked else chunk

    def hides(self, event: StreamEvent) -> bool:
        return not self.asked_usage and isinstance(event, Chunk) and event.is_usage

    def closing_events(self, closing: Closing) -> bytes:
        return closing_texts(closing)

    def broken_event(self, case: Case, message: str, events: int) -> bytes:
        return broken_chunk(case, message)

    @property
    def _echoed(self) -> str | None:
        """What each text begins with, as far as that is known; None when it is all there is."""
        if not self.output_tokens_asked:
            return None
        only = self.prompts[0] if len(self.prompts) == 1 else ""
        return only if isinstance(only, str) else ""


def judge_completions(raw: bytes) -> CompletionsRequest:
    """Read a request; Refused when it is malformed or asks for what is not available."""
    body = read_object(raw)
    refuse_fields(body, _UNSUPPORTED)
    model = model_of(body)
    prompts = inputs_of(body.get("prompt"))
    if prompts is None:
        raise invalid("prompt", "text, a list of texts, token ids, or a list of lists of token ids")
    suffix = body.get("suffix")
    if suffix is not None and not isinstance(suffix, str):
        raise invalid("suffix", "text")
    answers = max(whole(body, name, CHOICES_MAX) or 1 for name in ("n", "best_of"))
    asked = asked_cap(body, least=0)  # 0 with `echo` is how the prompt's own logprobs are asked for
    return CompletionsRequest(
        body=body,
        model=model,
        stream=flag(body, "stream"),
        asked_usage=asked_usage(body),
        prompts=prompts,
        suffix=suffix or "",
        choices=len(prompts) * answers,
        output_tokens_asked=OUTPUT_TOKENS_DEFAULT if asked is None else asked,
        echo=flag(body, "echo"),
        service_tier=service_tier_of(body),
    )
