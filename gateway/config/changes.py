"""What is different between two versions of the file, key by key, and which of it needs a restart.

Values are shown as `check-config --json` shows them: a secret that changed says only that it did.
What a change does to running calls is not known here; what it means is in `meaning`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from gateway.config.errors import key_path
from gateway.config.shape import File
from gateway.config.values import Secret, StoreUrl

NEEDS_RESTART = (
    "clients",
    "identity.keys",
    "lease",
    "ledger.url",
    "listen.admin",
    "listen.ops",
    "listen.proxy",
    "redis.client",
    "redis.deadline_ms",
    "redis.shards",
    "redis.url",
    "shutdown_s",
    "state_dir",
    "version",
    "workers",
)
"""Keys and sections that a running gateway cannot change: connections, ports, processes, and what
holds in the stores were made by them."""

_HIDDEN = "***"


class Change(msgspec.Struct, frozen=True):
    """One key. None before: it is new; None after: it is gone. Both are as anybody may see them, so
    they may look alike."""

    key: str
    before: Any
    after: Any
    needs_restart: bool


class NeedsRestart(Exception):
    """A reload cannot bring these changes; nothing was changed."""

    def __init__(self, keys: list[str]) -> None:
        super().__init__(f"restart to change {', '.join(keys)}; nothing was changed")


def changes_between(before: File, after: File) -> list[Change]:
    """All of them, in the order of the file's shape."""
    return list(_compared("", before, after))


def refuse_restart(before: File, after: File) -> None:
    """NeedsRestart if there is such a change."""
    keys = [each.key for each in changes_between(before, after) if each.needs_restart]
    if keys:
        raise NeedsRestart(keys)


def shown(value: object) -> Any:
    """Ready for JSON, with nothing in it that nobody may see: a secret that is set as `***`, a
    store's URL without user, password and parameters."""
    return msgspec.to_builtins(value, enc_hook=_without_secrets)


def _without_secrets(value: object) -> str:
    if isinstance(value, Secret):
        return _HIDDEN if value else ""
    if isinstance(value, StoreUrl):
        return value.shown
    raise NotImplementedError(type(value))


def _compared(path: str, before: object, after: object) -> Iterator[Change]:
    if before == after:
        return
    ours, theirs = _parts(path, before), _parts(path, after)
    if type(before) is not type(after) or not (ours and theirs):
        yield _change(path, before, after)
        return
    for inner in [*ours, *(name for name in theirs if name not in ours)]:
        yield from _compared(inner, ours.get(inner), theirs.get(inner))


def _parts(path: str, value: object) -> Mapping[str, object]:
    """What is inside, by its key; nothing inside a single value."""
    if isinstance(value, msgspec.Struct):
        return {
            key_path(path, each.encode_name): getattr(value, each.name)
            for each in msgspec.structs.fields(value)
        }
    if isinstance(value, dict):
        return {key_path(path, name): inner for name, inner in value.items()}
    if isinstance(value, tuple) and all(isinstance(each, msgspec.Struct) for each in value):
        return {f"{path}[{place}]": inner for place, inner in enumerate(value)}
    return {}


def _change(key: str, before: object, after: object) -> Change:
    needs = any(key == each or key.startswith((f"{each}.", f"{each}[")) for each in NEEDS_RESTART)
    return Change(key, shown(before), shown(after), needs)
