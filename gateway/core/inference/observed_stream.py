"""A stream as it is watched on its way: what the client may see, and what is known so far.

Bytes go in as they arrive and come out unchanged, but for an event that the client did not ask for.
Text is counted as it passes and then forgotten, so a long stream takes no more memory than a short
one. Nothing here reads or writes; whoever relays decides when it ends.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.inference.request import Count, InferenceRequest
from gateway.core.sse import SseEvent, SseReader
from gateway.core.usage import Usage, believe

# Text waits until there is this much of it: a tokenizer costs less on one long text than on many
# short ones, and 8 KB for each of 5,000 streams are 40 MB.
_COUNT_CHARS = 8192
# A piece of a word takes 50 bytes more than its letters, so this many become one.
_PIECES_MAX = 64


class ObservedStream:
    """The stream that answers `request`. `events`: how many with data have passed."""

    __slots__ = (
        "_count",
        "_counted_tokens",
        "_reader",
        "_reported",
        "_request",
        "_waiting",
        "_waiting_chars",
        "_wrote_text",
        "answer_id",
        "events",
        "has_error",
        "is_done",
        "service_tier",
    )

    def __init__(self, request: InferenceRequest, count: Count) -> None:
        self._request = request
        self._count = count
        self._reader = SseReader()
        self._reported: Usage | None = None
        self._waiting: list[str] = []
        self._waiting_chars = 0
        self._counted_tokens = 0
        self._wrote_text = False
        self.is_done = False
        self.has_error = False
        self.events = 0
        self.answer_id: str | None = None
        self.service_tier: str | None = None

    @property
    def usage(self) -> Usage | None:
        """What upstream reported, if it did and it can be believed."""
        return believe(self._reported, wrote_text=self._wrote_text)

    def written_tokens(self) -> int:
        """Tokens of all text that has passed so far, counted here."""
        if self._waiting:
            self._counted_tokens += self._count("".join(self._waiting))
            self._waiting, self._waiting_chars = [], 0
        return self._counted_tokens

    def feed(self, data: bytes) -> bytes:
        """Take bytes from upstream; those of whole events that the client may see. SseTooLarge."""
        event = self._reader.only_event(data)
        if event is None:
            return self._pass(self._reader.feed(data))
        return data if self._note(event) else b""

    def finish(self) -> bytes:
        """Upstream has ended: what it left unterminated, if the client may see it."""
        rest = self._reader.flush()
        return self._pass([rest] if rest else [])

    def _pass(self, events: Sequence[SseEvent]) -> bytes:
        return b"".join([event.raw for event in events if self._note(event)])

    def _note(self, event: SseEvent) -> bool:
        """Learn from an event; whether the client may see it."""
        if event.data is None:  # a comment, which some upstreams send to keep a stream open
            return True
        said = self._request.read_event(event)
        self.events += 1
        text = said.only_text(self.service_tier)
        if text and self.answer_id is not None:
            self._take(text)
            return True
        self.is_done = self.is_done or said.is_done
        self.has_error = self.has_error or said.is_error
        self.answer_id = self.answer_id or said.id
        self.service_tier = said.service_tier or self.service_tier
        self._reported = said.usage or self._reported
        # The last event may tell the whole answer once more; it counts where nothing came before.
        for text in () if said.is_done and self._wrote_text else said.texts():
            self._take(text)
        return not self._request.hides(said)

    def _take(self, text: str) -> None:
        self._wrote_text = True
        self._waiting.append(text)
        self._waiting_chars += len(text)
        if self._waiting_chars >= _COUNT_CHARS:
            self.written_tokens()
        elif len(self._waiting) >= _PIECES_MAX:
            self._waiting = ["".join(self._waiting)]
