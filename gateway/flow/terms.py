"""What the flow is set to: plan, models, prices and times, as the configuration states them.

The flow may not read the configuration itself; whoever puts it together hands this over. One
object, replaced as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from gateway.core.inference.request import Dialect
from gateway.core.models import ModelTable
from gateway.core.plan import Plan
from gateway.core.pricing import PriceTable

OutageMode = Literal["bounded", "closed", "open"]


@dataclass(frozen=True, slots=True)
class OutageTerms:
    """What happens while Redis is away. `tokens`: what a payer may spend meanwhile in this process,
    in mode `bounded`."""

    mode: OutageMode
    tokens: int


@dataclass(frozen=True, slots=True)
class Terms:
    """Fixed while the process runs.

    `dialects`: upstream name -> how it differs from OpenAI.
    `upgrade_url`, `topup_url`: where refusals send people. `drain_s`, `drains_max`: how long, and
    how many at once, a stream is read on after its client left.
    """

    plan: Plan
    models: ModelTable
    prices: PriceTable
    dialects: Mapping[str, Dialect]
    upgrade_url: str | None
    topup_url: str | None
    lease_ms: int
    heartbeat_ms: int
    stream_max_s: float
    drain_s: float
    drains_max: int
    outage: OutageTerms
