"""The admin API, put together over both stores: for the jobs process, and for a command alone.

One function, so that a command without a running gateway goes the same way as one beside it. It
refuses to know where the application listens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import msgspec
from aiohttp import web

from gateway.app.secrets_of_state import admin_token_of, pepper_of
from gateway.app.stores import Stores
from gateway.config import Settings
from gateway.flow.moving_in import MovingIn
from gateway.flow.once import Once
from gateway.flow.operator_access import Access, RefusalAudit
from gateway.web.admin import Guard, admin_app
from gateway.web.admin.adjustments import Adjustments
from gateway.web.admin.desk import Acting, Desk
from gateway.web.admin.imports import Imports
from gateway.web.admin.keys import Keys
from gateway.web.admin.listed import Lists
from gateway.web.admin.packs import Packs
from gateway.web.admin.plan import Health, Plans
from gateway.web.admin.route import Asked, Route
from gateway.web.admin.teams import Teams
from gateway.web.admin.tokens import Tokens
from gateway.web.admin.users import Users

# The pool of a jobs process has four connections, and the drain is never to wait for one.
_AT_ONCE = 3


async def nothing_runs() -> Mapping[str, str]:
    """The health of jobs where there are none."""
    return {}


class Admin:
    """The admin API over these stores, whose handlers follow the settings in force."""

    def __init__(self, settings: Settings, stores: Stores, health: Health) -> None:
        self._stores, self._health = stores, health
        secrets = admin_token_of(settings), pepper_of(settings)
        self._access = Access(stores.operators, stores.clock, *secrets)
        self._routes: dict[str, Route] = {}
        self.take(settings)

    def take(self, settings: Settings) -> None:
        """Requests that come from now on are answered by these settings."""
        routes = _routes(settings, self._stores, self._access, self._health)
        self._routes = {route.at: route for route in routes}

    def app(self) -> web.Application:
        """One server of it."""
        stores = self._stores
        once = Once(stores.operators, stores.clock)
        guard = Guard(self._access, RefusalAudit(stores.operators), once, _AT_ONCE)
        routes = [
            replace(route, handle=partial(self._handle, at)) for at, route in self._routes.items()
        ]
        return admin_app(routes, guard)

    async def _handle(self, at: str, asked: Asked) -> msgspec.Struct | bytes:
        return await self._routes[at].handle(asked)


def admin_of(settings: Settings, stores: Stores, health: Health) -> web.Application:
    """The application over these stores, for as long as the settings stay."""
    return Admin(settings, stores, health).app()


def _routes(
    settings: Settings,
    stores: Stores,
    access: Access,
    health: Health,
) -> tuple[Route, ...]:
    def acting(who: str) -> Acting:
        ours = stores.acting(who)
        moving = MovingIn(ours.directory, stores.listings, ours.store, settings.plan, ours.clock)
        return Acting(ours.accounts(settings), ours.people(settings), moving, ours.topups(settings))

    desk = Desk(acting, stores.listings, settings.plan, stores.clock)
    return (
        *Users(desk).routes(),
        *Keys(desk, pepper_of(settings)).routes(),
        *Teams(desk).routes(),
        *Adjustments(desk).routes(),
        *Packs(desk, stores.orders).routes(),
        *Imports(desk).routes(),
        *Lists(stores.listings).routes(),
        *Tokens(access).routes(),
        *Plans(settings.plan, settings.prices, health).routes(),
    )
