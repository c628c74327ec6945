"""What the gateway writes into a stream is read by OpenAI's own client as it is meant."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import openai
import pytest
from openai.types.responses import ResponseIncompleteEvent, ResponseTextDeltaEvent

from gateway.core.inference.request import Closing
from gateway.core.inference.responses_answer import read_event
from gateway.core.inference.responses_words import broken_event, closing_event
from gateway.core.refusal import Case
from gateway.core.rid import make_rid
from gateway.core.sse import SseReader
from tests.fakes.responses_stream import said

RID = make_rid(1767874435_123, bytes(10))
BEGUN = said("Hello")[:5]

Streams = Callable[[bytes], openai.Stream[Any]]


@pytest.fixture
def streams() -> Iterator[Streams]:
    """Has a server send the bytes, and the official client stream a response from it."""
    sent: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            self.wfile.write(sent[-1])

        def log_message(self, format: str, *args: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/v1"
        with openai.OpenAI(base_url=url, api_key="key", max_retries=0) as client:

            def stream(raw: bytes) -> openai.Stream[Any]:
                sent.append(raw)
                return client.responses.create(model="gpt-4o-mini", input="Hi", stream=True)

            yield stream
        server.shutdown()


def test_a_broken_stream_raises_in_the_client(streams: Streams) -> None:
    words = broken_event(Case.UPSTREAM_TIMEOUT, "It went silent.", len(BEGUN))
    got = []
    with pytest.raises(openai.APIError, match=r"It went silent\.") as caught:
        got += list(streams(b"".join(BEGUN) + words))
    assert caught.value.code == "upstream_timeout"
    assert caught.value.type == "server_error"


def test_a_broken_stream_is_told_in_both_of_openai_s_forms() -> None:
    (found,) = SseReader().feed(broken_event(Case.UPSTREAM_UNAVAILABLE, "It broke off.", 7))
    flat = {"code": "upstream_unavailable", "message": "It broke off.", "param": None}
    assert json.loads(found.data or b"") == {
        "type": "error",
        "sequence_number": 7,
        **flat,
        "error": {"type": "server_error", **flat},
    }
    assert found.name == "error"
    assert read_event(found.data or b"", found.name).is_error


def test_an_ended_stream_is_one_that_reached_its_cap(streams: Streams) -> None:
    closing = closing_event(Closing(RID, "resp_1", "gpt-4o-mini", 1, len(BEGUN)))
    *_, spoken, end = streams(b"".join(BEGUN) + closing)
    assert isinstance(spoken, ResponseTextDeltaEvent)
    assert isinstance(end, ResponseIncompleteEvent)
    assert end.sequence_number == spoken.sequence_number + 1
    assert end.response.id == "resp_1"
    assert end.response.status == "incomplete"
    assert end.response.incomplete_details is not None
    assert end.response.incomplete_details.reason == "max_output_tokens"
    assert end.response.model == "gpt-4o-mini"
    assert end.response.created_at == 1767874435
    (found,) = SseReader().feed(closing)
    ResponseIncompleteEvent.model_validate_json(found.data or b"")
    assert read_event(found.data or b"", found.name).is_done


def test_a_stream_that_never_told_its_id_gets_the_call_s() -> None:
    (found,) = SseReader().feed(closing_event(Closing(RID, None, "gpt-4o-mini", 1, 0)))
    assert json.loads(found.data or b"")["response"]["id"] == f"resp_{RID}"
