"""What is wrong with a gateway and with what is around it: one look at everything.

What is not there is a finding and stops no other look. Nothing is changed and nothing is sent; no
secret is in what it says.
"""

from __future__ import annotations

import asyncio

from gateway.adapters.clock import SystemClock
from gateway.app.doctor import around, configured, stores
from gateway.app.doctor.finding import Finding, worst
from gateway.app.places import read_places
from gateway.config import Settings

__all__ = ["Finding", "examine", "worst"]


async def examine(settings: Settings) -> list[Finding]:
    """All there is to say of a configuration that is in order."""
    clock, places = SystemClock(), read_places(settings)
    ready, of_redis, (of_postgres, sending) = await asyncio.gather(
        around.ask_ready(settings, places),
        stores.redis(settings, clock),
        stores.postgres(settings, clock),
    )
    is_running = ready.checks is not None
    of_links, of_mail = await asyncio.gather(
        around.public_url(settings, is_running), around.mail(settings, sending, ready)
    )
    return [
        configured.state_dir(settings),
        *of_redis,
        *of_postgres,
        *configured.upstreams(settings, places.get("stand_in") if is_running else None),
        configured.prices(settings, clock.now_ms()),
        configured.pepper(settings),
        of_links,
        of_mail,
        configured.webhooks(settings),
        configured.payments(settings),
        around.processes(ready),
    ]
