"""`/quota/v1/preferences`, and the link by which a mail is turned off.

The link answers GET with a page that asks, because programs follow links of mails, and does it on
POST, as mail programs send it (RFC 8058). It needs no sign-in: its signature says who got the mail.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Annotated
from urllib.parse import parse_qsl

import msgspec
from msgspec import Meta

from gateway.core.credential import Credential
from gateway.core.notices import Channel, Kind
from gateway.flow.subjects import Subject, Subjects
from gateway.flow.wishes import Wishes
from gateway.ports.metrics import Metrics
from gateway.ports.notices import Wish
from gateway.web.callers import Callers
from gateway.web.http_request import HttpRequest
from gateway.web.json_answer import NO_STORE, json_answer, own_answer
from gateway.web.quota_bodies import UserId, asked_user, checked_user, read_body_as
from gateway.web.request import read_body
from gateway.web.response import Header, Response

_BODY_BYTES_MAX = 16_384
_LINK_PARTS = {"user", "kind", "signature"}
_WHEN: dict[str, str] = {
    "crossing": "when part of your monthly tokens is used",
    "exhausted": "when your monthly tokens are used up",
    "pack_low": "when few of the tokens you bought are left",
    "pack_ends": "before tokens you bought end",
    "payment_credited": "when tokens you bought are there",
}
_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>Mails</title></head>
<body><main><h1>Mails</h1>{content}</main></body>
</html>
"""
_ASK = "<p>Get no more mails {when}?</p><form method=post><button>Turn off</button></form>"
_DONE = "<p>Done. You get no more mails {when}. All other mails come as before.</p>"
_PAGE_HEADERS: tuple[Header, ...] = (
    NO_STORE,
    (
        "Content-Security-Policy",
        "default-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    ),
    ("Referrer-Policy", "no-referrer"),  # the address is the proof
)


class Preference(msgspec.Struct, forbid_unknown_fields=True):
    """Whether this kind is wanted by this channel."""

    kind: Kind
    channel: Channel
    enabled: bool


class PreferencesBody(msgspec.Struct, forbid_unknown_fields=True):
    """What is to change; all else stays. Only a service key may name a `user`."""

    preferences: Annotated[list[Preference], Meta(min_length=1, max_length=50)]
    user: UserId | None = None


class PreferencesAnswer(msgspec.Struct):
    """Every kind by every channel. `email`: where mails go, null where nobody has said. `kinds`:
    for each kind the words that follow "mails"."""

    object: str
    user: str
    email: str | None
    kinds: dict[str, str]
    preferences: list[Preference]


@dataclass(frozen=True, slots=True)
class PreferenceParts:
    """What answers these requests."""

    callers: Callers
    subjects: Subjects
    wishes: Wishes
    metrics: Metrics


class PreferenceCalls:
    """The handlers."""

    def __init__(self, parts: PreferenceParts) -> None:
        self._parts = parts

    async def read(self, request: HttpRequest, rid: str) -> Response:
        """`GET /quota/v1/preferences`."""
        credential = await self._sender(request)
        return await self._answer(rid, await self._subject(credential, asked_user(request)))

    async def change(self, request: HttpRequest, rid: str) -> Response:
        """`PUT /quota/v1/preferences`."""
        credential = await self._sender(request)
        body = read_body_as(PreferencesBody, await read_body(request, _BODY_BYTES_MAX))
        subject = await self._subject(credential, checked_user(body.user))
        wishes: dict[Wish, bool] = {
            (each.kind, each.channel): each.enabled for each in body.preferences
        }
        await self._parts.wishes.change(subject.identity.user_id, wishes)
        return await self._answer(rid, subject)

    async def ask_off(self, request: HttpRequest, rid: str) -> Response:
        """`GET /quota/v1/unsubscribe`: a page that asks."""
        _, kind = self._link(request)
        return self._page(rid, _ASK, kind)

    async def turn_off(self, request: HttpRequest, rid: str) -> Response:
        """`POST /quota/v1/unsubscribe`."""
        user_id, kind = self._link(request)
        await read_body(request, _BODY_BYTES_MAX)  # List-Unsubscribe=One-Click, or nothing
        await self._parts.wishes.turn_off(user_id, kind)
        return self._page(rid, _DONE, kind)

    async def _sender(self, request: HttpRequest) -> Credential:
        """Who sends it; no body is read before that is known."""
        credential = self._parts.callers.credential(request)
        await self._parts.callers.identities.of(credential)
        return credential

    async def _subject(self, credential: Credential, user_id: str | None) -> Subject:
        return await self._parts.subjects.again(await self._parts.subjects.of(credential, user_id))

    async def _answer(self, rid: str, subject: Subject) -> Response:
        identity = subject.identity
        wishes = await self._parts.wishes.of(identity.user_id)
        answer = PreferencesAnswer(
            object="quota.preferences",
            user=identity.user_id,
            email=identity.email,
            kinds=_WHEN,
            preferences=[
                msgspec.convert({"kind": kind, "channel": channel, "enabled": enabled}, Preference)
                for (kind, channel), enabled in wishes.items()
            ],
        )
        self._parts.metrics.decided(identity.tier, "quota_preferences", "admitted", "free")
        return json_answer(rid, answer, [NO_STORE])

    def _link(self, request: HttpRequest) -> tuple[str, str]:
        """User and kind of the link; Refused when it is not ours."""
        query = request.raw_path.partition("?")[2]
        parts = parse_qsl(query, keep_blank_values=True)
        given = dict(parts)
        if len(parts) != len(_LINK_PARTS) or given.keys() != _LINK_PARTS:
            given = dict.fromkeys(_LINK_PARTS, "")
        return self._parts.wishes.signed(given["user"], given["kind"], given["signature"])

    def _page(self, rid: str, content: str, kind: str) -> Response:
        self._parts.metrics.decided("none", "quota_unsubscribe", "admitted", "free")
        text = _PAGE.format(content=content.format(when=escape(_WHEN[kind])))
        return own_answer(rid, "text/html; charset=utf-8", text.encode(), _PAGE_HEADERS)
