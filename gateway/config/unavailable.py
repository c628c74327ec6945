"""What the shape of the file has room for and this version does not do yet.

Such a key is accepted in its empty form, so that a file written for a later version needs few
changes, and refused otherwise: a limit that is written down and not enforced is worse than none.
When a subject is built, its line here goes.
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.config.errors import Problem
from gateway.config.shape import File


def unavailable(file: File) -> list[Problem]:
    """One problem for each key that asks for something this version cannot do."""
    return [
        Problem(path, f"is not available in this version; {instead}")
        for path, asked_for, instead in _subjects(file)
        if asked_for
    ]


def _subjects(file: File) -> Iterator[tuple[str, bool, str]]:
    """Key, whether it is used, and what to write instead."""
    no_list = "leave it out or write []"
    notify = file.notify
    yield "notify.webhooks", bool(notify.webhooks), no_list
    yield "notify.operators", bool(notify.operators), no_list
