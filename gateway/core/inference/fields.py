"""Reading single fields of a request's body, and refusing them by name.

What is wrong is told with the field's path and what was expected there; a value is never quoted at
length. What the fields mean is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.core.refusal import Case, Refused
from gateway.core.usage import LABEL_CHARS_MAX, label

_LABEL = f"printable ASCII, at most {LABEL_CHARS_MAX} characters"


def model_of(body: Mapping[str, Any]) -> str:
    """The name of the model that is called. It may go upstream, into logs and into messages."""
    model = body.get("model")
    if not isinstance(model, str) or label(model) is None:
        raise invalid("model", f"a model's name, {_LABEL}")
    return model


def service_tier_of(body: Mapping[str, Any]) -> str | None:
    """The service tier that is asked for, None when none is."""
    tier = body.get("service_tier")
    if tier is not None and (not isinstance(tier, str) or label(tier) is None):
        raise invalid("service_tier", f"a service tier's name, {_LABEL}")
    return tier


def flag(body: Mapping[str, Any], name: str) -> bool:
    """A switch that is off when it is missing or null."""
    value = body.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise invalid(name, "true or false")
    return value


def whole(
    body: Mapping[str, Any], name: str, most: int | None = None, least: int = 1
) -> int | None:
    """A count from `least` on, None when it is missing."""
    value = body.get(name)
    if value is None:
        return None
    if type(value) is not int or value < least or (most is not None and value > most):
        raise invalid(name, f"a whole number from {least}{f' to {most}' if most else ''}")
    return value


def refuse_fields(body: Mapping[str, Any], names: frozenset[str]) -> None:
    """Refused when one of these asks for anything. An empty object counts as asking:
    `web_search_options: {}` is how a search is switched on."""
    if names.isdisjoint(body):
        return
    for name, value in body.items():
        if name in names and value is not None and value is not False:
            raise unsupported(name, "is not available through this gateway")


def invalid(param: str, expected: str) -> Refused:
    """A field that does not hold what it must."""
    return Refused(
        Case.INVALID_VALUE, f"Invalid value for '{param}': expected {expected}.", param=param
    )


def unsupported(param: str, reason: str) -> Refused:
    """A field that asks for what is not done here."""
    return Refused(Case.UNSUPPORTED_PARAMETER, f"'{param}' {reason}.", param=param)
