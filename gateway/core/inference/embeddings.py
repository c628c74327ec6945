"""What the gateway knows of an embedding: texts or token ids in, numbers out, and no text written.

Only the prompt costs. The numbers pass as upstream wrote them, floats or base64; an answer may have
a hundred megabytes of them, so they are never read. Any field unknown here goes through.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from gateway.core.inference.chat_words import broken_chunk
from gateway.core.inference.fields import invalid, model_of, refuse_fields
from gateway.core.inference.request import Closing, Count, Sending, StreamEvent
from gateway.core.json_body import encode, read_object
from gateway.core.models import Model
from gateway.core.prompt.inputs import Input, count_inputs, inputs_of
from gateway.core.refusal import Case
from gateway.core.sse import SseEvent
from gateway.core.usage import Usage, usage_of


class EmbeddingsAnswer(msgspec.Struct, frozen=True, gc=False):
    """What of an answer matters here; everything else in it is passed over unread."""

    wire_usage: Any = msgspec.field(default=None, name="usage")

    @property
    def id(self) -> str | None:
        return None

    @property
    def usage(self) -> Usage | None:
        """OpenAI reports the prompt and a total; nothing was written, so the output is 0."""
        if not isinstance(self.wire_usage, dict):
            return None
        return usage_of(self.wire_usage.get("prompt_tokens"), 0, 0, 0)

    @property
    def service_tier(self) -> str | None:
        return None

    @property
    def is_done(self) -> bool:
        return False

    @property
    def is_error(self) -> bool:
        return False

    def texts(self) -> Sequence[str]:
        return ()

    def only_text(self, tier_so_far: str | None) -> str | None:
        return None


_decoder = msgspec.json.Decoder(EmbeddingsAnswer)
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_USAGE_KEY: Final = b'"usage"'
_UNSUPPORTED: Final = frozenset({"stream"})


class EmbeddingsRequest(msgspec.Struct, frozen=True, gc=False):
    """A request as judged. `inputs`: each of them is embedded."""

    body: Mapping[str, Any]
    model: str
    inputs: Sequence[Input]

    @property
    def stream(self) -> bool:
        return False

    @property
    def service_tier(self) -> str | None:
        return None

    @property
    def choices(self) -> int:
        return 1

    @property
    def text_only(self) -> bool:
        return True

    def count_prompt(self, model: Model, count: Count) -> int:
        return count_inputs(self.inputs, count)

    def output_bounds(self, model: Model) -> tuple[int, int]:
        return 0, 0

    def upstream_body(self, sending: Sending) -> bytes:
        return encode({**self.body, "model": sending.model})

    def read_whole(self, raw: bytes) -> EmbeddingsAnswer:
        return read_embeddings(raw)

    def read_event(self, event: SseEvent) -> EmbeddingsAnswer:
        """No stream was asked for; one that comes all the same is relayed."""
        return read_embeddings(event.data or b"")

    def hides(self, event: StreamEvent) -> bool:
        return False

    def closing_events(self, closing: Closing) -> bytes:
        return b""

    def broken_event(self, case: Case, message: str, events: int) -> bytes:
        return broken_chunk(case, message)


def judge_embeddings(raw: bytes) -> EmbeddingsRequest:
    """Read a request; Refused when it is malformed."""
    body = read_object(raw)
    refuse_fields(body, _UNSUPPORTED)
    model = model_of(body)
    inputs = inputs_of(body.get("input"))
    if inputs is None:
        raise invalid("input", "text, a list of texts, token ids, or a list of lists of token ids")
    return EmbeddingsRequest(body, model, inputs)


def read_embeddings(raw: bytes) -> EmbeddingsAnswer:
    """The body of an answer. Never raises.

    OpenAI writes the usage last. Where what follows the last such name closes one object and no
    more, that is the answer itself, and the numbers before it need not even be passed over: for the
    135 MB of 2,048 long vectors that would take the loop a third of a second.
    """
    found = raw.rfind(_USAGE_KEY)
    if found > 0:
        try:
            return _decoder.decode(b"{" + raw[found:])
        except _UNREADABLE:
            pass
    try:
        return _decoder.decode(raw)
    except _UNREADABLE:
        return EmbeddingsAnswer()
