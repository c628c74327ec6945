"""The stated losses: the few ways in which a token may be lost, each only where it truly happened.

One function an excuse, so that each can be deleted when the product does better. What is excused is
counted and printed; everything else is a finding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.chaos.records import Applied, ClientCall, Terms

_FOUND_S = 1.5  # a breaker that has opened asks every 0.75 s at most
# After a loss gateways send again as soon as they have noticed and the ledger has answered.
_SENT_AGAIN_S = 20.0
_CLOCKS_S = 0.5  # a client's last byte and a fault are told by different tasks of a busy machine
# Which faults lose what is in a socket, at their beginning or at their end; and while which ones
# nobody hears of a loss. "silence": the machine was so busy that Redis did not answer the bench.
_LOSE_AT_ONCE = frozenset({"kill", "empty", "cut", "half close"})
_LOSE_AT_LAST = frozenset({"swallow"})
_SILENT = frozenset({"freeze", "delay", "late", "no replies", "swallow", "silence"})


def killed(call: ClientCall, applied: Sequence[Applied]) -> Iterator[Applied]:
    """The deaths of the call's gateway from its beginning on."""
    victims = {f"gateway-{call.gateway}", f"proxy-{call.gateway}"}
    for fault in applied:
        if fault.kind == "kill" and fault.target in victims and fault.began_s > call.begun_s:
            yield fault


def between(call: ClientCall, applied: Sequence[Applied]) -> Sequence[Applied]:
    """What befell Redis, or the link by which the call's gateway reaches it."""
    return [fault for fault in applied if fault.target in ("redis", f"redis-{call.gateway}")]


def left_on_disk(call: ClientCall, at_s: float, applied: Sequence[Applied]) -> bool:
    """Whether its gateway had died by `at_s`, after Redis had not answered it: then what it had
    noted of a stream is on its disk, and the next one sends it without waiting for the lease."""
    return any(
        death.began_s <= at_s and _in_trouble(call, death, applied)
        for death in killed(call, applied)
    )


def reached_nobody(call: ClientCall, applied: Sequence[Applied]) -> bool:
    """Whether it may have gone out in an outage, where no lease tells of it, and its gateway was
    killed before it had the whole answer: that leaves no row."""
    return not call.stream and any(
        death.began_s <= call.ended_s + _CLOCKS_S and _in_trouble(call, death, applied)
        for death in killed(call, applied)
    )


def _in_trouble(call: ClientCall, death: Applied, applied: Sequence[Applied]) -> bool:
    return any(
        fault.began_s <= death.began_s and fault.ended_s + _FOUND_S >= call.begun_s
        for fault in between(call, applied)
    )


def killed_with_its_socket(call: ClientCall, applied: Sequence[Applied], terms: Terms) -> bool:
    """Within Redis's deadline after it settled the call its gateway was killed, and what it had
    sent was lost with Redis or the link. A gateway that lives on hears of the loss, or has no reply
    in time, and writes the settlement to its disk: that is never lost."""
    faults = between(call, applied)
    settled_s = call.ended_s + (terms.drain_s if call.left else 0.0)
    return any(
        death.began_s <= settled_s + terms.deadline_s + _CLOCKS_S
        and lost_s >= call.ended_s - _CLOCKS_S
        and (abs(lost_s - death.began_s) <= _CLOCKS_S or _unheard(lost_s, death.began_s, faults))
        for death in killed(call, applied)
        for lost_s in _losses(faults)
    )


def _losses(faults: Sequence[Applied]) -> Iterator[float]:
    """The moments at which what was in sockets was lost."""
    for fault in faults:
        if fault.kind in _LOSE_AT_ONCE:
            yield fault.began_s
        elif fault.kind in _LOSE_AT_LAST:
            yield fault.ended_s


def _unheard(one_s: float, other_s: float, faults: Sequence[Applied]) -> bool:
    """Whether from the one moment to the other nothing came through."""
    first_s, last_s = sorted((one_s, other_s))
    return any(
        fault.kind in _SILENT
        and fault.began_s <= first_s + _CLOCKS_S
        and fault.ended_s >= last_s - _CLOCKS_S
        for fault in faults
    )


def killed_while_redis_emptied(call: ClientCall, applied: Sequence[Applied], _: Terms) -> bool:
    """Redis lost what it had, and the call's gateway, which remembers what is not booked yet and
    sends it once the shard is open again, was killed before it could. What began when Redis was
    back already was never lost: it was held there, or is on disk."""
    return any(
        fault.kind == "empty"
        and call.begun_s - _CLOCKS_S <= fault.ended_s
        and death.began_s <= fault.ended_s + _SENT_AGAIN_S
        for death in killed(call, applied)
        for fault in applied
    )


LOSSES = {
    "gateway killed and Redis emptied": killed_while_redis_emptied,
    "gateway killed, and what it had just sent was lost": killed_with_its_socket,
}


def excuse(call: ClientCall | None, applied: Sequence[Applied], terms: Terms) -> str | None:
    """The name of the stated loss that explains why this call is not, or not wholly, booked."""
    if call is None:
        return None
    return next((name for name, holds in LOSSES.items() if holds(call, applied, terms)), None)
