"""The bytes of a chat: a completion object, or the events of a stream.

Field by field what OpenAI sends. Everything that stays the same within an answer is encoded once;
a chunk is then a concatenation, because a replay sends hundreds of thousands of them.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import msgspec

from gateway.standin.azure import FILTERED, prompt_filtered
from gateway.standin.chat_ask import ChatAsk, read_chat
from gateway.standin.directives import Directives
from gateway.standin.errors import OVERLOAD_TEXT, ErrorAnswer
from gateway.standin.face import Face
from gateway.standin.output import Part
from gateway.standin.reply import Setting, Whole, halved_at
from gateway.standin.usage import Report
from gateway.standin.writing import text

DONE = b"data: [DONE]\n\n"
STREAM_ERROR = b"data: %b\n\n" % ErrorAnswer(500, OVERLOAD_TEXT, "server_error").body()

_SOUND_KEPT_S = 3_600  # as long as OpenAI keeps it for a next turn


def chat(body: dict[str, Any], setting: Setting) -> ChatReply:
    """The reply to `POST /v1/chat/completions`."""
    return ChatReply(read_chat(body, setting), setting)


class ChatReply:
    """One answer: its id, birth, model and service tier are the same in all that it sends."""

    def __init__(self, ask: ChatAsk, setting: Setting) -> None:
        self._ask = ask
        self._setting = setting
        self._azure = setting.face.is_azure
        self._audible_thoughts = setting.face is Face.COMPATIBLE and bool(self._thoughts)
        told = ask.include_usage and not ask.report.left_out
        self.tells_usage = told and setting.face is not Face.COMPATIBLE
        head = msgspec.json.encode(self._head("chat.completion.chunk"))
        self._event_head = b"data: " + head.removesuffix(b"}") + b',"choices":['
        self._event_tail = b'],"usage":null}\n\n' if self.tells_usage else b"]}\n\n"
        self._choice_heads = [
            self._event_head + b'{"index":%d,"delta":{' % index for index in range(ask.choices)
        ]

    @property
    def directives(self) -> Directives:
        return self._ask.directives

    @property
    def report(self) -> Report:
        return self._ask.report

    @property
    def hidden_tokens(self) -> int:
        return self._ask.output.reasoning_tokens * self._ask.choices

    def events(self) -> ChatReply | None:
        return self if self._ask.stream else None

    def whole(self) -> Whole:
        answer = self._head("chat.completion")
        if self._azure:
            answer["prompt_filter_results"] = prompt_filtered()
        answer["choices"] = [self._choice(index) for index in range(self._ask.choices)]
        if not self._ask.report.left_out:
            answer["usage"] = self._usage()
        part = self._ask.output.parts[0]
        mark = b'"%b":"' % (b"arguments" if part.function else self._ask.voice.encode())
        return halved_at(msgspec.json.encode(answer), mark, part.half)

    def opening(self) -> bytes:
        """The events that open the choices."""
        content = b'""' if self._ask.voice == "content" and not self._ask.output.calls else b"null"
        delta = b'"role":"assistant","content":%b,"refusal":null' % content
        opened = [self._event(index, delta, b"null") for index in range(self._ask.choices)]
        if self._azure:
            opened.insert(0, self._prompt_filtered())
        if self._audible_thoughts:
            thoughts = b'"reasoning_content":' + msgspec.json.encode(self._thoughts)
            opened += [self._event(index, thoughts, b"null") for index in range(self._ask.choices)]
        return b"".join(opened)

    def chunks(self, chunk_tokens: int) -> Iterator[tuple[bytes, int]]:
        """The events with text; the choices take turns."""
        endless = self._ask.directives.never_ends
        for at, part in enumerate(self._ask.output.parts):
            opening = True
            for written, tokens in part.chunks(chunk_tokens, endless):
                for index in range(self._ask.choices):
                    delta = self._delta(part, index, at, written, opening)
                    yield self._event(index, delta, b"null"), tokens
                opening = False

    def closing(self) -> bytes:
        """The events that end the choices, the usage if wanted, and the end mark."""
        reason = b'"%b"' % self._ask.finish_reason.encode()
        ended = [self._event(index, b"", reason) for index in range(self._ask.choices)]
        if self.tells_usage:
            figures = msgspec.json.encode(self._usage())
            ended.append(self._event_head + b'],"usage":' + figures + b"}\n\n")
        return b"".join([*ended, DONE])

    def broken(self) -> bytes:
        return STREAM_ERROR

    @property
    def _thoughts(self) -> str:
        return text(0, self._ask.output.reasoning_tokens)

    def _choice(self, index: int) -> dict[str, Any]:
        choice: dict[str, Any] = {
            "index": index,
            "message": self._message(index),
            "logprobs": None,
            "finish_reason": self._ask.finish_reason,
        }
        if self._azure:
            choice["content_filter_results"] = FILTERED
        return choice

    def _message(self, index: int) -> dict[str, Any]:
        output = self._ask.output
        message: dict[str, Any] = {
            "role": "assistant",
            "content": None,
            "refusal": None,
            "annotations": [],
        }
        if self._audible_thoughts:
            message["reasoning_content"] = self._thoughts
        if output.calls:
            message["tool_calls"] = [
                self._call(index, at, part) for at, part in enumerate(output.parts)
            ]
        elif self._ask.voice == "audio":
            message["audio"] = {**self._sound(index, output.parts[0].text), **self._kept(index)}
        else:
            message[self._ask.voice] = output.parts[0].text
        return message

    def _delta(self, part: Part, index: int, at: int, written: str, opening: bool) -> bytes:
        if part.function is not None:
            call: dict[str, Any] = {"index": at, "function": {"arguments": written}}
            if opening:
                call = {"index": at, **self._call(index, at, part)}
                call["function"]["arguments"] = written
            return b'"tool_calls":[%b]' % msgspec.json.encode(call)
        if self._ask.voice == "audio":
            return b'"audio":' + msgspec.json.encode(self._sound(index, written))
        return b'"%b":%b' % (self._ask.voice.encode(), msgspec.json.encode(written))

    def _call(self, index: int, at: int, part: Part) -> dict[str, Any]:
        return {
            "id": f"call_{self._setting.id}{index}x{at}",
            "type": "function",
            "function": {"name": part.function, "arguments": part.text},
        }

    def _sound(self, index: int, transcript: str) -> dict[str, Any]:
        """Silence, one sample for each character that is spoken."""
        data = base64.b64encode(bytes(2 * len(transcript))).decode()
        return {"id": self._sound_id(index), "data": data, "transcript": transcript}

    def _kept(self, index: int) -> dict[str, Any]:
        return {"expires_at": self._setting.created_s + _SOUND_KEPT_S}

    def _sound_id(self, index: int) -> str:
        return f"audio_{self._setting.id}{index}"

    def _prompt_filtered(self) -> bytes:
        """What Azure sends before everything: a chunk of nobody, without choices."""
        first = {"choices": [], "created": 0, "id": "", "model": "", "object": ""}
        chunk = {**first, "prompt_filter_results": prompt_filtered()}
        return b"data: %b\n\n" % msgspec.json.encode(chunk)

    def _event(self, index: int, delta: bytes, finish_reason: bytes) -> bytes:
        ending = b'},"logprobs":null,"finish_reason":' + finish_reason + b"}"
        return self._choice_heads[index] + delta + ending + self._event_tail

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{self._setting.id}",
            "object": kind,
            "created": self._setting.created_s,
            "model": self._ask.model,
            "service_tier": self._ask.service_tier,
            "system_fingerprint": None,
        }

    def _usage(self) -> dict[str, Any]:
        return self._ask.report.shown(self._ask.report.told.of_chat())
