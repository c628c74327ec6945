"""What OpenAI says an organisation used and was charged, by its administration API.

`GET /organization/usage/completions`, `…/embeddings` and `/organization/costs`, in buckets of a day
(UTC), page after page. Shapes and parameters are those of the library `openai` 3.54.0, generated
from OpenAI's description (`types/admin/organization/usage_*.py`); that an amount may come as text,
and how an item reads, is in no description and was seen in answers. The admin key goes into one
header and no text.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TypeVar

import aiohttp
import msgspec

from gateway.core.masking import masked
from gateway.core.reconciling import Paid, Used

T = TypeVar("T")
API_BASE = "https://api.openai.com/v1"
_CALL_S = 60.0
_BYTES_MAX = 16 * 1024 * 1024
_BUCKETS = 31  # the most that a page of usage may have, in buckets of a day
_PAGES_MAX = 1000
_USAGE = ("completions", "embeddings")
_SHOWN_CHARS = 200
_WHAT_TO_DO = {
    401: "it is no valid admin key. Make one at platform.openai.com, Settings, Organization, Admin "
    "keys: a project's key cannot read usage",
    403: "the key may not read usage. It must be an admin key with the permission to read usage "
    "(api.usage.read), made by an owner of the organisation",
    404: "there is no such address: is --api-base right?",
    429: "too many requests. Wait a minute and run the command again",
}


class OrganisationUnavailable(Exception):
    """OpenAI's administration API cannot be used; the text says why and what to do."""


class _Usage(msgspec.Struct):
    """`organization.usage.completions.result`, and of embeddings, which has no output."""

    input_tokens: int
    num_model_requests: int
    output_tokens: int = 0
    input_cached_tokens: int | None = None
    model: str | None = None


class _Amount(msgspec.Struct):
    value: Decimal | None = None
    currency: str | None = None


class _Cost(msgspec.Struct):
    """`organization.costs.result`"""

    amount: _Amount | None = None
    line_item: str | None = None


class _UsageBucket(msgspec.Struct):
    start_time: int
    results: list[_Usage]


class _CostBucket(msgspec.Struct):
    start_time: int
    results: list[_Cost]


class _UsagePage(msgspec.Struct):
    data: list[_UsageBucket]


class _CostPage(msgspec.Struct):
    data: list[_CostBucket]


class _More(msgspec.Struct):
    """What every page says of the next."""

    has_more: bool
    next_page: str | None = None


class _Error(msgspec.Struct):
    message: str = ""


class _ErrorBody(msgspec.Struct):
    error: _Error


@dataclass(frozen=True, slots=True)
class Range:
    """From one instant up to another (Unix seconds), of these projects only, if any are named."""

    from_s: int
    until_s: int
    projects: tuple[str, ...] = ()


class Organisation:
    """One organisation at OpenAI."""

    def __init__(self, session: aiohttp.ClientSession, base: str) -> None:
        self._session, self._base = session, base

    async def used(self, wanted: Range) -> list[Used]:
        """Tokens by day and model. OrganisationUnavailable."""
        found = []
        for kind in _USAGE:
            async for page in self._pages(f"usage/{kind}", "model", wanted):
                for bucket in _read(page, _UsagePage).data:
                    found += [_used(bucket.start_time, each) for each in bucket.results]
        return found

    async def paid(self, wanted: Range) -> list[Paid]:
        """US dollars by day and item. OrganisationUnavailable."""
        found = []
        async for page in self._pages("costs", "line_item", wanted):
            for bucket in _read(page, _CostPage).data:
                found += [_paid(bucket.start_time, each) for each in bucket.results]
        return found

    async def _pages(self, path: str, group_by: str, wanted: Range) -> AsyncIterator[bytes]:
        asked = [
            ("start_time", str(wanted.from_s)),
            ("end_time", str(wanted.until_s)),
            ("bucket_width", "1d"),
            ("limit", str(_BUCKETS)),
            ("group_by", group_by),
            *(("project_ids", project) for project in wanted.projects),
        ]
        page: list[tuple[str, str]] = []
        for _ in range(_PAGES_MAX):
            body = await self._get(f"{self._base}/organization/{path}", [*asked, *page])
            yield body
            told = _read(body, _More)
            if not told.has_more or told.next_page is None:
                return
            page = [("page", told.next_page)]
        raise OrganisationUnavailable(f"OpenAI's {path} does not end after {_PAGES_MAX} pages")

    async def _get(self, url: str, query: list[tuple[str, str]]) -> bytes:
        try:
            async with self._session.get(url, params=query, allow_redirects=False) as answer:
                body = await answer.content.read(_BYTES_MAX + 1)
                while len(body) <= _BYTES_MAX and not answer.content.at_eof():
                    body += await answer.content.read(_BYTES_MAX + 1 - len(body))
        except TimeoutError:
            raise OrganisationUnavailable(
                f"OpenAI did not answer within {_CALL_S:g} s. Try again"
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            raise OrganisationUnavailable(
                f"OpenAI cannot be reached ({type(error).__name__}). This machine needs a way to "
                f"{masked(url)}; HTTPS_PROXY is heeded"
            ) from None
        if answer.status != 200:
            raise _refused(answer.status, body)
        if len(body) > _BYTES_MAX:
            raise OrganisationUnavailable("OpenAI sent a page of more than 16 MiB: ask for less")
        return body


@asynccontextmanager
async def open_organisation(admin_key: str, base: str = API_BASE) -> AsyncIterator[Organisation]:
    """One session for as long as the block lasts, through the environment's proxy, if any."""
    async with aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=_CALL_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"Authorization": f"Bearer {admin_key}", "Accept": "application/json"},
        trust_env=True,
    ) as session:
        yield Organisation(session, base.rstrip("/"))


def _refused(status: int, body: bytes) -> OrganisationUnavailable:
    """What went wrong; OpenAI's own words only where they cannot name the key."""
    if status in _WHAT_TO_DO:
        return OrganisationUnavailable(f"OpenAI answered {status}: {_WHAT_TO_DO[status]}")
    if status >= 500:
        return OrganisationUnavailable(f"OpenAI has trouble of its own ({status}). Try again later")
    try:
        said = masked(msgspec.json.decode(body, type=_ErrorBody).error.message)[:_SHOWN_CHARS]
    except (msgspec.DecodeError, UnicodeDecodeError):
        said = "without a reason"
    return OrganisationUnavailable(f"OpenAI refused the question ({status}): {said}")


def _read(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise OrganisationUnavailable(
            "what answered is no page of usage or costs: is --api-base right? "
            f"({masked(str(error))})"
        ) from None


def _day(start_s: int) -> str:
    return datetime.fromtimestamp(start_s, UTC).date().isoformat()


def _used(start_s: int, each: _Usage) -> Used:
    return Used(
        day=_day(start_s),
        name=each.model or "",
        calls=each.num_model_requests,
        input_tokens=each.input_tokens,
        cached_tokens=each.input_cached_tokens or 0,
        output_tokens=each.output_tokens,
    )


def _paid(start_s: int, each: _Cost) -> Paid:
    amount = each.amount or _Amount()
    if amount.currency not in (None, "usd"):
        raise OrganisationUnavailable(
            f"OpenAI charges in {amount.currency!r}, and this compares with US dollars only"
        )
    return Paid(_day(start_s), each.line_item or "", amount.value or Decimal(0))
