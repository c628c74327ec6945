"""Prompts that are plain texts or token ids: what `prompt` of a completion and `input` of an
embedding may be, and how many tokens that is.

OpenAI takes one text, several texts, one list of token ids, or several of them. Each is counted as
it stands, without any wrapping; an empty one as the one token that upstreams put in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Input = str | list[int]


def inputs_of(value: Any) -> Sequence[Input] | None:
    """The prompts in `value`, None when it is of no such form. Linear, but may be long."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        return None
    kinds = set(map(type, value))
    if kinds == {int}:
        return [value]
    if kinds == {str} or (kinds == {list} and all(set(map(type, ids)) == {int} for ids in value)):
        return value
    return None


def count_inputs(inputs: Sequence[Input], count: Callable[[str], int]) -> int:
    """Tokens of all of them; a token id counts one."""
    return sum(max(1, count(each) if isinstance(each, str) else len(each)) for each in inputs)
