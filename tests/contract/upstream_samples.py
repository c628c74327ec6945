"""Answers as servers send them, good and bad, byte for byte."""

from __future__ import annotations

from dataclasses import dataclass

from tests.contract.upstream_server import bare, http

CHUNKED = "Transfer-Encoding: chunked"


@dataclass(frozen=True)
class Good:
    """An answer, what is to be read from it, and whether its connection may serve another call.

    With `ends` the answer's end is the connection's.
    """

    raw: bytes
    body: bytes
    is_reusable: bool = True
    ends: bool = False
    status: int = 200


GOOD = {
    "length": Good(http(b'{"a": 1}'), b'{"a": 1}'),
    "no body": Good(http(b""), b""),
    "error": Good(http(b"no", status="400 Bad Request"), b"no", status=400),
    "no reason": Good(b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", b"ok"),
    "spaces": Good(b"HTTP/1.1 200 OK\r\ncontent-length:  2 \r\nX:\r\nY:\t z\r\n\r\nok", b"ok"),
    "chunks": Good(bare(CHUNKED) + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", b"abcde"),
    "no chunk": Good(bare(CHUNKED) + b"0\r\n\r\n", b""),
    "capital chunks": Good(
        bare("TRANSFER-ENCODING: Chunked") + b"0a\r\n" + b"x" * 10 + b"\r\n000\r\n\r\n", b"x" * 10
    ),
    "extensions": Good(bare(CHUNKED) + b'3;a=b;c="d"\r\nabc\r\n0;x\r\n\r\n', b"abc"),
    "trailers": Good(bare(CHUNKED) + b"3\r\nabc\r\n0\r\nExpires: 0\r\nX: y\r\n\r\n", b"abc"),
    "body like a head": Good(http(b"HTTP/1.1 200 OK\r\n\r\n"), b"HTTP/1.1 200 OK\r\n\r\n"),
    "100": Good(bare(status="100 Continue") + http(b"ok"), b"ok"),
    "102, 103": Good(
        bare(status="102 Processing") + bare("Link: </x>", status="103 Early Hints") + http(b"ok"),
        b"ok",
    ),
    "upgrade offered": Good(http(b"ok", "Upgrade: h2c", "Connection: Upgrade"), b"ok"),
    "1.0": Good(bare("Content-Length: 2", version="1.0") + b"ok", b"ok", is_reusable=False),
    "1.0 kept": Good(
        bare("Content-Length: 2", "Connection: keep-alive", version="1.0") + b"ok", b"ok"
    ),
    "close": Good(http(b"ok", "Connection: close"), b"ok", is_reusable=False),
    "close among others": Good(http(b"ok", "Connection: x, close"), b"ok", is_reusable=False),
    "close, chunks": Good(
        bare(CHUNKED, "Connection: close") + b"2\r\nok\r\n0\r\n\r\n", b"ok", is_reusable=False
    ),
    "to the end": Good(bare() + b"all of it", b"all of it", is_reusable=False, ends=True),
    "to the end, nothing": Good(bare(), b"", is_reusable=False, ends=True),
    "1.0 to the end": Good(bare(version="1.0") + b"all", b"all", is_reusable=False, ends=True),
    "204": Good(bare(status="204 No Content"), b"", is_reusable=False, status=204),
}

# What follows a whole answer: it does no harm to that answer, and ends the connection.
JUNK = {
    "a byte": b"x",
    "an empty line": b"\r\n",
    "empty lines": b"\r\n\r\n\r\n",
    "a line feed": b"\n",
    "nul": b"\0",
    "half an answer": b"HTTP/1.1 200 OK\r\nContent-Le",
    "another answer": http(b"of another call"),
    "another in chunks": bare(CHUNKED) + b"1\r\nx\r\n0\r\n\r\n",
}


def _length(*headers: str) -> bytes:
    return bare("Content-Length: 2", *headers) + b"ok"


def _chunks(body: bytes) -> bytes:
    return bare(CHUNKED) + body + b"\r\n0\r\n\r\n"


# Heads that have to be refused as they are.
BAD_HEADS = {
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "a page without a head": b"<html>\r\n\r\n</html>",
    "an empty line first": b"\r\n" + http(),
    "a space first": b" " + http(),
    "HTTP/2": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.2": b"HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.10": b"HTTP/1.10 200 OK\r\nContent-Length: 0\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\nContent-Length: 0\r\n\r\n",
    "status of two digits": http(status="99 What"),
    "status of four digits": http(status="2000 OK"),
    "status 600": http(status="600 What"),
    "status 000": http(status="000 What"),
    "101": bare("Upgrade: websocket", "Connection: Upgrade", status="101 Switching Protocols"),
    "a body in 1xx": bare("Content-Length: 2", status="103 Early Hints") + b"ok",
    "1xx without end": bare(status="100 Continue") * 9 + http(),
    "both lengths": bare("Content-Length: 2", CHUNKED) + b"2\r\nok\r\n0\r\n\r\n",
    "both lengths, turned": bare(CHUNKED, "Content-Length: 2") + b"2\r\nok\r\n0\r\n\r\n",
    "two lengths": _length("Content-Length: 3"),
    "two lengths in one": bare("Content-Length: 2, 3") + b"ok",
    "a length below nothing": bare("Content-Length: -1"),
    "a length with a sign": bare("Content-Length: +2") + b"ok",
    "a length in hex": bare("Content-Length: 0x2") + b"ok",
    "a length of nothing": bare("Content-Length:") + b"ok",
    "a length beyond 64 bits": bare("Content-Length: 18446744073709551616") + b"ok",
    "a coding we do not know": bare("Transfer-Encoding: gzip") + b"ok",
    "chunks within gzip": bare("Transfer-Encoding: gzip, chunked") + b"2\r\nok\r\n0\r\n\r\n",
    "gzip within chunks": bare("Transfer-Encoding: chunked, gzip") + b"2\r\nok\r\n0\r\n\r\n",
    "chunks twice": bare(CHUNKED, CHUNKED) + b"2\r\nok\r\n0\r\n\r\n",
    "a name that is nearly chunked": bare("Transfer-Encoding: xchunked") + b"2\r\nok\r\n0\r\n\r\n",
    "a folded line": _length("X: a\r\n b"),
    "a folded length": bare("Content-Length:\r\n 2") + b"ok",
    "a bare line feed": _length("X: a\nY: b"),
    "bare line feeds only": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok\r\n\r\n",
    "a bare carriage return": _length("X: a\rY: b"),
    "nul in a value": _length("X: a\0b"),
    "nul in a name": _length("X\0: a"),
    "nul in the reason": http(status="200 O\0K"),
    "a control in a value": _length("X: a\x01b"),
    "a space before the colon": _length("X : a"),
    "a space before a name": _length(" X: a"),
    "no colon": _length("X"),
    "no name": _length(": a"),
    "too long a head": _length("X: " + "a" * 40_000),
    "too many headers": _length(*(f"X-{number}: a" for number in range(200))),
}

BAD_CHUNKS = {
    "no size": _chunks(b"\r\nok"),
    "a size with a sign": _chunks(b"+2\r\nok"),
    "a size below nothing": _chunks(b"-2\r\nok"),
    "a size in C": _chunks(b"0x2\r\nok"),
    "a space before the size": _chunks(b" 2\r\nok"),
    "a size beyond 64 bits": _chunks(b"10000000000000002\r\nok"),
    "more than the size": _chunks(b"2\r\noky"),
    "less than the size": _chunks(b"3\r\nok"),
    "a bare line feed after the size": _chunks(b"2\nok"),
    "a bare line feed in an extension": _chunks(b"2;a\nok"),
    "nul in an extension": _chunks(b"2;a\0\r\nok"),
    "a trailer without colon": bare(CHUNKED) + b"2\r\nok\r\n0\r\nX\r\n\r\n",
    "a folded trailer": bare(CHUNKED) + b"2\r\nok\r\n0\r\nX: a\r\n b\r\n\r\n",
    "another answer's head within": _chunks(http(b"of another call")),
    "a length among the trailers": bare(CHUNKED) + b"2\r\nok\r\n0\r\nContent-Length: 9\r\n\r\n",
}
