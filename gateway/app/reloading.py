"""SIGHUP: the file is read and checked anew, and every process goes on with that very text.

First whoever starts processes gets it, then each process that runs, so one that dies meanwhile
comes back with it. A file that is refused changes nothing anywhere. What a process does with it is
not known here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

from gateway.app.arrangement import Arrangement
from gateway.app.configured import checked
from gateway.app.logs import configure_logs
from gateway.config import ConfigError, Settings
from gateway.config.changes import NeedsRestart
from gateway.config.document import read_text
from gateway.ports.tasks import spawn
from gateway.web.configuration import Refused

RESULTS: Final = ("ok", "refused", "failed")
_log = logging.getLogger("gateway.reload")

Spread = Callable[[str], Awaitable[None]]


class _Unfit(Exception):
    """In order by itself, and still of no use here."""


class Reloading:
    """`spread` hands a text that was found in order to all processes; Refused says which of them
    have not taken it, and why."""

    def __init__(self, arrangement: Arrangement, spread: Spread) -> None:
        self._arrangement = arrangement
        self._spread = spread
        self._results = Counter(dict.fromkeys(RESULTS, 0))
        self._loaded_s = time.time()

    @property
    def settings(self) -> Settings:
        """Those in force."""
        return self._arrangement.settings

    def start(self, reload: asyncio.Event) -> asyncio.Task[None]:
        """Reload whenever the event is set, one after the other, until cancelled."""
        return spawn(self._forever(reload), "reload")

    async def _forever(self, reload: asyncio.Event) -> None:
        while True:
            await reload.wait()
            reload.clear()
            try:
                result = await self.once()
            except Exception:
                _log.exception("a reload failed")
                result = "failed"
            self._results[result] += 1

    async def once(self) -> str:
        """Read the file and go on with it: `ok`; or `refused`, and why is in the log; or `failed`,
        when some process has not taken it."""
        before = self.settings
        try:
            text = read_text(before.path)
            arrangement = _checked_whole(self._arrangement, text)
        except (ConfigError, NeedsRestart, _Unfit) as error:
            for line in str(error).splitlines():
                _log.error("the configuration is refused, the old one stays: %s", line)
            return "refused"
        try:
            await self._spread(text)
        except Refused as error:
            _log.error("not every process has the new configuration, reload again: %s", error)
            return "failed"
        self._arrangement, self._loaded_s = arrangement, time.time()
        configure_logs(self.settings, before)
        versions = (self.settings.version, before.version)
        _log.info("configuration %s is in force, before it %s", *versions)
        return "ok"

    def render(self) -> str:
        """Its metrics, as Prometheus reads them. By hand: a supervisor has no others."""
        name = "quota_gateway_config"
        counts = "".join(
            f'{name}_reloads_total{{result="{result}"}} {self._results[result]}\n'
            for result in RESULTS
        )
        return (
            f"# HELP {name}_reloads_total Reloads asked for by SIGHUP, by how they ended\n"
            f"# TYPE {name}_reloads_total counter\n{counts}"
            f"# HELP {name}_loaded_seconds When the configuration in force was loaded\n"
            f"# TYPE {name}_loaded_seconds gauge\n{name}_loaded_seconds {self._loaded_s:.3f}\n"
        )


def _checked_whole(arrangement: Arrangement, text: str) -> Arrangement:
    """Checked, and with what it names outside itself tried, as at a start."""
    # Imported here: most gateways end without a reload, and a supervisor is to be small.
    from gateway.adapters.upstream.opening import UnfitProxy, proxies_of
    from gateway.app.mailing import open_mail
    from gateway.app.proxy_terms import origins_of

    arrangement = checked(arrangement, text)
    try:
        open_mail(arrangement.settings)
        proxies_of(origins_of(arrangement.settings))
    except (UnfitProxy, ValueError) as error:  # a template that cannot be used is a ValueError
        raise _Unfit(str(error)) from error
    return arrangement
