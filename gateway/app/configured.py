"""The configuration in force in one process, and how another takes its place while it runs.

A text is checked as a whole, and so is that nothing changes which needs a restart, before anything
is swapped: who is refused goes on as before. What hangs on the settings is not known here.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from gateway.app.arrangement import Arrangement
from gateway.app.logs import configure_logs
from gateway.config import ConfigError, Settings, load_text
from gateway.config.changes import NeedsRestart, changes_between, refuse_restart
from gateway.web.configuration import Refused

Take = Callable[[Settings], Awaitable[None]]


def checked(arrangement: Arrangement, text: str) -> Arrangement:
    """The arrangement under the configuration that this text is. ConfigError, NeedsRestart."""
    now = arrangement.settings
    settings = load_text(text, now.path, os.environ)
    refuse_restart(now.file, settings.file)
    return arrangement.again(settings)


class Configured:
    """`take` swaps what hangs on the settings; what it raises means that nothing was swapped."""

    def __init__(self, arrangement: Arrangement, take: Take) -> None:
        self._arrangement = arrangement
        self._take = take
        self._turn = asyncio.Lock()
        self._since = _now()

    @property
    def arrangement(self) -> Arrangement:
        """The one in force."""
        return self._arrangement

    @property
    def settings(self) -> Settings:
        """Those in force."""
        return self._arrangement.settings

    async def shown(self) -> Mapping[str, Any]:
        """See web.configuration."""
        return {"version": self.settings.version, "since": self._since}

    async def take(self, text: str) -> None:
        """See web.configuration. A text that is in force already changes nothing."""
        async with self._turn:
            if text == self.settings.text:
                return
            before, arrangement = self.settings, self._checked(text)
            await self._take(arrangement.settings)
            self._arrangement, self._since = arrangement, _now()
            configure_logs(self.settings, before)

    async def changes(self, text: str) -> Any:
        """See web.configuration. In this process, so by its environment, and no secret leaves."""
        now = self.settings
        try:
            settings = load_text(text, Path("new file"), os.environ)
        except ConfigError as error:
            raise Refused(str(error)) from error
        return msgspec.to_builtins(changes_between(now.file, settings.file))

    def _checked(self, text: str) -> Arrangement:
        try:
            return checked(self._arrangement, text)
        except (ConfigError, NeedsRestart) as error:
            raise Refused(str(error)) from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
