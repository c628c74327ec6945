"""The bytes that come after one request, read as one answer: its head, and its body in parts.

Each answer has a reader and a parser of its own, so nothing that one call received can reach
another. llhttp (by httptools) judges heads and takes chunks apart; what it lets pass although it is
not plain HTTP/1 is refused here. A doubt that comes after the end of an answer does not spoil the
answer, only the connection. It knows no socket and no time.
"""

from __future__ import annotations

import re

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from gateway.adapters.upstream.origin import READ_HEADERS, head_of
from gateway.ports.upstream import UpstreamBroke, UpstreamHead

HEAD_BYTES_MAX = 32 * 2**10
HEADERS_MAX = 128
# "Early hints" and the like before the answer proper; each has a head of its own.
INTERIM_MAX = 8
# Bytes of a chunked body that come without body: extensions, trailers, leading zeros of sizes.
FRAMING_BYTES_MAX = 64 * 2**10
_HEAD_END = b"\r\n\r\n"
_BEGINNING = b"HTTP/1."
# The headers that are read, with their values. Of a head that llhttp has let pass: each header is
# on a line of its own there, and no name is followed by a space.
_NAMES = "|".join(sorted({*READ_HEADERS, "content-length", "transfer-encoding"}))
_split_headers = re.compile(
    rf"\n({_NAMES}):[ \t]*([^\r]*[^\r \t]|)", re.ASCII | re.IGNORECASE
).split
# Of these, two of a kind would be a matter of taste; of Content-Length llhttp refuses a second.
_SINGLE = ("transfer-encoding", "content-encoding")
# What never has a body, whatever its head says; and is never an answer to what is asked here.
_BODILESS = (204, 304)


