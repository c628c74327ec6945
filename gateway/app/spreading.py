"""Handing a configuration to all processes of a `serve`: first to the family, then to each member.

In this order, so that a member that is started meanwhile has it, and one that runs is told. One
that does not answer may just be starting: it is asked again for a while.
"""

from __future__ import annotations

import asyncio
import time
from http import HTTPStatus

import msgspec

from gateway.app.arrangement import Arrangement
from gateway.app.family import Family, NotTaken
from gateway.app.inside import Question, ask_inside
from gateway.web.configuration import PATH, Refused

_ANSWER_S, _TRIED_S, _PAUSE_S = 10.0, 20.0, 0.1


async def spread(arrangement: Arrangement, family: Family, text: str) -> None:
    """Return when all have it; Refused."""
    try:
        await family.take(text)
    except NotTaken as error:
        raise Refused(f"family: {error}") from error
    names = arrangement.names
    troubles = await asyncio.gather(*(_told(arrangement, name, text) for name in names))
    if any(troubles):
        told = (f"{name}: {said}" for name, said in zip(names, troubles, strict=True) if said)
        raise Refused("; ".join(told))


async def _told(arrangement: Arrangement, name: str, text: str) -> str | None:
    """Why this process has not taken it; None when it has."""
    question = Question(PATH, _ANSWER_S, "PUT", text)
    until_s = time.monotonic() + _TRIED_S
    while True:
        status, said = await ask_inside(arrangement.settings, name, question)
        if status == HTTPStatus.OK:
            return None
        if status == HTTPStatus.CONFLICT:
            return str(msgspec.json.decode(said)["error"])
        if status:
            return "its log says why"
        if time.monotonic() > until_s:
            return said
        await asyncio.sleep(_PAUSE_S)
