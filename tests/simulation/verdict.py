"""The judgement of a world at rest: every call is booked as it was, and every figure is a sum.

A call whose gateway lived is booked exactly, whatever befell the stores. One whose gateway was
killed is booked as its settlement said, if that was ever run, else as the sweeper estimates it;
what Redis lost while nobody alive remembered it is a stated loss, and the only excuse.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from gateway.core.event import LedgerRow, decode_tail, stream_position
from gateway.core.hold import UNSEEN_TOKENS_MAX
from gateway.core.quota.account import Account
from tests.simulation.auditor import Auditor
from tests.simulation.calls import CallRecord, prompt_tokens


def judge(auditor: Auditor, calls: Mapping[str, CallRecord]) -> None:
    """Tell the auditor everything that must not be, in words."""
    for call in calls.values():
        for breach in _of_call(auditor, call):
            auditor.breach(breach)
    for breach in (
        *_of_figures(auditor),
        *_of_strangers(auditor, calls),
        *_of_leftovers(auditor),
    ):
        auditor.breach(breach)


def _of_call(auditor: Auditor, call: CallRecord) -> Iterator[str]:
    rows = _rows_of(auditor, call.rid)
    booked = sum(row.charged_tokens for row in rows)
    usage = [row for row in rows if row.kind == "usage"]
    if call.arrivals > 1:
        yield f"I13: {call.rid} went upstream {call.arrivals} times"
    if len(usage) > 1 or len(rows) > 2 or len({row.period_ms for row in rows}) > 1:
        yield f"I2: {call.rid} is booked more than once: {_words(rows)}"
    granted = auditor.granted.get(call.rid)
    if granted and any(row.period_ms != granted.period_ms for row in rows):
        yield f"I9: {call.rid} was held in period {granted.period_ms}: {_words(rows)}"
    if not call.gateway.dead:
        least, most = _charge(call)
        must_have_row = call.arrivals > 0 and call.plan.kind not in ("400", "429", "unreachable")
        if not call.has_ended:
            yield f"I12: {call.rid} has never ended"
        elif not least <= booked <= most or (must_have_row and not usage):
            yield f"I2: {call.rid} should be booked with {least} to {most}, not {_words(rows)}"
    elif booked not in (wanted := _charges_of_killed(auditor, call)):
        yield f"I2: {call.rid} of a killed gateway: {sorted(wanted)[:3]}..., not {_words(rows)}"


def _charge(call: CallRecord) -> tuple[int, int]:
    """What a call costs, at least and at most, by what both of its ends saw."""
    plan = call.plan
    if call.arrivals == 0 or not (plan.stream or plan.kind.startswith("whole")):
        return 0, 0
    if call.told_usage:
        return call.reported, call.reported
    prompt = prompt_tokens(plan)
    if not plan.stream:
        return prompt + call.sent, prompt + call.sent
    return prompt + call.delivered, prompt + call.sent


def _charges_of_killed(auditor: Auditor, call: CallRecord) -> set[int] | range:
    told, granted = auditor.told.get(call.rid), auditor.granted.get(call.rid)
    excused = call.rid in auditor.ever_lost
    if told is not None and not excused:
        return {told}
    if granted is None:
        return {0} if told is None else {0, told}
    estimate: set[int] = {0}
    if call.plan.stream:
        prompt = decode_tail(granted.ask.tail).prompt_tokens
        least = min(granted.tokens, prompt + call.delivered)
        most = min(granted.tokens, prompt + call.delivered + UNSEEN_TOKENS_MAX)
        estimate = set(range(least, most + 1))
    if excused:
        return estimate | {0} | ({told} if told is not None else set())
    return estimate


def _of_strangers(auditor: Auditor, calls: Mapping[str, CallRecord]) -> Iterator[str]:
    for row in auditor.record.rows.values():
        if row.event.event_id not in calls:
            yield f"I2: nobody made the call of {_words([row])}"
    if auditor.record.dead:
        yield f"I12: {len(auditor.record.dead)} entries could not be booked"


def _of_figures(auditor: Auditor) -> Iterator[str]:
    """I3: what accounts say is the sum of what the ledger says."""
    directory = auditor.record.directory
    for model in auditor.server.models:
        for (payer, member), account in model.shard.accounts.items():
            if model.shard.usable(payer, member) is not account:
                continue
            rows = auditor.record.of_payer.get(payer, [])
            of_period = [
                row for row in rows
                if row.period_ms == account.starts_ms and member in (None, row.event.user_id)
            ]  # fmt: skip
            wanted = (
                sum(row.charged_tokens for row in of_period),
                0 if member else sum(row.from_packs for row in of_period),
                sum(row.cost_nano_gbp for row in of_period),
            )
            found = (account.settled, account.from_packs, account.spent_nano_gbp)
            if wanted != found:
                yield f"I3: {payer}/{member} counts {found}, the ledger {wanted}"
            adjusted = directory.adjusted(payer, member, account.starts_ms)
            if account.adjusted != adjusted:
                found_adjusted = f"is adjusted by {account.adjusted}, not {adjusted}"
                yield f"I3: {payer}/{member} {found_adjusted}"
            if member is None:
                yield from _of_packs(auditor, payer, account)


def _of_packs(auditor: Auditor, payer: str, account: Account) -> Iterator[str]:
    spent = Counter[str]()
    for row in auditor.record.of_payer.get(payer, []):
        for pack_id, tokens in row.pack_split:
            spent[pack_id] += tokens
    directory = auditor.record.directory
    credits = {each.pack_id: each.tokens for each in directory.credits.values()}
    for pack in account.packs.values():
        if pack.tokens != credits[pack.pack_id] - spent[pack.pack_id]:
            yield (
                f"I3: pack {pack.pack_id} of {payer} has {pack.tokens} left of "
                f"{credits[pack.pack_id]}, {spent[pack.pack_id]} of it spent"
            )


def _of_leftovers(auditor: Auditor) -> Iterator[str]:
    """I5 and I12: nothing is held, nothing waits to be booked."""
    for number, model in enumerate(auditor.server.models):
        shard = model.shard
        if shard.leases:
            yield f"I5: shard {number} still holds {sorted(shard.leases)}"
        for name, account in shard.accounts.items():
            is_usable = shard.usable(*name) is account
            if is_usable and (account.held, account.held_nano_gbp, account.open_holds) != (0, 0, 0):
                yield f"I5: {name} still has {account.held} held by {account.open_holds} calls"
        cursor = auditor.record.cursors.get(number)
        reached = cursor.stream_id if cursor else "0-0"
        for event in shard.events:
            if stream_position(event.stream_id) > stream_position(reached):
                yield f"I12: event {event.stream_id} of shard {number} is past cursor {reached}"


def _rows_of(auditor: Auditor, rid: str) -> list[LedgerRow]:
    return auditor.record.of_rid.get(rid, [])


def _words(rows: list[LedgerRow]) -> str:
    said = [
        f"{row.kind} {row.event_id} {row.charged_tokens} {row.event.quality} {row.event.outcome}"
        f" (period {row.period_ms}, epoch {row.epoch}, {row.stream_id})"
        for row in rows
    ]
    return "; ".join(said) or "no row"
