"""A stream as it is watched on its way: what the client may see, and what is known so far.

Bytes go in as they arrive and come out unchanged, but for the usage chunk that the client did not
ask for. Text is counted as it passes and then forgotten, so a long stream takes no more memory than
a short one. Nothing here reads or writes; whoever relays decides when it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.core.answer import Usage, believe, hide_chunk, read_chunk
from gateway.core.sse import SseEvent, SseReader

# Text waits until there is this much of it: a tokenizer costs less on one long text than on many
# short ones, and 8 KB for each of 5,000 streams are 40 MB.
_COUNT_CHARS = 8192


class ObservedStream:
    """One stream. `count` gives a text's tokens in the model's vocabulary."""

    def __init__(self, client_asked_usage: bool, count: Callable[[str], int]) -> None:
        self._client_asked_usage = client_asked_usage
        self._count = count
        self._reader = SseReader()
        self._reported: Usage | None = None
        self._waiting: list[str] = []
        self._waiting_chars = 0
        self._counted_tokens = 0
        self._wrote_text = False
        self.is_done = False
        self.has_error = False
        self.completion_id: str | None = None
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
        return self._pass(self._reader.feed(data))

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
        chunk = read_chunk(event.data)
        self.is_done = self.is_done or chunk.is_done
        self.has_error = self.has_error or chunk.is_error or event.name == "error"
        self.completion_id = self.completion_id or chunk.id
        self.service_tier = chunk.service_tier or self.service_tier
        if chunk.wire_usage is not None:
            self._reported = chunk.usage or self._reported
        for text in chunk.texts():
            self._wrote_text = True
            self._waiting.append(text)
            self._waiting_chars += len(text)
        if self._waiting_chars >= _COUNT_CHARS:
            self.written_tokens()
        return not hide_chunk(chunk, self._client_asked_usage)
