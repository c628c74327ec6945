"""The stated losses: the few ways in which a token may be lost, each only where it truly happened.

One function an excuse, so that each can be deleted when the product does better. What is excused is
counted and printed; everything else is a finding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from tests.chaos.records import Applied, ClientCall, Evidence

_FOUND_S = 1.5  # a breaker that has opened asks every 0.75 s at most
# After a loss gateways send again as soon as they have noticed and the ledger has answered.
_SENT_AGAIN_S = 20.0
_CLOCKS_S = 0.5  # a client's last byte and a fault are told by different tasks of a busy machine
_ANSWERED_S = 2.0  # clients ask for whole answers that take up to 1.5 s
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


def reached_nobody(call: ClientCall, evidence: Evidence) -> bool:
    """Whether it may have gone out in an outage, where no lease tells of it, and its gateway was
    killed before it had the whole answer, which it waits for also when its client has left: that
    leaves no row."""
    applied = evidence.applied
    until_s = call.ended_s + _CLOCKS_S
    if call.left:
        upstream = ("upstream", f"upstream-{call.gateway}")
        held_up = [fault for fault in applied if fault.target in upstream]
        until_s = _put_off(call.ended_s, _ANSWERED_S, held_up)
    return not call.stream and any(
        death.began_s <= until_s
        and (_in_trouble(call, death, applied) or _beside_an_outage(call, evidence.calls))
        for death in killed(call, applied)
    )


def _beside_an_outage(call: ClientCall, calls: Sequence[ClientCall]) -> bool:
    """Whether its gateway, while it was at this call, let another out in an outage: on a busy
    machine one lasts longer than the faults tell."""
    return any(
        other.gateway == call.gateway
        and other.decision == "outage"
        and other.begun_s <= call.ended_s
        and other.ended_s >= call.begun_s
        for other in calls
    )


def _in_trouble(call: ClientCall, death: Applied, applied: Sequence[Applied]) -> bool:
    return any(
        fault.began_s <= death.began_s and _found_s(fault, call, applied) >= call.begun_s
        for fault in between(call, applied)
    )


def _found_s(fault: Applied, call: ClientCall, applied: Sequence[Applied]) -> float:
    """When the call's gateway knew at the latest that the fault was over. While it is frozen it
    hears nothing."""
    gateway = f"gateway-{call.gateway}"
    asleep = [each for each in applied if each.kind == "freeze" and each.target == gateway]
    return _put_off(fault.ended_s, _FOUND_S, asleep)


def _put_off(from_s: float, takes_s: float, by: Sequence[Applied]) -> float:
    """When something that begins at `from_s` is done at the latest. It begins anew after each fault
    that finds it under way."""
    done_s = from_s + takes_s
    for fault in sorted(by, key=lambda each: each.began_s):
        if fault.began_s <= done_s:
            done_s = max(done_s, fault.ended_s + takes_s)
    return done_s


def killed_with_its_socket(call: ClientCall, evidence: Evidence) -> bool:
    """Within Redis's deadline after it settled the call its gateway was killed, and what it had
    sent was lost with Redis or the link. A gateway that lives on hears of the loss, or has no reply
    in time, and writes the settlement to its disk: that is never lost."""
    applied, terms = evidence.applied, evidence.terms
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


def killed_while_redis_emptied(call: ClientCall, evidence: Evidence) -> bool:
    """Redis lost what it had before the drain had booked it, and the call's gateway, which
    remembers that and sends it once the shard is open again, was killed before it could. What began
    when Redis was back already was never lost: it was held there, or is on disk."""
    return any(
        fault.kind == "empty"
        and call.begun_s - _CLOCKS_S <= fault.ended_s
        and death.began_s <= fault.ended_s + _SENT_AGAIN_S
        and not _drained_before(call, fault.began_s, evidence)
        for death in killed(call, evidence.applied)
        for fault in evidence.applied
    )


def _drained_before(call: ClientCall, lost_s: float, evidence: Evidence) -> bool:
    """Whether the drain was past it by then: an outbox is drained in its order, and what its user
    settled after its hold was gone, and before Redis lost it, is booked. Of a hold that expired,
    and is booked so, the true end came later."""
    gone_s = evidence.gone_s.get(call.rid)
    if gone_s is None or any(row.rid == call.rid for row in evidence.rows):
        return False
    return any(
        row.kind == "usage" and row.user == call.user and gone_s < row.at_s < lost_s
        for row in evidence.rows
    )


LOSSES = {
    "gateway killed and Redis emptied": killed_while_redis_emptied,
    "gateway killed, and what it had just sent was lost": killed_with_its_socket,
}


def excuse(call: ClientCall | None, evidence: Evidence) -> str | None:
    """The name of the stated loss that explains why this call is not, or not wholly, booked."""
    if call is None:
        return None
    return next((name for name, holds in LOSSES.items() if holds(call, evidence)), None)


def excuse_unseen(rid: str, evidence: Evidence) -> str | None:
    """The same of a call that upstream knows and whose client was never told its id: of its user's
    calls without one, those that were under way when the id was made may be it (RFC 9562: a
    UUIDv7 begins with 48 bits of milliseconds)."""
    user = evidence.served[rid].user
    made_s = int(rid.replace("-", "")[:12], 16) / 1000
    for call in evidence.calls:
        if call.rid or call.user != user or not _under_way(call, made_s):
            continue
        if reached_nobody(call, evidence):
            return "a whole answer in an outage, gateway killed before it had it"
        if name := excuse(replace(call, rid=rid), evidence):
            return name
    return None


def _under_way(call: ClientCall, at_s: float) -> bool:
    """Whether its gateway may have been at it then: also for long after its client left."""
    return call.begun_s <= at_s + _CLOCKS_S and (call.left or at_s <= call.ended_s + _CLOCKS_S)
