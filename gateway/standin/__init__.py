"""The stand-in upstream: a server that speaks OpenAI's inference APIs and writes on demand.

It lets everything be tried without a key and without a bill, counts what it served so that a
ledger can be compared with it, and misbehaves when a prompt tells it to. It knows nothing of
quotas, and shares no rule with the rest: its token counts are a second, independent statement.
"""

from gateway.standin.server import StandIn
from gateway.standin.settings import StandInSettings

__all__ = ["StandIn", "StandInSettings"]
