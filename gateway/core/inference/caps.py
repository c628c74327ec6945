"""The cap on what a call may write: what it was called, and between which bounds it is held.

The cap sent is always the cap held, so no second one may pass beside it, whatever an upstream calls
it. What a cap costs is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gateway.core.inference.fields import whole
from gateway.core.models import Model
from gateway.core.refusal import Case, Refused

CAPS: Final = ("max_completion_tokens", "max_tokens", "n_predict")
"""`n_predict` is llama.cpp's own name; its server reads that one first, where both are sent."""
_NAMES: Final = frozenset(CAPS)


def asked_cap(body: Mapping[str, Any], least: int = 1) -> int | None:
    """The caller's cap, the smallest where there are several; None when it names none."""
    if _NAMES.isdisjoint(body):
        return None
    smallest: int | None = None
    for name in CAPS:
        cap = whole(body, name, None, least)
        if cap is not None and (smallest is None or cap < smallest):
            smallest = cap
    return smallest


def cap_bounds(called: str, asked: int | None, model: Model) -> tuple[int, int]:
    """(wanted, least) output tokens within what this model, `called` so, can write; its own default
    is wanted where the caller asked for no cap. Refused where it writes nothing."""
    if not model.output_tokens_max:
        raise Refused(
            Case.INVALID_VALUE,
            f"The model '{called[:100]}' writes no text, so it cannot answer here. Call it at the "
            "route it is made for, such as /v1/embeddings.",
            param="model",
        )
    wanted = model.output_tokens_default if asked is None else asked
    if wanted > model.output_tokens_max:
        wanted = model.output_tokens_max
    return wanted, wanted if wanted < model.output_tokens_min else model.output_tokens_min
