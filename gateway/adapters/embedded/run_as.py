"""As whom a server runs that refuses to run as root.

Two ways, tried in order, neither of which adds a user or changes a right outside the data. Nobody
keeping root's right to reach files: the wheel, the data and the sockets may lie in directories
that only root can enter. And, where there is no second user to change to, a user namespace in
which root has another number. Both happen in the child, between fork and exec, so nothing here
may import, log or take a lock there.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from dataclasses import dataclass

_NOBODY = 65534  # the number of "nobody" everywhere, and inside every usual container mapping
_CAP_DAC_OVERRIDE = 1
_CAPABILITY_VERSION_3 = 0x20080522
_CLONE_NEWUSER = 0x10000000
_PR_SET_PDEATHSIG = 1
_PR_SET_KEEPCAPS = 8
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 47, 2

_libc = ctypes.CDLL(None, use_errno=True)  # loaded before any fork


@dataclass(frozen=True, slots=True)
class RunAs:
    """How a child changes its identity before exec, and who must own the data then."""

    name: str
    owner_uid: int
    become: Callable[[], None]


def stay() -> None:
    """Keep the launcher's identity."""


def ways() -> tuple[RunAs, ...]:
    """The identities to try, best first, for a server that will not run as root."""
    uid = os.geteuid()
    if uid != 0:
        return (RunAs("this user", uid, stay),)
    return (
        RunAs(f"user {_NOBODY} that may reach root's files", _NOBODY, _become_nobody),
        RunAs("root under another number in a user namespace", uid, _enter_namespace),
    )


def die_with_parent(signal_number: int, parent: int) -> None:
    """In the child: have the kernel send the signal when the thread that forked us ends.

    Comes after any change of identity, which would clear it; a no-op where there is no prctl.
    """
    if hasattr(_libc, "prctl"):
        _check(_libc.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0))
    if os.getppid() != parent:  # it ended before we asked: nobody will tell us any more
        os._exit(1)


def _become_nobody() -> None:
    _check(_libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0))
    os.setgroups([])
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    right = 1 << _CAP_DAC_OVERRIDE
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    effective_permitted_inheritable = (ctypes.c_uint32 * 6)(right, right, right, 0, 0, 0)
    _check(_libc.capset(header, effective_permitted_inheritable))
    # Ambient: kept over exec of an ordinary binary, and by it alone.
    _check(_libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0))


def _enter_namespace() -> None:
    uid, gid = os.geteuid(), os.getegid()
    _check(_libc.unshare(_CLONE_NEWUSER))
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{_NOBODY} {uid} 1")
    _write("/proc/self/gid_map", f"{_NOBODY} {gid} 1")


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY)
    os.write(fd, text.encode())
    os.close(fd)


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
