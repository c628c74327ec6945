"""What a call costs, in integer nano-GBP, and what it counts against the quota, in tokens.

Price lists are versioned; the id of the version is frozen into a hold, so that a call is booked at
the price under which it was admitted. Nothing is ever free or cheap by omission: each version has a
default line for what has none of its own, and a price that comes from it says so. Costs are exact
and rounded once, per ledger entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import partial

from gateway.core.models import PER_MILLE, Weights
from gateway.core.usage import Usage

DEFAULT_LINE = "*"
NANO = 10**9
_MILLION = 10**6
_ANY_LENGTH = 2**63
# The ordinary tier, by its names or left open; and the other name of a tier that answers know as
# `priority` (the `service_tier` parameter in OpenAI's API reference, November 2026).
ORDINARY_TIERS = frozenset({"auto", "default", "standard"})
OTHER_NAMES = {"fast": "priority"}


@dataclass(frozen=True, slots=True)
class Price:
    """One line of a price list: whole nano-GBP per million tokens.

    `id` is the version's. `is_default`: nobody priced this, the default line was taken. Writing to
    the cache costs what input does where it has no price; audio without one is not sold here.
    `long` takes the line's place for a prompt of more than `long_above_tokens`, `tiers` do for the
    service tiers, and `otherwise`, the default line, for what has no price here. `dearest_*` are of
    this line alone; `held_*` of it and all its tiers, for prompts of up to `short_tokens`.
    """

    id: str
    input_nano_gbp: int
    cached_nano_gbp: int
    output_nano_gbp: int
    is_default: bool = False
    cache_write_nano_gbp: int | None = None
    audio_input_nano_gbp: int | None = None
    audio_output_nano_gbp: int | None = None
    long_above_tokens: int = 0
    long: Price | None = None
    tiers: Mapping[str, Price] = field(default_factory=dict)
    otherwise: Price | None = None
    dearest_input_nano_gbp: int = field(init=False, repr=False, compare=False)
    dearest_output_nano_gbp: int = field(init=False, repr=False, compare=False)
    held_input_nano_gbp: int = field(init=False, repr=False, compare=False)
    held_output_nano_gbp: int = field(init=False, repr=False, compare=False)
    short_tokens: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Every call is held at these, so they are found once, when the list is read.
        found = partial(object.__setattr__, self)
        cached, written = self.cached_nano_gbp, self.cache_write_nano_gbp or 0
        dearest = max(self.input_nano_gbp, cached, written, self.audio_input_nano_gbp or 0)
        found("dearest_input_nano_gbp", dearest)
        found("dearest_output_nano_gbp", max(self.output_nano_gbp, self.audio_output_nano_gbp or 0))
        lines = (self, *self.tiers.values())
        found("held_input_nano_gbp", max([line.dearest_input_nano_gbp for line in lines]))
        found("held_output_nano_gbp", max([line.dearest_output_nano_gbp for line in lines]))
        lengths = [line.long_above_tokens for line in lines if line.long]
        found("short_tokens", min(lengths, default=_ANY_LENGTH))

    def at_length(self, prompt_tokens: int) -> Price:
        """The line for a prompt of this length."""
        return self.long if self.long and prompt_tokens > self.long_above_tokens else self

    def sells(self, used: Usage) -> bool:
        """Whether everything that was used has a price here."""
        if used.audio_input_tokens and self.audio_input_nano_gbp is None:
            return False
        return not used.audio_output_tokens or self.audio_output_nano_gbp is not None


@dataclass(frozen=True, slots=True)
class PriceVersion:
    """A price list that holds from `from_ms` (Unix milliseconds) on.

    Its default line is there and marked as such; all others know it as their `otherwise`.
    """

    id: str
    from_ms: int
    lines: Mapping[str, Price]

    def __post_init__(self) -> None:
        default = self.lines.get(DEFAULT_LINE)
        if default is None or not default.is_default:
            raise ValueError(f'price version {self.id!r} has no default line "{DEFAULT_LINE}"')
        lines = {
            name: line if line is default else replace(line, otherwise=default)
            for name, line in self.lines.items()
        }
        object.__setattr__(self, "lines", lines)

    def price_of(self, model: str) -> Price:
        """The line of that very name, else the default line."""
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


def nano_of(pounds: str | None) -> int | None:
    """Pounds as text in nano-GBP, exactly; None stays None."""
    return None if pounds is None else int(Decimal(pounds) * NANO)


def nano_gbp(amount: Decimal, gbp_per_unit: Decimal) -> int:
    """An amount of the price list's currency as whole nano-GBP; ValueError if it is not whole.

    Refusing here keeps the promise of one rounding: the price itself is never rounded.
    """
    nano = amount * gbp_per_unit * NANO
    if nano != int(nano):
        raise ValueError(f"{amount} x {gbp_per_unit} is not a whole number of nano-GBP")
    return int(nano)


def line_of_call(price: Price, used: Usage, service_tier: str | None = None) -> Price:
    """The line on which a call is booked, by the service tier that its answer names.

    A tier, or audio, without a price of its own is booked on the default line and marked so.
    """
    line: Price | None = price
    if service_tier is not None and service_tier not in ORDINARY_TIERS:
        line = _line_of_tier(price, service_tier)
    if line is not None and line.long is not None:
        line = line.at_length(used.prompt_tokens)
    if line is None or not line.sells(used):
        line = price.otherwise or price
    return replace(line, is_default=True) if price.is_default and not line.is_default else line


def cost_nano_gbp(line: Price, used: Usage) -> int:
    """What these raw counts cost on a line, rounded half up.

    Upstreams do not say whether their parts overlap: what could be two things is the dearer one.
    """
    prompt, cached, output = used.prompt_tokens, used.cached_tokens, used.output_tokens
    apart = used.cache_write_tokens or used.audio_input_tokens or used.audio_output_tokens
    if not apart and 0 <= cached <= prompt and output >= 0:  # nearly every call
        millionths = (
            (prompt - cached) * line.input_nano_gbp
            + cached * line.cached_nano_gbp
            + output * line.output_nano_gbp
        )
    else:
        millionths = _millionths(line, used)
    return (millionths + _MILLION // 2) // _MILLION


def _millionths(line: Price, used: Usage) -> int:
    prompt, output = max(used.prompt_tokens, 0), max(used.output_tokens, 0)
    heard = _part(used.audio_input_tokens, prompt)
    written = _part(used.cache_write_tokens, prompt - heard)
    cached = _part(used.cached_tokens, prompt - heard - written)
    spoken = _part(used.audio_output_tokens, output)
    return (
        (prompt - heard - written - cached) * line.input_nano_gbp
        + cached * line.cached_nano_gbp
        + written * _priced(line.cache_write_nano_gbp, line.input_nano_gbp)
        + heard * _priced(line.audio_input_nano_gbp, line.input_nano_gbp)
        + (output - spoken) * line.output_nano_gbp
        + spoken * _priced(line.audio_output_nano_gbp, line.output_nano_gbp)
    )


def held_nano_gbp(
    price: Price, prompt_tokens: int, service_tier: str | None = None
) -> tuple[int, int]:
    """What a hold takes of a budget: for the prompt, and for each token of output.

    Of all lines to which a request for this service tier can lead, the dearest: an upstream may
    serve it on the ordinary one instead, and chooses any where none is asked for. Rounded up, so
    that a call within its hold never costs more than was held.
    """
    if service_tier is None and prompt_tokens <= price.short_tokens:  # nearly every call
        dearest_input, dearest_output = price.held_input_nano_gbp, price.held_output_nano_gbp
    else:
        lines = _reachable(price, service_tier)
        lines.extend([line.at_length(prompt_tokens) for line in lines])
        dearest_input = max([line.dearest_input_nano_gbp for line in lines])
        dearest_output = max([line.dearest_output_nano_gbp for line in lines])
    return -(-prompt_tokens * dearest_input // _MILLION), -(-dearest_output // _MILLION)


def _reachable(price: Price, service_tier: str | None) -> list[Price]:
    if service_tier is None or service_tier == "auto":
        return [price, *price.tiers.values()]
    if service_tier in ORDINARY_TIERS:
        return [price]
    return [price, _line_of_tier(price, service_tier) or price.otherwise or price]


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
    if weights.spare_nothing and prompt_tokens >= 0 and output_tokens >= 0:
        return prompt_tokens + output_tokens
    prompt, output = max(prompt_tokens, 0), max(output_tokens, 0)
    cached, reasoning = _part(cached_tokens, prompt), _part(reasoning_tokens, output)
    spared_per_mille = cached * (PER_MILLE - weights.cached_per_mille) + reasoning * (
        PER_MILLE - weights.reasoning_per_mille
    )
    return prompt + output - spared_per_mille // PER_MILLE


def _line_of_tier(price: Price, service_tier: str) -> Price | None:
    """The line of a tier that is not the ordinary one; None without a price of its own."""
    return price.tiers.get(OTHER_NAMES.get(service_tier, service_tier))


def _part(tokens: int, whole: int) -> int:
    """That part of a whole, within it."""
    if tokens <= 0:
        return 0
    return tokens if tokens < whole else whole


def _priced(own: int | None, otherwise: int) -> int:
    return otherwise if own is None else own
