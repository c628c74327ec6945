"""What a call costs, in integer nano-GBP, and what it counts against the quota, in tokens.

Price lists are versioned; the id of the version is frozen into a hold, so that a call is booked at
the price under which it was admitted. Nothing is ever free by omission: each version has a default
line, and a price that comes from it says so. Costs are exact and rounded once, per ledger entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal

from gateway.core.models import PER_MILLE, Weights

DEFAULT_LINE = "*"
NANO = 10**9
_MILLION = 10**6


@dataclass(frozen=True, slots=True)
class Price:
    """One line of a price list: whole nano-GBP per million tokens.

    `id` is the version's. `is_default`: nobody priced this model, the default line was taken.
    """

    id: str
    input_nano_gbp: int
    cached_nano_gbp: int
    output_nano_gbp: int
    is_default: bool = False


@dataclass(frozen=True, slots=True)
class PriceVersion:
    """A price list that holds from `from_ms` (Unix milliseconds) on.

    Its default line is there and marked as such.
    """

    id: str
    from_ms: int
    lines: Mapping[str, Price]

    def __post_init__(self) -> None:
        default = self.lines.get(DEFAULT_LINE)
        if default is None or not default.is_default:
            raise ValueError(f'price version {self.id!r} has no default line "{DEFAULT_LINE}"')

    def price_of(self, model: str) -> Price:
        """The model's line, else the default line."""
        return self.lines.get(model) or self.lines[DEFAULT_LINE]


@dataclass(frozen=True, slots=True)
class PriceTable:
    """All versions, oldest first; at least one."""

    versions: tuple[PriceVersion, ...]

    def __post_init__(self) -> None:
        starts = [version.from_ms for version in self.versions]
        if not starts or sorted(set(starts)) != starts:
            raise ValueError("price versions: at least one, each later than the one before")

    def price_for(self, model: str, now_ms: int) -> Price:
        """The price of a call that is admitted now.

        Before the first version begins, that one is taken and marked as default: a wrong date must
        neither stop traffic nor make it free, but it must be seen.
        """
        for version in reversed(self.versions):
            if version.from_ms <= now_ms:
                return version.price_of(model)
        return replace(self.versions[0].price_of(model), is_default=True)

    def by_id(self, price_id: str, model: str) -> Price | None:
        """The price that was frozen as `price_id`; None when that version is no longer there."""
        for version in self.versions:
            if version.id == price_id:
                return version.price_of(model)
        return None


def nano_gbp(amount: Decimal, gbp_per_unit: Decimal) -> int:
    """An amount of the price list's currency as whole nano-GBP; ValueError if it is not whole.

    Refusing here keeps the promise of one rounding: the price itself is never rounded.
    """
    nano = amount * gbp_per_unit * NANO
    if nano != int(nano):
        raise ValueError(f"{amount} x {gbp_per_unit} is not a whole number of nano-GBP")
    return int(nano)


def cost_nano_gbp(price: Price, prompt_tokens: int, cached_tokens: int, output_tokens: int) -> int:
    """What these raw counts cost, rounded half up. `prompt_tokens` includes the cached ones."""
    prompt = max(prompt_tokens, 0)
    cached = min(max(cached_tokens, 0), prompt)
    millionths = (
        (prompt - cached) * price.input_nano_gbp
        + cached * price.cached_nano_gbp
        + max(output_tokens, 0) * price.output_nano_gbp
    )
    return (millionths + _MILLION // 2) // _MILLION


def held_nano_gbp(price: Price, prompt_tokens: int) -> tuple[int, int]:
    """What a hold takes of a budget: for the prompt, and for each token of output. Rounded up, so
    that a call within its hold never costs more than was held."""
    prompt = prompt_tokens * max(price.input_nano_gbp, price.cached_nano_gbp)
    return -(-prompt // _MILLION), -(-price.output_nano_gbp // _MILLION)


def charged_tokens(
    prompt_tokens: int,
    cached_tokens: int,
    output_tokens: int,
    reasoning_tokens: int,
    weights: Weights,
) -> int:
    """What these raw counts take from the quota: weighted, rounded up.

    Never more than prompt plus output. Cached tokens are part of the prompt and reasoning tokens
    part of the output; an upstream that claims more is not believed.
    """
    prompt, output = max(prompt_tokens, 0), max(output_tokens, 0)
    cached = min(max(cached_tokens, 0), prompt)
    reasoning = min(max(reasoning_tokens, 0), output)
    spared_per_mille = cached * (PER_MILLE - weights.cached_per_mille) + reasoning * (
        PER_MILLE - weights.reasoning_per_mille
    )
    return prompt + output - spared_per_mille // PER_MILLE
