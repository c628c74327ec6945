"""Every secret of a configuration, for whoever has to keep them out of a text.

The one place where all of them are revealed together; nothing is done with them here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from urllib.parse import unquote

import msgspec

from gateway.config.values import Secret, StoreUrl

# Shorter ones may be ordinary words, which would then be missing everywhere.
_CHARS_MIN = 6


def secrets_of(section: msgspec.Struct) -> tuple[str, ...]:
    """Secrets and passwords of stores, the longest first, but for very short ones."""
    found = {text for text in _found(section) if len(text) >= _CHARS_MIN}
    return tuple(sorted(found, key=len, reverse=True))


def _found(value: object) -> Iterator[str]:
    if isinstance(value, Secret):
        yield value.reveal()
    elif isinstance(value, StoreUrl):
        user = value.reveal().partition("://")[2].rpartition("@")[0]
        password = user.partition(":")[2]
        yield from (password, unquote(password))
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield from _found(getattr(value, name))
    elif isinstance(value, (Mapping, list, tuple)):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _found(each)
