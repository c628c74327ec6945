"""The models that may be called, as the configuration states them, by the names callers give.

Frozen values. A name in the configuration may end in `*` and then stands for all that begin so; the
entry `*` is the declared default for names that nothing else matches. What is booked and priced is
the entry, what is sent upstream is the name that was called, or the entry's `upstream_model`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from gateway.core.prompt.pictures import PictureRule

PER_MILLE = 1000
# OpenAI calls a model that does not change by the name of its family and the day it was made.
_SNAPSHOT = re.compile(r"(.+)-[0-9]{4}-[0-9]{2}-[0-9]{2}")


@dataclass(frozen=True, slots=True)
class Weights:
    """What a cached prompt token and a reasoning token count against the quota, in thousandths."""

    cached_per_mille: int = PER_MILLE
    reasoning_per_mille: int = PER_MILLE
    spare_nothing: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        whole = self.cached_per_mille == self.reasoning_per_mille == PER_MILLE
        object.__setattr__(self, "spare_nothing", whole)


@dataclass(frozen=True, slots=True)
class Model:
    """One entry: where it runs and what it can take.

    `output_tokens_default` is the cap that is held and sent when a caller names none;
    `output_tokens_min` is the lowest cap worth lowering to before a call is refused. A model that
    writes nothing (embeddings) has 0 for all three. `takes_audio`: it hears and speaks in chats.
    `pictures`: what a picture costs; None: it takes none. `upstream_model` is what the upstream
    calls it, None where it is called as the caller did. `snapshots`: its name may be followed by a
    date.
    """

    name: str
    upstream: str
    tokenizer: str
    context_tokens: int
    output_tokens_max: int
    output_tokens_default: int
    output_tokens_min: int
    weights: Weights
    upstream_model: str | None = None
    snapshots: bool = False
    takes_audio: bool = False
    pictures: PictureRule | None = None

    @property
    def is_pattern(self) -> bool:
        """Whether it stands for many names, and is none itself."""
        return self.name.endswith("*")


def covers(pattern: str, name: str) -> bool:
    """Whether `pattern` is that name, or ends in `*` and the name begins so."""
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def entry_behind(models: Iterable[Model], billed: str) -> Model | None:
    """The entry that was called, for the name under which upstream counts it: its own, the one it
    has upstream, or either before a date. (Which one is called by its family's name, and counted by
    its snapshot's, is upstream's to say; so `snapshots` is not asked.) Else the longest pattern."""
    entries = list(models)
    dated = _SNAPSHOT.fullmatch(billed)
    for name in (billed, *([dated[1]] if dated else ())):
        for entry in entries:
            if name in (entry.name, entry.upstream_model):
                return entry
    fitting = [each for each in entries if each.is_pattern and covers(each.name, billed)]
    return max(fitting, key=lambda each: len(each.name), default=None)


class ModelTable:
    """All entries, by name and by pattern."""

    def __init__(self, models: Iterable[Model]) -> None:
        self._entries = {model.name: model for model in models}
        patterns = [model for model in self._entries.values() if model.is_pattern]
        # The longest says most.
        self._patterns = sorted(patterns, key=lambda model: len(model.name), reverse=True)

    def find(self, called: str) -> Model | None:
        """The entry for the name a caller gave: its own, else that of which it is a snapshot, else
        that of the longest pattern."""
        entry = self._entries.get(called)
        if entry is not None:
            return entry
        dated = _SNAPSHOT.fullmatch(called)
        entry = self._entries.get(dated[1]) if dated else None
        if entry is not None and entry.snapshots:
            return entry
        return next((entry for entry in self._patterns if covers(entry.name, called)), None)

    def __getitem__(self, name: str) -> Model:
        """The entry of that very name."""
        return self._entries[name]

    def __iter__(self) -> Iterator[Model]:
        return iter(self._entries.values())
