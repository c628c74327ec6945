"""The stated losses: the few ways in which a token may be lost, each only where it truly happened.

One function an excuse, so that each can be deleted when the product does better. What is excused is
counted and printed; everything else is a finding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.chaos.records import Applied, ClientCall

# A settlement that found Redis silent is repeated with pauses of up to 2 s, and a breaker that has
# opened asks every 1.5 s: so long after Redis is back, nothing is unconfirmed any more.
_CONFIRMED_S = 5.0
# After a loss gateways send again as soon as they have noticed and the ledger has answered.
_SENT_AGAIN_S = 20.0
_CLOCKS_S = 0.5  # a client's last byte and a fault are told by different tasks of a busy machine


def killed(call: ClientCall, applied: Sequence[Applied]) -> Iterator[Applied]:
    """The deaths of the call's gateway from its beginning on."""
    victims = {f"gateway-{call.gateway}", f"proxy-{call.gateway}"}
    for fault in applied:
        if fault.kind == "kill" and fault.target in victims and fault.began_s > call.begun_s:
            yield fault


def killed_while_redis_silent(call: ClientCall, applied: Sequence[Applied]) -> bool:
    """The gateway was killed while Redis did not answer it: what it had settled since then was in
    its memory only. Today this may be any time; with settlements kept on disk it will be none."""
    silent = [fault for fault in applied if fault.target in ("redis", f"redis-{call.gateway}")]
    return any(
        fault.began_s <= death.began_s and fault.ended_s + _CONFIRMED_S >= call.ended_s - _CLOCKS_S
        for death in killed(call, applied)
        for fault in silent
        if death.began_s <= fault.ended_s + _CONFIRMED_S
    )


def killed_while_redis_emptied(call: ClientCall, applied: Sequence[Applied]) -> bool:
    """Redis lost what it had, and the call's gateway, which remembers what is not booked yet and
    sends it once the shard is open again, was killed before it could."""
    return any(
        fault.kind == "empty" and death.began_s <= fault.ended_s + _SENT_AGAIN_S
        for death in killed(call, applied)
        for fault in applied
    )


LOSSES = {
    "gateway killed and Redis emptied": killed_while_redis_emptied,
    "gateway killed while Redis was silent": killed_while_redis_silent,
}


def excuse(call: ClientCall | None, applied: Sequence[Applied]) -> str | None:
    """The name of the stated loss that explains why this call is not, or not wholly, booked."""
    if call is None:
        return None
    return next((name for name, holds in LOSSES.items() if holds(call, applied)), None)
