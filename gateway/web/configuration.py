"""Which configuration a process has, told to operators; and, on its inside socket, another one.

The version is of the file's text, so that all processes can be compared; nothing of the file itself
is shown. What a configuration is, and whether it can be taken, is not known here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from aiohttp import web

PATH = "/configuration"
CHANGES_PATH = f"{PATH}/changes"

Shown = Callable[[], Awaitable[Mapping[str, Any]]]


class Refused(Exception):
    """A configuration that cannot be taken; the text says why, and nothing was changed."""


class Configuration(Protocol):
    """The configuration of one process."""

    async def shown(self) -> Mapping[str, Any]:
        """Which it is, without anything of what stands in it."""
        ...

    async def take(self, text: str) -> None:
        """Go on with this one; Refused."""
        ...

    async def changes(self, text: str) -> Any:
        """What this one would change, ready for JSON; Refused."""
        ...


def show_configuration(app: web.Application, shown: Shown) -> None:
    """`GET /configuration`."""

    async def show(_: web.Request) -> web.Response:
        return web.json_response(dict(await shown()))

    app.router.add_get(PATH, show)


def take_configuration(app: web.Application, configuration: Configuration) -> None:
    """`PUT /configuration` and `POST /configuration/changes`, each with the text of a file. For
    the inside socket only."""

    async def take(request: web.Request) -> web.Response:
        await configuration.take(await _text(request))
        return web.json_response(dict(await configuration.shown()))

    async def compare(request: web.Request) -> web.Response:
        return web.json_response(await configuration.changes(await _text(request)))

    app.router.add_put(PATH, _told(take))
    app.router.add_post(CHANGES_PATH, _told(compare))


_Handler = Callable[[web.Request], Awaitable[web.Response]]


def _told(handle: _Handler) -> _Handler:
    async def handled(request: web.Request) -> web.Response:
        try:
            return await handle(request)
        except Refused as refused:
            return web.json_response({"error": str(refused)}, status=409)

    return handled


async def _text(request: web.Request) -> str:
    return (await request.content.read()).decode()  # of any size: it is ours
