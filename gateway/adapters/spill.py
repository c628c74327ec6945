"""The spill: what this process has on disk, and what it took over from those that died.

A file is made when there is something to keep and removed when all of it is done, so while Redis
answers there is none. It is bounded; beyond the bound, and where the disk refuses, settlements are
in memory only, and that is said. What is in a line is not known here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path

from gateway.adapters.embedded.place import own_directory
from gateway.adapters.spill_file import ENDING, SpillFile
from gateway.core.quota.settle import Settlement
from gateway.ports.metrics import Metrics, SpillTrouble

# Of one process; about 90,000 settlements.
SPILL_BYTES_MAX = 64 * 2**20
_log = logging.getLogger("gateway.spill")


class SpillFiles:
    """Fulfils ports.spill.Spill with files in `directory`, which is made; EmbeddedError if it
    cannot be. Several processes may share it. `owner` is who the files are named after."""

    def __init__(
        self, directory: Path, owner: str, metrics: Metrics, bytes_max: int = SPILL_BYTES_MAX
    ) -> None:
        self._directory = own_directory(directory)
        self._owner = owner
        self._metrics = metrics
        self._bytes_max = bytes_max
        self._own: SpillFile | None = None
        self._files: list[SpillFile] = []
        """Its own, if there is one, and those that were taken over."""
        self._is_failing = False

    def keep(self, settlement: Settlement) -> None:
        own = self._own
        if own is not None and own.size_bytes >= self._bytes_max:
            self._failed("full", f"it has {own.size_bytes} bytes, {self._bytes_max} are allowed")
            return
        try:
            if own is None:
                own = self._own = SpillFile.made(self._directory, self._owner)
                self._files.append(own)
            own.keep(settlement)
        except OSError as error:
            self._failed("disk", str(error))
        else:
            self._went_well()
        self._look_at(own)

    def done(self, rid: str) -> None:
        # In two of them where one that was taken over had to be booked in another way.
        for file in [each for each in self._files if rid in each]:
            with suppress(OSError):  # it is sent once more then, which changes nothing
                file.done(rid)
            self._look_at(file)

    def left(self) -> Iterator[Settlement]:
        found = [self._take(path) for path in sorted(self._directory.glob(f"*{ENDING}"))]
        taken = [file for file in found if file is not None]
        for file in taken:
            self._files.append(file)
            for _ in range(file.damaged_lines):
                self._metrics.spill_failed("damaged")
            _log.warning(
                "%s is of a process that died: %d settlements to send", file.path, file.awaited
            )
            self._look_at(file)
        return chain.from_iterable(file.settlements() for file in taken)

    def close(self) -> None:
        """Leave what is not done to whoever comes next."""
        for file in self._files:
            file.close()
        self._own, self._files = None, []

    def _take(self, path: Path) -> SpillFile | None:
        try:
            return SpillFile.taken(path)
        except OSError as error:
            _log.error("the settlements in %s are not sent, for it cannot be read: %s", path, error)
            return None

    def _look_at(self, file: SpillFile | None) -> None:
        """After every change: what is done goes, what is mostly done shrinks."""
        if file is not None and not file.awaited:
            self._files.remove(file)
            self._remove(file)
            if file is self._own:
                self._own = None
        elif file is not None and file is self._own and file.is_wasteful:
            self._compact(file)
        self._metrics.spilled(sum(each.size_bytes for each in self._files))

    def _compact(self, file: SpillFile) -> None:
        with suppress(OSError):  # no room for both: it stays as it is
            fresh = file.compacted(self._owner)
            self._files[self._files.index(file)] = self._own = fresh
            self._remove(file)

    def _remove(self, file: SpillFile) -> None:
        try:
            file.remove()
        except OSError as error:
            _log.error("%s is done with and cannot be removed: %s", file.path, error)

    def _failed(self, why: SpillTrouble, detail: str) -> None:
        self._metrics.spill_failed(why)
        if not self._is_failing:
            self._is_failing = True
            _log.error(
                "settlements cannot be written to %s: %s. They are sent from memory, and lost if "
                "this process is killed before Redis confirms them. Make room, or mend Redis.",
                self._directory,
                detail,
            )

    def _went_well(self) -> None:
        if self._is_failing:
            self._is_failing = False
            _log.warning("settlements are written to %s again", self._directory)
