"""The shape of the section `identity`: keys, issuers of tokens, a server in front.

Part of `shape`, and like it the one list of what may stand there. What goes together and what does
not is in `identity_checks`.
"""

from __future__ import annotations

from msgspec import field

from gateway.config import ranges
from gateway.config.section import Section, no_secret
from gateway.config.values import Secret


class Keys(Section, frozen=True):
    """Gateway API keys."""

    pepper: Secret = field(default_factory=no_secret)


class Claims(Section, frozen=True):
    """Names of what a token says of its user."""

    user: ranges.Text = "sub"
    tier: ranges.Text | None = None
    email: ranges.Text | None = "email"


class Jwt(Section, frozen=True):
    """One issuer of tokens."""

    issuer: ranges.Text
    audience: ranges.Text
    algorithms: tuple[ranges.Algorithm, ...]
    jwks_url: ranges.WebUrl | None = None
    secret: Secret = field(default_factory=no_secret)
    claims: Claims = field(default_factory=Claims)
    create: bool = False
    leeway_s: ranges.LeewaySeconds = 30


class Header(Section, frozen=True):
    """A header of a server in front, and how that server proves itself."""

    name: ranges.HeaderName
    secret_header: ranges.HeaderName
    secret: Secret
    tier_header: ranges.HeaderName | None = None
    email_header: ranges.HeaderName | None = None
    peers: tuple[ranges.Text, ...] = ("127.0.0.0/8", "::1/128")
    create: bool = False


class Identity(Section, frozen=True):
    """How a caller proves who it is."""

    keys: Keys = field(default_factory=Keys)
    jwt: tuple[Jwt, ...] = ()
    header: Header | None = None
