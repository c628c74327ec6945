"""Tokens counted with tiktoken, on the vocabularies that ship in the package.

`tiktoken.Encoding` is built directly from our files: `tiktoken.get_encoding` would want a cache
folder or the network. Text is counted in pieces of 8,192 characters. That bounds hostile text (a
whole megabyte of spaces makes tiktoken raise PanicException, a BaseException that `except
Exception` lets through; one of `a` takes 6 times as long) and costs at most 0.06 % more tokens.
tiktoken releases the interpreter lock, so a count in a thread leaves the event loop running.
"""

from __future__ import annotations

from importlib.resources import files
from threading import Lock

import tiktoken

from gateway.adapters.tokenizer.published import PUBLISHED
from gateway.adapters.tokenizer.vocabulary import unpack_ranks
from gateway.ports.tokenizer import UnknownEncoding

PIECE_CHARS = 8_192


class BpeTokenizer:
    """Fulfils `gateway.ports.tokenizer.Tokenizer`; keeps each vocabulary once it was asked for."""

    __slots__ = ("_encodings", "_loading")

    def __init__(self) -> None:
        self._encodings: dict[str, tiktoken.Encoding] = {}
        self._loading = Lock()

    def load(self, encoding: str) -> None:
        self._encoding(encoding)

    def count(self, text: str, encoding: str) -> int:
        encode = self._encoding(encoding).encode_ordinary
        if len(text) <= PIECE_CHARS:
            return len(encode(text))
        starts = range(0, len(text), PIECE_CHARS)
        return sum(len(encode(text[start : start + PIECE_CHARS])) for start in starts)

    def _encoding(self, name: str) -> tiktoken.Encoding:
        encoding = self._encodings.get(name)
        if encoding is not None:
            return encoding
        if name not in PUBLISHED:
            raise UnknownEncoding(f"no vocabulary {name!r}; there are {', '.join(PUBLISHED)}")
        with self._loading:  # two threads at the first request would each take 100 MB
            if name not in self._encodings:
                self._encodings[name] = _read_encoding(name)
            return self._encodings[name]


def _read_encoding(name: str) -> tiktoken.Encoding:
    published = PUBLISHED[name]
    packed = files("gateway.adapters.tokenizer").joinpath("vocab", f"{name}.gz").read_bytes()
    return tiktoken.Encoding(
        name,
        pat_str=published.pattern,
        mergeable_ranks=unpack_ranks(packed),
        special_tokens=dict(published.special_tokens),
    )
