"""What both adapters agree on: where a call goes, what it carries, what of an answer comes back.

A request goes to the configured origin only, and headers pass by allow-list both ways. The upstream
key is added here and nowhere else; it appears in no error. Nothing here opens a connection.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

from gateway.ports.upstream import (
    UpstreamBroke,
    UpstreamCall,
    UpstreamHead,
    UpstreamUnreachable,
)

# Answers without streaming are read whole. The largest are embeddings: 2,048 vectors of 3,072
# floats are 135 MiB as text, 32 MiB in base64.
BODY_BYTES_MAX = 256 * 2**20
# An idle connection is closed by us before a server does it. nginx waits 75 s by default
# (keepalive_timeout), Node 5 s and uvicorn 5 s: those close first, which is noticed.
KEEP_S = 30
# No figures of the shared account, no cookies, no ids of our organisation.
_RELAYED = ("openai-processing-ms", "openai-version")
# All headers of an answer that matter here, in lower case.
READ_HEADERS = frozenset(
    ("content-type", "content-encoding", "retry-after", "x-request-id", *_RELAYED)
)
# OpenAI keeps a caller's id beside its own: https://platform.openai.com/docs/api-reference
# (debugging requests); it is the id of our ledger row.
RID_HEADER = "X-Client-Request-Id"
_VALUE_CHARACTERS_MAX = 200
_log = logging.getLogger("gateway.upstream")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an upstream is and how to be let in. `user_header`: tell it the user id, or None.

    With `api_version` it is an Azure OpenAI resource of the older form, which names a model's
    deployment in the path: https://learn.microsoft.com/azure/ai-foundry/openai/reference.
    """

    base_url: str
    api_key: str
    connect_s: float
    idle_s: float
    user_header: str | None = None
    auth: Literal["bearer", "api-key"] = "bearer"
    api_version: str | None = None

    def target(self, call: UpstreamCall) -> str:
        """Where a call goes, below the base URL. Nothing in it is taken from a request but a
        configured model name."""
        if self.api_version is None:
            return call.path
        deployment = quote(call.model, safe="")
        return f"/openai/deployments/{deployment}{call.path}?api-version={self.api_version}"

    def fixed_headers(self) -> dict[str, str]:
        """The headers that are the same in every call."""
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if self.api_key and self.auth == "bearer":
            headers["Authorization"] = f"Bearer {self.api_key}"
        elif self.api_key:
            headers["api-key"] = self.api_key
        return headers

    def user_headers(self, call: UpstreamCall) -> dict[str, str]:
        """Who calls, if it is to be told. UpstreamUnreachable for what cannot be written."""
        if not self.user_header:
            return {}
        if not call.user_id.isprintable():  # a line break in it would begin another header
            raise UpstreamUnreachable("the user's id cannot stand in a header")
        return {self.user_header: call.user_id}


def head_of(status: int, headers: Mapping[str, str]) -> UpstreamHead:
    """What is kept of an answer's head; of `headers`, in lower case, only READ_HEADERS are read.

    UpstreamBroke for an answer that could not be understood: a status that does not exist, or a
    body compressed although it was asked for plain, in which neither usage nor text can be read.
    """
    if not 200 <= status <= 599:
        raise UpstreamBroke(f"the answer's status is {status}")
    if "content-encoding" in headers and headers["content-encoding"].lower() != "identity":
        raise UpstreamBroke("the answer is compressed, although it was asked for as it is")
    said = "".join(headers.values())
    if not _is_plain(said):  # so all of them together are, nearly always
        headers = {name: value for name, value in headers.items() if _is_plain(value)}
    get = headers.get
    return UpstreamHead(
        status,
        get("content-type") or "application/json",
        get("retry-after") or None,
        get("x-request-id") or None,
        tuple([(name, value) for name in _RELAYED if (value := get(name))]),
    )


def log_refused(upstream: str, trouble: UpstreamBroke) -> None:
    """Name an answer that was understood badly or not at all; never what it said."""
    _log.warning("upstream %s sent what is refused: %s", upstream, trouble)


def _is_plain(value: str) -> bool:
    """Whether a header may be stored and relayed: a short and printable one."""
    return len(value) <= _VALUE_CHARACTERS_MAX and value.isascii() and value.isprintable()
