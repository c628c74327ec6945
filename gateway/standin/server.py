"""The stand-in's server: OpenAI's paths under /v1, Azure's under /openai, its own under /stand-in.

Loopback and any free port unless told otherwise. It prints nothing; trouble goes to the logger
`gateway.standin`, which is silent until somebody configures it.
"""

from __future__ import annotations

import logging

from aiohttp import web

from gateway.standin.apis import Apis
from gateway.standin.control import Control
from gateway.standin.gates import Gates
from gateway.standin.received import Received
from gateway.standin.settings import StandInSettings
from gateway.standin.tally import Tally

# A context of a million tokens is about 4 MB of text; the rest is room for tests of size limits.
BODY_BYTES_MAX = 64 * 1024 * 1024
# Held and endless calls never end by themselves: a stop waits this long for the others, twice.
STOP_S = 0.05

_log = logging.getLogger("gateway.standin")
_log.addHandler(logging.NullHandler())


class StandIn:
    """One server. `start` once, `stop` once; a second `stop` does nothing."""

    def __init__(self, settings: StandInSettings) -> None:
        self._settings = settings
        tally, gates, received = Tally(), Gates(), Received()
        application = web.Application(client_max_size=BODY_BYTES_MAX)
        application.add_routes(Control(tally, gates, received).routes())
        application.add_routes(Apis(settings, tally, gates, received).routes())
        self._runner = web.AppRunner(
            application,
            access_log=None,
            handle_signals=False,
            # A client that leaves ends its call at once, also one that is held or delayed.
            handler_cancellation=True,
            logger=_log,
            shutdown_timeout=STOP_S,
        )

    async def start(self) -> str:
        """Listen; the base URL for an OpenAI client, which ends in /v1.

        OSError when the port is taken.
        """
        await self._runner.setup()
        try:
            host, port = self._settings.host, self._settings.port
            shared = self._settings.reserved or None
            await web.TCPSite(self._runner, host, port, reuse_port=shared).start()
        except OSError:
            await self._runner.cleanup()
            raise
        host, port = self._runner.addresses[0][:2]
        return f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"

    async def stop(self) -> None:
        """Stop listening; calls still running are cut."""
        await self._runner.cleanup()
