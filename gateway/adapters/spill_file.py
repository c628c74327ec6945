"""One spill file: settlements that wait for Redis, one a line, under the lock of their owner.

A line is a checksum, a space and JSON: a settlement with its event, or the rid of one that is done.
The last line of a rid counts. A line that its newline is missing from was cut off by its process's
death; any other that does not fit its checksum is damage, and then the file is not removed but put
aside. The lock is the kernel's, so it ends with its process, however that ends. Nothing is synced:
see decision 24.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias
from zlib import crc32

import msgspec
from msgspec import structs

from gateway.core.quota.settle import Settlement

ENDING = ".spill"
_DAMAGED = ".damaged"
_CHECKSUM = b"%08x "
_CHECKSUM_BYTES = 9
# Below this, lines that no longer count are not worth writing the others anew.
_WASTE_BYTES_MIN = 2**20
_MODE = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW

# Beside the settlement, not in it: as bytes it would be base64, and no person could read it.
_Record: TypeAlias = tuple[Settlement, msgspec.Raw] | str
_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[_Record] = msgspec.json.Decoder(_Record)
_log = logging.getLogger("gateway.spill")


class SpillFile:
    """A file whose lock this process has. Whatever writes may raise OSError; then the file is as it
    was before."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.size_bytes = 0
        self.damaged_lines = 0
        self._descriptor = descriptor
        self._places: dict[str, tuple[int, int]] = {}  # of each rid: length and offset
        self._awaited_bytes = 0

    @classmethod
    def made(cls, directory: Path, owner: str) -> SpillFile:
        """A new file, which nobody else will take over while this process lives."""
        while True:
            path = directory / f"{owner}-{secrets.token_hex(8)}{ENDING}"
            descriptor = os.open(path, _MODE | os.O_CREAT | os.O_EXCL, 0o600)
            if _is_ours(descriptor):
                return cls(path, descriptor)
            os.close(descriptor)  # found, empty and without a lock, by one who takes over

    @classmethod
    def taken(cls, path: Path) -> SpillFile | None:
        """A file whose owner has died, read through; None when it lives, or the file is gone."""
        try:
            descriptor = os.open(path, _MODE)
        except FileNotFoundError:
            return None
        if not _is_ours(descriptor):
            os.close(descriptor)
            return None
        file = cls(path, descriptor)
        file._read_through()
        return file

    def __contains__(self, rid: str) -> bool:
        return rid in self._places

    @property
    def awaited(self) -> int:
        """How many settlements are not done."""
        return len(self._places)

    @property
    def is_wasteful(self) -> bool:
        """Most of it no longer counts."""
        return self.size_bytes > max(_WASTE_BYTES_MIN, 2 * self._awaited_bytes)

    def keep(self, settlement: Settlement) -> None:
        """Write it down; what was written of its rid before no longer counts."""
        event = msgspec.Raw(settlement.event_json)
        line = _line((structs.replace(settlement, event_json=b""), event))
        self._append(line)
        self._note(settlement.rid, len(line), self.size_bytes - len(line))

    def done(self, rid: str) -> None:
        """Note that it is not to be sent again. The last one needs no note: the file goes."""
        self._forget(rid)
        if self._places:
            self._append(_line(rid))

    def settlements(self) -> Iterator[Settlement]:
        """Those that are not done when their turn comes, read one at a time."""
        for rid in list(self._places):
            if rid in self._places:
                record = _read(os.pread(self._descriptor, *self._places[rid]))
                if isinstance(record, Settlement):
                    yield record

    def compacted(self, owner: str) -> SpillFile:
        """A new file with what is awaited in this one. As long as both are there, they say the
        same."""
        fresh = SpillFile.made(self.path.parent, owner)
        lines = {rid: os.pread(self._descriptor, *place) for rid, place in self._places.items()}
        try:
            fresh._append(b"".join(lines.values()))
        except OSError:
            fresh.remove()
            raise
        offset = 0
        for rid, line in lines.items():
            fresh._note(rid, len(line), offset)
            offset += len(line)
        return fresh

    def remove(self) -> None:
        """All is done. A file with damage is put aside for a person to look at."""
        if self.damaged_lines:
            self.path.rename(self.path.with_suffix(_DAMAGED))
        else:
            self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Give the lock up; whoever comes next takes over what is not done."""
        os.close(self._descriptor)

    def _append(self, line: bytes) -> None:
        """One write: in the kernel's hands it outlives this process."""
        try:
            if os.write(self._descriptor, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            os.ftruncate(self._descriptor, self.size_bytes)
            raise
        self.size_bytes += len(line)

    def _note(self, rid: str, length: int, offset: int) -> None:
        self._forget(rid)
        self._places[rid] = (length, offset)
        self._awaited_bytes += length

    def _forget(self, rid: str) -> None:
        place = self._places.pop(rid, None)
        if place is not None:
            self._awaited_bytes -= place[0]

    def _read_through(self) -> None:
        with open(self._descriptor, "rb", closefd=False) as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    _log.warning("%s: its last line was cut off and is left out", self.path)
                    os.ftruncate(self._descriptor, self.size_bytes)
                    return
                record = _read(line)
                if record is None:
                    self.damaged_lines += 1
                    _log.error(
                        "%s: the line at byte %d is damaged: its settlement cannot be sent",
                        self.path,
                        self.size_bytes,
                    )
                elif isinstance(record, Settlement):
                    self._note(record.rid, len(line), self.size_bytes)
                else:
                    self._forget(record)
                self.size_bytes += len(line)


def _is_ours(descriptor: int) -> bool:
    """Whether the lock is ours now, and the file still has its name."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return os.fstat(descriptor).st_nlink > 0


def _line(record: _Record) -> bytes:
    text = _encoder.encode(record)
    return b"%b%b\n" % (_CHECKSUM % crc32(text), text)


def _read(line: bytes) -> Settlement | str | None:
    """A settlement, the rid of one that is done, or None: the line is damaged."""
    text = line[_CHECKSUM_BYTES:-1]
    if line[:_CHECKSUM_BYTES] != _CHECKSUM % crc32(text):
        return None
    try:
        record = _decoder.decode(text)
    except msgspec.MsgspecError:
        return None
    if isinstance(record, str):
        return record
    settlement, event = record
    return structs.replace(settlement, event_json=bytes(event))