class ResponseReader:
    """Feed it what arrives, in pieces of any size. UpstreamBroke means: close the connection.

    `head` is there from `has_head` on. `parts` are what has come of the body; whoever takes them
    empties the list in place. `is_reusable` is the connection's, once `is_complete` is true.
    """

    __slots__ = (
        "_framing_bytes",
        "_interims",
        "_left",
        "_parser",
        "_partial",
        "has_head",
        "head",
        "is_complete",
        "is_reusable",
        "on_body",
        "parts",
    )
    head: UpstreamHead
    is_reusable: bool
    _left: int | None  # bytes; None is a body that ends with the connection
    _framing_bytes: int

    def __init__(self) -> None:
        self.has_head = False
        self.parts: list[bytes] = []
        self.on_body = self.parts.append  # the parser calls it, with no function between
        self.is_complete = False
        self._partial: bytearray | None = None
        self._interims = 0
        self._parser: HttpResponseParser | None = None  # while it is needed: it points back here

    def feed(self, data: bytes) -> None:
        """Take what arrived."""
        if self._parser is not None:
            self._feed_chunked(self._parser, data)
        elif self.has_head:
            self._feed_plain(data)
        else:
            self._feed_head(data)

    def end(self, *, in_order: bool) -> None:
        """The connection ended. Only a body without a length may end so, and only in order."""
        if not self.has_head or self._left is not None or not in_order:
            raise UpstreamBroke("the connection ended before the answer did")
        self.is_complete = True

    def _feed_head(self, data: bytes) -> None:
        partial = self._partial
        if partial is not None:
            seen = max(0, len(partial) - len(_HEAD_END) + 1)
            partial += data
            if partial.find(_HEAD_END, seen) < 0:
                self._keep_partial(partial)
                return
            data, self._partial = bytes(partial), None
        head, end, rest = data.partition(_HEAD_END)
        if not end:
            self._keep_partial(bytearray(data))
            return
        self._read_head(head)
        if rest:
            if self.is_complete:  # nobody asked for more
                self.is_reusable = False
            else:
                self.feed(rest)

    def _keep_partial(self, partial: bytearray) -> None:
        if len(partial) > HEAD_BYTES_MAX:
            raise UpstreamBroke(f"the answer's head is larger than {HEAD_BYTES_MAX} bytes")
        if not _BEGINNING.startswith(partial[: len(_BEGINNING)]):
            raise UpstreamBroke("the answer is not HTTP/1")
        self._partial = partial

    def _read_head(self, head: bytes) -> None:
        """Take a whole head, without its end: the answer's, or an interim one (1xx), to be passed
        over."""
        if len(head) > HEAD_BYTES_MAX:
            raise UpstreamBroke(f"the answer's head is larger than {HEAD_BYTES_MAX} bytes")
        if not head.startswith(_BEGINNING) or b"\0" in head:
            raise UpstreamBroke("the answer is not HTTP/1")
        if head.count(b"\n") > HEADERS_MAX:
            raise UpstreamBroke(f"the answer's head has more than {HEADERS_MAX} headers")
        self._parser = parser = HttpResponseParser(self)
        try:
            parser.feed_data(head + _HEAD_END)
        except HttpParserUpgrade:
            raise UpstreamBroke("the answer would change the protocol") from None
        except HttpParserError as error:
            raise UpstreamBroke(f"the answer is not HTTP/1: {error}") from None
        split = _split_headers(head.decode("latin-1"))  # between, name, value, between, ...
        # Turned round, so that the first of two that have one name counts.
        names = list(map(str.lower, split[-3::-3]))
        headers = dict(zip(names, split[-2::-3], strict=True))
        if len(headers) < len(names):
            _refuse_doubles(names)
        status = parser.get_status_code()
        if 100 <= status < 200:
            self._skip_interim(status, headers)
        else:
            self.head = head_of(status, headers)
            self._frame(status, headers, head)
            self.has_head = True

    def _skip_interim(self, status: int, headers: dict[str, str]) -> None:
        """RFC 9110, 15.2: none of these has a body; 101 answers a wish that we never had."""
        self._parser = None
        self._interims += 1
        has_body = "content-length" in headers or "transfer-encoding" in headers
        if status == 101 or has_body or self._interims > INTERIM_MAX:
            raise UpstreamBroke(f"an answer of status {status} was not to be expected")

    def _frame(self, status: int, headers: dict[str, str], head: bytes) -> None:
        """How long the body is (RFC 9112, 6.3). llhttp has refused two lengths and bad ones."""
        if "transfer-encoding" in headers and status not in _BODILESS:
            if headers["transfer-encoding"].lower() != "chunked":
                raise UpstreamBroke("the answer's Transfer-Encoding is not 'chunked'")
            if head.startswith(b"HTTP/1.0"):
                self.is_reusable = False
            self._left = self._framing_bytes = 0
            return
        self._parser = None
        if status in _BODILESS:
            self.is_reusable = False
            self._left = 0
        else:
            self._left = int(headers["content-length"]) if "content-length" in headers else None
        self.is_complete = self._left == 0

    def _feed_plain(self, data: bytes) -> None:
        left = self._left
        if left is not None:
            self._left = left = left - len(data)
            if left <= 0:
                self.is_complete = True
                if left < 0:  # nobody asked for more
                    data = data[:left]
                    self.is_reusable = False
        self.parts.append(data)

    def _feed_chunked(self, parser: HttpResponseParser, data: bytes) -> None:
        parts_before = len(self.parts)
        try:
            parser.feed_data(data)
        except HttpParserError as error:
            if not self.is_complete:
                raise UpstreamBroke(f"the answer is not HTTP/1: {error}") from None
            self.is_reusable = False
        if self.is_complete:
            self._parser = None
            # llhttp passes over empty lines between messages. The end of a chunked body is an empty
            # line too; one more is seen by what stands before it, if that came along.
            if data not in (b"\n", b"\r\n") and data[-5:-4] in (b"", b"\r", b"\n"):
                self.is_reusable = False
        elif len(self.parts) == parts_before:
            self._framing_bytes += len(data)
            if self._framing_bytes > FRAMING_BYTES_MAX:
                raise UpstreamBroke("the answer goes on without a body")

    # --- called by the parser ------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.is_complete:
            raise UpstreamBroke("a second answer, which nobody asked for")  # ends the parsing

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        self.is_reusable = self._parser.should_keep_alive()

    def on_message_complete(self) -> None:
        if self.has_head:
            self.is_complete = True


def _refuse_doubles(names: list[str]) -> None:
    for name in _SINGLE:
        if names.count(name) > 1:
            raise UpstreamBroke(f"the answer has more than one {name}")
