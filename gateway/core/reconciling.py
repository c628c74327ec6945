"""The ledger beside what OpenAI says it served and charged: differences, and what explains them.

Days are UTC, tokens raw, money nano-GBP; OpenAI's dollars come in at one rate. Days may cancel
each other within a model, since a call can fall on two days; models never do. Promises that nothing
on either side is left out of the totals but what never went to OpenAI through this gateway.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

Standing = Literal["measured", "estimated", "client_gone", "upstream_failed", "recorded"]
PENNY_NANO = 10_000_000

CAUSES = {
    "today": "the day is not over, or OpenAI has not counted it to its end: compare again later",
    "beside": "OpenAI counts more requests than were booked: calls that went past this gateway",
    "unknown_model": "the configuration has no such model at OpenAI: nobody calls it through here",
    "estimated": "upstream told no usage (an expired hold, an outage): counted here, billed there",
    "client_gone": "the client left: charged as far as it was relayed, billed as far as it came",
    "upstream_failed": "sent, and answered by an error: booked at nothing, perhaps billed",
    "recorded": "told to POST /quota/v1/usage, never sent from here: left out of the comparison",
    "day_border": "began on one day and ended on another: OpenAI may count it on the other",
    "snapshots": "OpenAI's names of the model, each counted under the entry of the configuration",
    "cached": "another part of the prompt came from the cache: the same tokens, another price",
    "default_price": "booked at the default line of the price list, because the model has no other",
    "rounding": "less than a penny: each side rounds for itself",
}
"""Every known cause, in the order in which to look at them."""


@dataclass(frozen=True, slots=True)
class Booked:
    """What the ledger has of one day, model, price and standing. `over_midnight_tokens`: of calls
    that began on the day before."""

    day: str
    model: str
    price_id: str
    standing: Standing
    calls: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    nano_gbp: int
    over_midnight_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Used:
    """What OpenAI served on one day under one of its names of models."""

    day: str
    name: str
    calls: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Paid:
    """What OpenAI charged on one day for one item: "gpt-4o-mini-2024-07-18, input"."""

    day: str
    item: str
    usd: Decimal


@dataclass(slots=True)
class Side:
    """One side's figures of one line."""

    calls: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    nano_gbp: int = 0

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def add(self, each: Booked | Used) -> None:
        """Calls and tokens."""
        self.calls += each.calls
        self.input_tokens += each.input_tokens
        self.cached_tokens += each.cached_tokens
        self.output_tokens += each.output_tokens


@dataclass(slots=True)
class Line:
    """A day and a model. `causes`: by name, with a figure in words. `unmeasured_tokens`: those of
    the ledger that no usage of upstream stands behind."""

    day: str
    model: str
    ledger: Side = field(default_factory=Side)
    openai: Side = field(default_factory=Side)
    causes: dict[str, str] = field(default_factory=dict)
    unmeasured_tokens: int = 0

    @property
    def tokens_off(self) -> int:
        """OpenAI's minus the ledger's."""
        return self.openai.tokens - self.ledger.tokens

    @property
    def nano_gbp_off(self) -> int:
        return self.openai.nano_gbp - self.ledger.nano_gbp

    @property
    def explained_tokens(self) -> int:
        """How much of the difference estimates alone can be."""
        return min(abs(self.tokens_off), self.unmeasured_tokens)


@dataclass(frozen=True, slots=True)
class Terms:
    """What the comparison needs of the configuration. `entry_of`: the entry for a name of OpenAI's,
    None when there is none. `is_default`: whether that price of that model is the default line."""

    entry_of: Callable[[str], str | None]
    is_default: Callable[[str, str], bool]
    gbp_per_usd: Decimal
    today: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """All lines, by day and model. Figures of the whole are over models: the days of one may cancel
    each other."""

    lines: tuple[Line, ...]

    @property
    def ledger(self) -> Side:
        return _sum(line.ledger for line in self.lines)

    @property
    def openai(self) -> Side:
        return _sum(line.openai for line in self.lines)

    @property
    def tokens_off_percent(self) -> float:
        """The differences of all models, none against another, as a share of the larger side."""
        whole = max(self.ledger.tokens, self.openai.tokens)
        return _percent(self._off(lambda line: line.tokens_off), whole)

    @property
    def cost_off_percent(self) -> float:
        """The same of money."""
        whole = max(self.ledger.nano_gbp, self.openai.nano_gbp)
        return _percent(self._off(lambda line: line.nano_gbp_off), whole)

    @property
    def explained_tokens(self) -> int:
        return sum(line.explained_tokens for line in self.lines)

    def is_within(self, percent: float) -> bool:
        """Whether neither tokens nor money differ by more."""
        return max(self.tokens_off_percent, self.cost_off_percent) <= percent

    def _off(self, off: Callable[[Line], int]) -> int:
        of_models: defaultdict[str, int] = defaultdict(int)
        for line in self.lines:
            of_models[line.model] += off(line)
        return sum(map(abs, of_models.values()))


