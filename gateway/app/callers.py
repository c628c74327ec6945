"""Who may say who calls: issuers of tokens and a server in front, put together by configuration.

Where none is configured, no library for tokens is even loaded. What counts as proof is decided by
the parts.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from gateway.app.secrets_of_state import pepper_of
from gateway.app.stores import Stores
from gateway.config import Settings
from gateway.config.identity_checks import networks_of
from gateway.flow.claimed import ClaimedUsers
from gateway.flow.identify import Identities
from gateway.web.callers import Callers, PeerTerms, TrustedPeer

if TYPE_CHECKING:
    from gateway.adapters.tokens.opening import Issuers


def trusted_peer_of(settings: Settings) -> TrustedPeer | None:
    """The server in front that may name users, if any."""
    header = settings.identity.header
    if header is None:
        return None
    return TrustedPeer(
        PeerTerms(
            name=header.name,
            secret_header=header.secret_header,
            secret=header.secret.reveal(),
            tier_header=header.tier_header,
            email_header=header.email_header,
            peers=networks_of(header),
            may_create=header.create,
        )
    )


def load_proving(settings: Settings) -> None:
    """Load what proves tokens, if any are taken, for all processes that are forked from this."""
    if settings.identity.jwt:
        import_module("gateway.app.issuers")


class KnownCallers:
    """Everybody who may call, by key and by what is configured beside keys: `identities` knows
    them, `shown` finds in a request who it is."""

    def __init__(self, settings: Settings, stores: Stores) -> None:
        self._settings, self._stores = settings, stores
        self._issuers: Issuers | None = None
        self.identities = Identities(
            stores.directory, pepper_of(settings), self._claimed(settings, stores)
        )
        self.shown = Callers(self.identities, trusted_peer_of(settings))

    def take(self, settings: Settings) -> bool:
        """Know callers by these settings. False when nothing changes for them: who has proven a
        token is remembered then."""
        before, self._settings = self._settings, settings
        if (before.identity, before.plan) == (settings.identity, settings.plan):
            return False
        self._issuers = None
        self.identities.take(self._claimed(settings, self._stores))
        self.shown = Callers(self.identities, trusted_peer_of(settings))
        return True

    def _claimed(self, settings: Settings, stores: Stores) -> ClaimedUsers | None:
        if not settings.identity.jwt and settings.identity.header is None:
            return None
        from gateway.app.issuers import issuers_of

        self._issuers = issuers_of(settings, stores.clock)
        return ClaimedUsers(
            self._issuers.tokens, stores.directory.by, stores.store, settings.plan, stores.clock
        )

    async def renew_forever(self) -> None:
        """Keep the issuers' keys as they have them; returns where there is none."""
        if self._issuers is not None:
            await self._issuers.renew_forever()
