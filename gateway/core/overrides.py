"""What a user has of its own instead of its tier's limits.

A field that is not set leaves the tier's; null means that there is no such limit. They are kept as
JSON beside the user, and read here alone. They refuse to know what binds whom: of a member of a
team, `tokens` is its ceiling within the team.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

_Amount: TypeAlias = Annotated[int, Meta(ge=0, le=10**12)]
_Rate: TypeAlias = Annotated[int, Meta(ge=1, le=10**12)]
_Pounds: TypeAlias = Annotated[str, Meta(pattern=r"^[0-9]{1,6}(\.[0-9]{1,9})?$")]
_Models: TypeAlias = Annotated[tuple[str, ...], Meta(min_length=1, max_length=200)]


class Overrides(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Limits of one user. `tokens` a period, `rpm` and `tpm` requests and tokens a minute,
    `concurrent` calls at once, `gbp` pounds a period, `models` as in a tier."""

    tokens: _Amount | UnsetType = UNSET
    rpm: _Rate | UnsetType | None = UNSET
    tpm: _Rate | UnsetType | None = UNSET
    concurrent: _Rate | UnsetType | None = UNSET
    gbp: _Pounds | UnsetType | None = UNSET
    models: _Models | UnsetType = UNSET


NO_OVERRIDES = Overrides()


def encode_overrides(overrides: Overrides) -> str:
    """As JSON, without what is not set."""
    return msgspec.json.encode(overrides).decode()


def decode_overrides(text: str | bytes) -> Overrides:
    """The way back. ValueError names the field and what was expected."""
    return msgspec.json.decode(text, type=Overrides)
