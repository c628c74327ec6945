"""Inputs of the older kind: a string, a list of strings, a list of tokens, or a list of those.

Completions and embeddings take all four, and count a token that comes as a number as one.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.standin import fields
from gateway.standin.counting import CountTokens
from gateway.standin.errors import invalid
from gateway.standin.fields import Body


@dataclass(frozen=True, slots=True)
class Input:
    """One text, or one row of tokens, whose `text` is empty: nobody here can read tokens."""

    text: str
    numbers: tuple[int, ...] = ()

    def tokens(self, count_tokens: CountTokens) -> int:
        return len(self.numbers) or count_tokens(self.text)


def inputs_of(body: Body, name: str, most: int) -> tuple[Input, ...]:
    """The inputs, at least one and at most so many; Refused when they have another form."""
    given = body.get(name)
    if given is None:
        raise fields.missing(name)
    if isinstance(given, str):
        return (Input(given),)
    if not isinstance(given, list):
        raise fields.wrong_type(name, "a string or an array", given)
    if not given:
        raise fields.empty(name)
    if all(_is_token(each) for each in given):
        return (Input("", tuple(given)),)
    if len(given) > most:
        problem = (
            f"Invalid '{name}': array too long. Expected an array with maximum length {most}, but "
            f"got an array with length {len(given)} instead."
        )
        raise invalid(problem, name, "array_above_max_length")
    return tuple(_input(each, f"{name}[{at}]") for at, each in enumerate(given))


def _input(given: object, at: str) -> Input:
    if isinstance(given, str):
        return Input(given)
    if isinstance(given, list) and given and all(_is_token(each) for each in given):
        return Input("", tuple(given))
    raise fields.wrong_type(at, "a string or an array of tokens", given)


def _is_token(given: object) -> bool:
    return isinstance(given, int) and not isinstance(given, bool) and given >= 0
