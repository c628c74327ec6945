"""The models that may be called, as the configuration states them, by the names callers give.

Frozen values. A name in the configuration may end in `*` and then stands for all that begin so; the
entry `*` is the declared default for names that nothing else matches. What is booked and priced is
the entry, what is sent upstream is the name that was called.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gateway.core.prompt.pictures import PictureRule

PER_MILLE = 1000


@dataclass(frozen=True, slots=True)
class Weights:
    """What a cached prompt token and a reasoning token count against the quota, in thousandths."""

    cached_per_mille: int = PER_MILLE
    reasoning_per_mille: int = PER_MILLE


@dataclass(frozen=True, slots=True)
class Model:
    """One entry: where it runs and what it can take.

    `output_tokens_default` is the cap that is held and sent when a caller names none;
    `output_tokens_min` is the lowest cap worth lowering to before a call is refused. A model that
    writes nothing (embeddings) has 0 for all three. `pictures`: what a picture costs; None:
    it takes none.
    """

    name: str
    upstream: str
    tokenizer: str
    context_tokens: int
    output_tokens_max: int
    output_tokens_default: int
    output_tokens_min: int
    weights: Weights
    pictures: PictureRule | None = None


class ModelTable:
    """All entries, by name and by pattern."""

    def __init__(self, models: Iterable[Model]) -> None:
        self._entries = {model.name: model for model in models}
        patterns = [name[:-1] for name in self._entries if name.endswith("*")]
        self._prefixes = sorted(patterns, key=len, reverse=True)  # the longest says most

    def find(self, called: str) -> Model | None:
        """The entry for the name a caller gave: its own, else that of the longest pattern."""
        entry = self._entries.get(called)
        if entry is not None:
            return entry
        for prefix in self._prefixes:
            if called.startswith(prefix):
                return self._entries[prefix + "*"]
        return None

    def __getitem__(self, name: str) -> Model:
        """The entry of that very name."""
        return self._entries[name]

    def __iter__(self) -> Iterator[Model]:
        return iter(self._entries.values())
