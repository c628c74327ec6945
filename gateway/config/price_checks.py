"""Rules of the price lists: dates and ids that differ, lines of models that exist, exact money.

What they have in common: nothing may be free or cheap because nobody priced it, and no price is
ever rounded. How a call finds its line is in `core.pricing`.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from gateway.config.errors import Problem, key_path, unknown
from gateway.config.shape import File, PriceLine, Prices, Rates
from gateway.config.values import is_name
from gateway.core.pricing import DEFAULT_LINE, ORDINARY_TIERS, OTHER_NAMES, nano_gbp

_KINDS = ("input", "cached", "output", "cache_write", "audio_input", "audio_output")


def check_prices(file: File) -> Iterator[Problem]:
    """Everything that is wrong with price lists whose single values are right."""
    prices = file.prices
    rate = Decimal(prices.gbp_per_unit)
    if rate == 0:
        yield Problem("prices.gbp_per_unit", "expected more than 0, else everything is free")
    if prices.currency == "GBP" and rate != 1:
        yield Problem("prices.gbp_per_unit", 'expected "1": a pound is a pound')
    if not prices.versions:
        yield Problem("prices.versions", "expected at least one price version, found none")
    yield from _repeated(prices, [version.id for version in prices.versions], "id")
    yield from _repeated(prices, [str(version.start) for version in prices.versions], "from")
    for index in range(len(prices.versions)):
        yield from _version(file, index)


def _repeated(prices: Prices, values: list[str], key: str) -> Iterator[Problem]:
    for i, value in enumerate(values):
        if value in values[:i]:
            yield Problem(
                f"prices.versions[{i}].{key}",
                f"{value} stands in versions[{values.index(value)}] already",
            )


def _version(file: File, index: int) -> Iterator[Problem]:
    lines = file.prices.versions[index].per_million
    path = f"prices.versions[{index}].per_million"
    default = lines.get(DEFAULT_LINE)
    if default is None:
        yield Problem(path, f'has no line "{DEFAULT_LINE}", the price of models without their own')
    else:
        yield from _default_line(key_path(path, DEFAULT_LINE), default)
    for name, line in lines.items():
        if name != DEFAULT_LINE and name not in file.models:
            yield Problem(key_path(path, name), unknown(name, "models", file.models))
        yield from _long(f"{key_path(path, name)}.long", line)
        yield from _service_tiers(key_path(path, name), line, Decimal(file.prices.gbp_per_unit))


def _default_line(path: str, line: PriceLine) -> Iterator[Problem]:
    if Decimal(line.input) == 0 or Decimal(line.output) == 0:
        yield Problem(path, "expected more than 0: nothing may be free because nobody priced it")
    for key in ("long", "service_tiers"):
        if getattr(line, key) is not None:
            yield Problem(f"{path}.{key}", "expected none: this is one price for all without one")


def _long(path: str, line: PriceLine) -> Iterator[Problem]:
    for kind in _KINDS:
        if line.long and getattr(line, kind) is not None and getattr(line.long, kind) is None:
            yield Problem(path, f"has no {kind}, and the line has one")


def _service_tiers(path: str, line: PriceLine, rate: Decimal) -> Iterator[Problem]:
    """Names as answers tell them, and multiples that leave every price exact."""
    for tier, times in (line.service_tiers or {}).items():
        inner = key_path(f"{path}.service_tiers", tier)
        if not is_name(tier) or tier in ORDINARY_TIERS or tier in OTHER_NAMES:
            yield Problem(inner, "expected a tier as answers name it, such as flex or priority")
        elif Decimal(times) == 0:
            yield Problem(inner, "expected more than 0")
        else:
            yield from _exact(inner, line, rate * Decimal(times))


def _exact(path: str, line: PriceLine, rate: Decimal) -> Iterator[Problem]:
    for rates in filter(None, (line, line.long)):
        if problem := _inexact(rates, rate):
            yield Problem(path, f"{problem}; take fewer decimals")
            return


def _inexact(rates: Rates, rate: Decimal) -> str | None:
    """Which price is not whole when converted at this rate, in words; None: all are."""
    for kind in _KINDS:
        amount = getattr(rates, kind)
        try:
            nano_gbp(Decimal(amount or 0), rate)
        except ValueError as error:
            return f"{kind}: {error}"
    return None
