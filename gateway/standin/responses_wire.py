"""The bytes of a response: the object, or the events of a stream.

Each event carries its name on an `event:` line and counts up `sequence_number`; there is no
[DONE]. The shapes are those of the official Python client 3.54.0, `openai.types.responses`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from gateway.standin.directives import Directives
from gateway.standin.errors import OVERLOAD_TEXT
from gateway.standin.reply import Setting, Whole, halved_at
from gateway.standin.response_items import Item, items_of
from gateway.standin.response_object import ResponseObject
from gateway.standin.responses_ask import ResponsesAsk, read_response
from gateway.standin.usage import Report

_SERVER_ERROR = {"code": "server_error", "message": OVERLOAD_TEXT}


def responses(body: dict[str, Any], setting: Setting) -> ResponsesReply:
    """The reply to `POST /v1/responses`."""
    return ResponsesReply(read_response(body, setting), setting)


class ResponsesReply:
    """One answer; a stream of it is written once."""

    def __init__(self, ask: ResponsesAsk, setting: Setting) -> None:
        self._ask = ask
        self._object = ResponseObject(ask, setting)
        self._thoughts, self._items = items_of(ask, setting)
        self._sequence = 0
        # What follows from what was sent, but goes out only with the next text or the end.
        self._due = b""
        self.tells_usage = not ask.report.left_out

    @property
    def directives(self) -> Directives:
        return self._ask.directives

    @property
    def report(self) -> Report:
        return self._ask.report

    @property
    def hidden_tokens(self) -> int:
        return self._ask.output.reasoning_tokens

    def events(self) -> ResponsesReply | None:
        return self if self._ask.stream else None

    def whole(self) -> Whole:
        answer = self._object.ended([item.done() for item in self._all()])
        item = self._items[0]
        return halved_at(msgspec.json.encode(answer), item.mark, item.part.half)

    def opening(self) -> bytes:
        """The response as it begins, and all its thoughts."""
        self._tell("response.created", response=self._object.begun())
        self._tell("response.in_progress", response=self._object.begun())
        if self._thoughts is not None:
            self._add(self._thoughts, 0)
            for kind, fields in self._thoughts.summary_events():
                self._tell(kind, **self._place(self._thoughts, 0), **fields)
            self._tell("response.output_item.done", output_index=0, item=self._thoughts.done())
        return self._taken()

    def chunks(self, chunk_tokens: int) -> Iterator[tuple[bytes, int]]:
        """The texts and the arguments, item by item."""
        endless = self._ask.directives.never_ends
        for at, item in enumerate(self._items, start=int(self._thoughts is not None)):
            self._add(item, at)
            for kind, fields in item.opening_events():
                self._tell(kind, **self._place(item, at), **fields)
            for written, tokens in item.part.chunks(chunk_tokens, endless):
                delta = item.delta(written)
                if self._ask.obfuscated:
                    delta["obfuscation"] = "x" * (-len(written) % 16)
                self._tell(item.delta_kind, **self._place(item, at), **delta)
                yield self._taken(), tokens
            for kind, fields in item.closing_events():
                self._tell(kind, **self._place(item, at), **fields)
            self._tell("response.output_item.done", output_index=at, item=item.done())

    def closing(self) -> bytes:
        ended = self._object.ended([item.done() for item in self._all()])
        self._tell(f"response.{ended['status']}", response=ended)
        if self._ask.directives.postscript:
            self._tell("response.rate_limits.updated", rate_limits=[])
        return self._taken()

    def broken(self) -> bytes:
        """An error event in the shape that OpenAI sends, and the failed response.

        With `fail_after` the response alone.
        """
        self._due = b""
        if self._ask.directives.fail_after is None:
            error = {"type": "server_error", **_SERVER_ERROR, "param": None}
            self._tell("error", error=error)
        self._tell("response.failed", response=self._object.failed(_SERVER_ERROR))
        return self._taken()

    def _all(self) -> list[Item]:
        first: list[Item] = [] if self._thoughts is None else [self._thoughts]
        return [*first, *self._items]

    def _add(self, item: Item, at: int) -> None:
        self._tell("response.output_item.added", output_index=at, item=item.begun())

    def _place(self, item: Item, at: int) -> dict[str, Any]:
        return {"item_id": item.id, "output_index": at}

    def _tell(self, kind: str, **fields: Any) -> None:
        event = {"type": kind, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        self._due += b"event: %b\ndata: %b\n\n" % (kind.encode(), msgspec.json.encode(event))

    def _taken(self) -> bytes:
        taken, self._due = self._due, b""
        return taken