def compare(
    booked: Iterable[Booked], used: Iterable[Used], paid: Iterable[Paid], terms: Terms
) -> Comparison:
    """Both sides, day by day and model by model."""
    lines: dict[tuple[str, str], Line] = {}

    def line_of(day: str, model: str) -> Line:
        return lines.setdefault((day, model), Line(day, model))

    counts = _Counts()
    for row in booked:
        _take(line_of(row.day, row.model), row, counts, terms)
    for served in used:
        line = line_of(served.day, terms.entry_of(served.name) or served.name)
        line.openai.add(served)
        counts.names[served.day, line.model].add(served.name)
        if terms.entry_of(served.name) is None:
            line.causes["unknown_model"] = served.name
    for item in paid:
        name = item.item.rpartition(",")[0] or item.item
        line = line_of(item.day, terms.entry_of(name) or name)
        line.openai.nano_gbp += round(item.usd * terms.gbp_per_usd * 10**9)
        if terms.entry_of(name) is None:
            line.causes["unknown_model"] = name
    for key, line in lines.items():
        _explain(line, counts, key, terms)
    return Comparison(tuple(lines[key] for key in sorted(lines)))


class _Counts:
    """What is gathered of a line before it can be told."""

    def __init__(self) -> None:
        self.names: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        self.over_midnight: defaultdict[tuple[str, str], int] = defaultdict(int)


def _take(line: Line, row: Booked, counts: _Counts, terms: Terms) -> None:
    tokens = row.input_tokens + row.output_tokens
    if row.standing != "measured":
        _note(line, row.standing, row.calls, tokens)
    if row.standing == "recorded":
        return
    line.ledger.add(row)
    line.ledger.nano_gbp += row.nano_gbp
    counts.over_midnight[row.day, row.model] += row.over_midnight_tokens
    if row.standing != "measured":
        line.unmeasured_tokens += tokens
    if terms.is_default(row.price_id, row.model):
        line.causes["default_price"] = row.price_id


def _note(line: Line, cause: str, calls: int, tokens: int) -> None:
    before = line.causes.get(cause)
    told = f"{_counted(calls, 'call')}, {_counted(tokens, 'token')}"
    line.causes[cause] = told if before is None else f"{before}; {told}"


def _explain(line: Line, counts: _Counts, key: tuple[str, str], terms: Terms) -> None:
    """Causes that show only once both sides are there; then all in their order."""
    causes, names = line.causes, counts.names[key]
    if line.day >= terms.today:
        causes["today"] = line.day
    more = line.openai.calls - line.ledger.calls
    if more > 0:
        causes["beside"] = _counted(more, "request")
    if names - {line.model} and "unknown_model" not in causes:
        causes["snapshots"] = " ".join(sorted(names))
    border = counts.over_midnight[key]
    if border and line.tokens_off:
        causes["day_border"] = _counted(border, "token")
    cached = line.openai.cached_tokens - line.ledger.cached_tokens
    if cached:
        causes["cached"] = f"{cached:+,} tokens"
    if 0 < abs(line.nano_gbp_off) < PENNY_NANO:
        causes["rounding"] = f"{line.nano_gbp_off / 10**9:+.6f} GBP"
    line.causes = {name: causes[name] for name in CAUSES if name in causes}


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _sum(sides: Iterable[Side]) -> Side:
    total = Side()
    for side in sides:
        total.calls += side.calls
        total.input_tokens += side.input_tokens
        total.cached_tokens += side.cached_tokens
        total.output_tokens += side.output_tokens
        total.nano_gbp += side.nano_gbp
    return total


def _percent(off: int, whole: int) -> float:
    return 100 * off / whole if whole else 0.0
