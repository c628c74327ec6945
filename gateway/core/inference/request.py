"""What every inference API has in common, as those who run a call see it.

A request was judged when it exists: it can be measured, encoded for an upstream, and it can read
what comes back. Its body is this gateway's own copy. Nothing here is about one API.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import msgspec

from gateway.core.models import Model
from gateway.core.refusal import Case
from gateway.core.sse import SseEvent
from gateway.core.usage import Usage

Count = Callable[[str], int]
"""Tokens of a text in the vocabulary of a model."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How an upstream differs from OpenAI's own servers.

    `stream_usage`: it reports usage in streams when asked. `cap_name`: what it calls the output cap
    of a chat. `knows_store`: it takes `store`, which is then sent as false.
    """

    stream_usage: bool = True
    cap_name: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    knows_store: bool = True


class Sending(msgspec.Struct, frozen=True, gc=False):
    """What is put into a body on its way out: the model's name there, and the cap as held."""

    model: str
    output_tokens: int
    dialect: Dialect


@dataclass(frozen=True, slots=True)
class Closing:
    """A stream that the gateway ends itself: whose it is, and how far it came."""

    rid: str
    answer_id: str | None
    model: str
    choices: int
    events: int


class WholeAnswer(Protocol):
    """An answer that is not a stream. `usage` is None when it tells none that can be believed."""

    @property
    def usage(self) -> Usage | None: ...

    @property
    def service_tier(self) -> str | None: ...

    def texts(self) -> Sequence[str]:
        """The pieces of text that the model wrote, for counting."""
        ...


class StreamEvent(Protocol):
    """One event of a stream. `usage` is what it reports, if it does; `is_done`: the last event,
    which may repeat the texts of those before it."""

    @property
    def id(self) -> str | None: ...

    @property
    def usage(self) -> Usage | None: ...

    @property
    def service_tier(self) -> str | None: ...

    @property
    def is_done(self) -> bool: ...

    @property
    def is_error(self) -> bool: ...

    def texts(self) -> Sequence[str]:
        """The pieces of text in it that the model wrote, for counting."""
        ...

    def only_text(self, tier_so_far: str | None) -> str | None:
        """The text of an event with one piece of it and nothing new beside, as nearly all events of
        a stream are: no usage, no end, no error, no other service tier. None for any other."""
        ...


class InferenceRequest(Protocol):
    """A request of any API. `choices`: how many answers may take the output cap, each.

    `model` is the name that was called; `text_only`: its prompt has no more tokens than bytes.
    `service_tier` is the one that is asked for, None when the request leaves it to the upstream.
    """

    @property
    def model(self) -> str: ...

    @property
    def stream(self) -> bool: ...

    @property
    def choices(self) -> int: ...

    @property
    def service_tier(self) -> str | None: ...

    @property
    def text_only(self) -> bool: ...

    def count_prompt(self, model: Model, count: Count) -> int:
        """Tokens of the prompt, as OpenAI will count them. Linear in the request, but may be long:
        a large one is counted in a thread. Refused when it has what this model cannot take."""
        ...

    def output_bounds(self, model: Model) -> tuple[int, int]:
        """(wanted, least) output tokens a choice: between them the cap may be lowered to fit."""
        ...

    def upstream_body(self, sending: Sending) -> bytes:
        """The body to send: what was judged, with the cap as held and usage asked for."""
        ...

    def read_whole(self, raw: bytes) -> WholeAnswer:
        """What an answer says. Never raises, whatever the bytes are."""
        ...

    def read_event(self, event: SseEvent) -> StreamEvent:
        """What an event with data says. Never raises, whatever the bytes are."""
        ...

    def hides(self, event: StreamEvent) -> bool:
        """True for an event that was asked for by the gateway and not by the client."""
        ...

    def closing_events(self, closing: Closing) -> bytes:
        """Ends a stream whose hold is over as a model ends one that reached its cap."""
        ...

    def broken_event(self, case: Case, message: str, events: int) -> bytes:
        """Tells a client that its stream was cut behind the gateway: SDKs raise it as an error."""
        ...
