"""What the shape of the file has room for and this version does not do yet.

Such a key is accepted in its empty form, so that a file written for a later version needs few
changes, and refused otherwise: a limit that is written down and not enforced is worse than none.
When a subject is built, its line here goes.
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.config.errors import Problem, key_path
from gateway.config.shape import File, Limits


def unavailable(file: File) -> list[Problem]:
    """One problem for each key that asks for something this version cannot do."""
    return [
        Problem(path, f"is not available in this version; {instead}")
        for path, asked_for, instead in _subjects(file)
        if asked_for
    ]


def _subjects(file: File) -> Iterator[tuple[str, bool, str]]:
    """Key, whether it is used, and what to write instead."""
    no_list, no_value = "leave it out or write []", "leave it out or write null"
    identity, notify = file.identity, file.notify
    yield "identity.jwt", bool(identity.jwt), no_list
    yield "identity.header", identity.header is not None, no_value
    yield "notify.smtp", notify.smtp is not None, no_value
    yield "notify.webhooks", bool(notify.webhooks), no_list
    yield "notify.operators", bool(notify.operators), no_list
    yield "payments.stripe", file.payments.stripe is not None, no_value
    for name, tier in file.plan.tiers.items():
        path = key_path("plan.tiers", name)
        yield f"{path}.shadow", tier.shadow, "leave it out or write false"
        for limit in Limits.__struct_fields__:
            if limit != "models":
                asked_for = getattr(tier.limits, limit) is not None
                yield f"{path}.limits.{limit}", asked_for, no_value
