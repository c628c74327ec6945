"""From an HTTP request to a call: credentials, body within bounds, and what the client adds.

Nothing here is trusted further than it is checked: text that goes into the ledger or a header is
short and printable, and a body is read only up to its limit.
"""

from __future__ import annotations

from gateway.core.idempotency import HEADER, IdempotencyKey, read_key
from gateway.core.refusal import Case, Refused
from gateway.core.routes import Route
from gateway.web.connection import connection_of
from gateway.web.http_request import HttpRequest

TAG_CHARS_MAX = 64
_RETRIES_MAX = 1000
# A client that asks first whether its body is wanted (RFC 9110, section 10.1.1) waits for this.
_GO_ON = b"HTTP/1.1 100 Continue\r\n\r\n"


def bearer_key(request: HttpRequest) -> str:
    """The key of `Authorization: Bearer …`; '' when there is none."""
    values = request.headers.getall("Authorization", [])
    scheme, _, key = values[0].partition(" ") if len(values) == 1 else ("", "", "")
    return key.strip() if scheme.lower() == "bearer" else ""


async def read_body(request: HttpRequest, bytes_max: int) -> bytes:
    """The whole body; Refused when it is larger than `bytes_max` or compressed."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Refused(
            Case.UNSUPPORTED_PARAMETER,
            "A compressed request body is not accepted. Send it without Content-Encoding.",
            param="Content-Encoding",
        )
    content = request.content
    if content.is_eof():  # it came with its head
        whole = content.read_nowait()
        if len(whole) > bytes_max:
            raise _too_large(bytes_max)
        return whole
    if (request.content_length or 0) > bytes_max:
        raise _too_large(bytes_max)
    if request.headers.get("Expect", "").lower() == "100-continue":
        connection_of(request).send(_GO_ON)
    body = bytearray()
    async for data in content.iter_any():
        body += data
        if len(body) > bytes_max:
            raise _too_large(bytes_max)
    return bytes(body)


def tag_of(request: HttpRequest) -> str | None:
    """`x-quota-tag`, which goes into the ledger only; Refused when it is not fit for it."""
    tag = request.headers.get("x-quota-tag")
    if not tag:
        return None
    if len(tag) > TAG_CHARS_MAX or not tag.isprintable():
        raise Refused(
            Case.INVALID_VALUE,
            f"Invalid value for 'x-quota-tag': expected at most {TAG_CHARS_MAX} printable "
            "characters.",
            param="x-quota-tag",
        )
    return tag


def sdk_retry_of(request: HttpRequest) -> int:
    """How often the client's SDK has tried this call before, as it says; 0 when it says nothing."""
    text = request.headers.get("x-stainless-retry-count", "")
    if not (text.isascii() and text.isdigit()):
        return 0
    return min(int(text[:9]), _RETRIES_MAX)  # Python refuses to read thousands of digits


def idempotency_key_of(request: HttpRequest, route: Route, body: bytes) -> IdempotencyKey | None:
    """`Idempotency-Key`, bound to what it is sent with; Refused when it is not one usable value."""
    values = request.headers.getall(HEADER, [])
    if not values:
        return None
    return read_key(values[0] if len(values) == 1 else "", route.name, body)


def _too_large(bytes_max: int) -> Refused:
    return Refused(
        Case.REQUEST_TOO_LARGE,
        f"The request body is larger than this gateway accepts ({bytes_max / 2**20:g} MiB).",
    )
