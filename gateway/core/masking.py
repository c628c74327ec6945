"""What is taken out of every text before it is logged: whatever looks like a secret or an address.

Log lines hold ids, and no word of ours names a secret; but the words of an error from a library are
not ours. Promises that keys, tokens, user names and paths of URLs, and the names before an `@` do
not get through in the shapes they have here. Refuses to know who logs.
"""

from __future__ import annotations

import re

MASK = "***"
# Gateway keys; OpenAI's, Stripe's and Slack's keys and secrets, each by how it begins.
_KEYS = re.compile(r"\b(qg_|sk[-_]|rk_|pk_|whsec_|xox[a-z]-)[\w*.~+/=-]{2,}")
_TOKENS = re.compile(r"\beyJ[\w-]{4,}(?:\.[\w-]*)*")
_CREDENTIALS = re.compile(r"\b(bearer|basic)\s+[\w.~+/=-]{6,}", re.IGNORECASE)
_URLS = re.compile(r"\b([a-z][a-z0-9+.-]*://)([^\s'\"<>]*)", re.IGNORECASE)
_PATH = re.compile(r"[/?#]")
_ADDRESSES = re.compile(r"[\w.+-]+@([\w-]+(?:\.[\w-]+)+)")


def masked(text: str) -> str:
    """The text without secrets: of a URL scheme, host and port are left, of an address its domain,
    of a key how it begins."""
    if "://" in text:
        text = _URLS.sub(_url, text)
    if "@" in text:
        text = _ADDRESSES.sub(rf"{MASK}@\1", text)
    text = _TOKENS.sub(f"eyJ{MASK}", text)
    text = _CREDENTIALS.sub(rf"\1 {MASK}", text)
    return _KEYS.sub(rf"\1{MASK}", text)


def _url(found: re.Match[str]) -> str:
    scheme, rest = found[1], found[2]
    parts = _PATH.split(rest, maxsplit=1)
    authority, path = parts[0], parts[1] if len(parts) > 1 else ""
    if "@" in path:  # a password may have had a slash: then no part of this is sure to be a host
        return scheme + MASK
    return scheme + authority.rpartition("@")[2] + ("/…" if path else "")
