"""Pages: cut from one row more than they show, with a cursor that says where the next one begins.

A cursor is opaque to whoever gets it; one that was made up is refused, never believed. What is
listed is not known here.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from gateway.web.admin.problem import invalid

T = TypeVar("T")


def page_of(
    rows: Sequence[T], rows_max: int, place: Callable[[T], object]
) -> tuple[Sequence[T], str | None]:
    """A page of rows of which one more was asked for, and the cursor of the next one; None where
    there is none. `place` is what a cursor says of a page's last row."""
    if len(rows) <= rows_max:
        return rows, None
    written = base64.urlsafe_b64encode(msgspec.json.encode(place(rows[rows_max - 1])))
    return rows[:rows_max], written.rstrip(b"=").decode()


def read_cursor(cursor: str | None, kind: type[T]) -> T | None:
    """The place in a cursor; None for the first page. Problem when it is none of ours."""
    if cursor is None:
        return None
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        return msgspec.json.decode(base64.urlsafe_b64decode(padded.encode()), type=kind)
    except (msgspec.DecodeError, binascii.Error, ValueError) as error:
        message = "cursor: take the `next_cursor` of the page before, as it is"
        raise invalid(message, "cursor") from error
