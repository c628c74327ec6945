"""Values that a plain string is too weak for: secrets, URLs with passwords, addresses.

A secret shows itself nowhere, neither in a repr nor in a log line; `reveal()` is the one way to its
text, so that a search for that word finds every place where a secret leaves. Parsing errors say
what was expected and never repeat what was found.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

EMBEDDED = "embedded"
PORT_MAX = 65_535
_HOST = r"\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+"
ADDRESS_PATTERN = rf"^({_HOST}):([0-9]{{1,5}})$"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")
# Hosts with ports, more than one for Postgres, then a path: what is left without the user.
_PLACE = re.compile(rf"(?:(?:{_HOST})(?::[0-9]{{1,5}})?(?:,|(?=/|$)))*(?:/\S*)?")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://")


class _Hidden:
    """Text behind `reveal()`.

    No dataclass, on purpose: msgspec and `dataclasses.asdict` would write out the fields of one.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself. What is done with it is up to the caller."""
        return self._text

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)


class Secret(_Hidden):
    """Text nobody may see; false when empty."""

    __slots__ = ()

    @property
    def is_header_value(self) -> bool:
        """Whether it can be sent in a header: printable ASCII without spaces, or nothing."""
        return all("!" <= character <= "~" for character in self._text)

    def __bool__(self) -> bool:
        return bool(self._text)


class StoreUrl(_Hidden):
    """Where a store is: a URL, which may hold a password, or the word `embedded`."""

    __slots__ = ()

    @property
    def is_embedded(self) -> bool:
        """Whether the gateway starts this store itself."""
        return self._text == EMBEDDED

    @property
    def scheme(self) -> str:
        """What stands before `://`; empty when nothing does."""
        return scheme_of(self._text)

    @property
    def place(self) -> str | None:
        """Hosts and path, without user, password and parameters; None when they cannot be told
        apart.

        A parameter may hold a password, and a password may hold a question mark or an @. What
        follows the last @ and stands before the first ? is neither.
        """
        rest = self._text.partition("://")[2]
        if "?" in rest and rest.rfind("@") > rest.find("?"):
            return None
        return re.split("[?#]", rest.rpartition("@")[2])[0]

    @property
    def has_place(self) -> bool:
        """Whether there is a host or a path, as far as can be told."""
        place = self.place
        return place is None or (bool(place) and _PLACE.fullmatch(place) is not None)

    @property
    def shown(self) -> str:
        """The URL as anybody may see it."""
        if self.is_embedded:
            return EMBEDDED
        place = self.place
        return f"{self.scheme}://{'...' if place is None else place}"

    def __str__(self) -> str:
        return self.shown


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. Port 0 takes any free one; an IPv6 host is without its brackets here."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_address(text: str) -> Address:
    """The address in `host:port`; ValueError for anything else."""
    match = re.fullmatch(ADDRESS_PATTERN, text)
    if match is None or int(match[2]) > PORT_MAX:
        raise ValueError("not host:port")
    return Address(match[1].strip("[]"), int(match[2]))


def is_name(text: str) -> bool:
    """Whether this can name a model or a tier: letters, digits and ._:/-, at most 128."""
    return _NAME.fullmatch(text) is not None


def scheme_of(url: str) -> str:
    """What stands before `://`, in small letters; empty when nothing does."""
    match = _SCHEME.match(url)
    return match[1] if match else ""


def is_web_url(url: str) -> bool:
    """Whether this is http(s)://host[:port][/path] and nothing more: no user, no parameters."""
    try:
        parts = urlsplit(url)
        well_formed = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False
    plain = "@" not in url and not parts.query and not parts.fragment and url.isprintable()
    return well_formed and plain and parts.scheme in ("http", "https") and " " not in url
