"""The auditor: given all the records of one run, what does not agree?

It is a pure function and uses nothing of the product: call by call it compares what clients got,
what the upstream served and what is booked, and user by user the ledger, Redis and the limit. What
a stated loss explains is counted apart.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.chaos.excuses import excuse, excuse_unseen, killed, left_on_disk
from tests.chaos.findings import Finding, Verdict
from tests.chaos.limits import beyond_limits, reached
from tests.chaos.records import ClientCall, Evidence, Row, Served

CHECKPOINT_TOKENS = 512  # what an answer may have grown by since its progress was last noted
BYTES_A_TOKEN = 4  # of a prompt that was not counted
_CLOCK_S = 0.005  # stream ids and leases are whole milliseconds of one clock


@dataclass(frozen=True, slots=True)
class _Booked:
    """What is booked of one call."""

    rows: Sequence[Row]

    @property
    def tokens(self) -> int:
        return sum(row.charged_tokens for row in self.rows)

    @property
    def is_measured(self) -> bool:
        return any(row.quality == "measured" for row in self.rows)

    @property
    def expired(self) -> bool:
        return any(row.is_expiry or row.left_on_disk for row in self.rows)

    @property
    def corrected(self) -> bool:
        return any(row.kind == "correction" for row in self.rows)


@dataclass(frozen=True, slots=True)
class _Books:
    """The evidence by request id."""

    evidence: Evidence
    calls: Mapping[str, ClientCall]
    booked: Mapping[str, _Booked]
    by_nonce: Mapping[str, ClientCall]

    def asked(self, rid: str) -> ClientCall | None:
        """The client's side of a call; by its tag where no answer told the request's id."""
        if rid in self.calls or rid not in self.booked:
            return self.calls.get(rid)
        return self.by_nonce.get(self.booked[rid].rows[0].tag or "")


Rule = Callable[[_Books], Iterator[Finding]]
_MAY_BE_LOST = frozenset({"unbooked", "unmeasured", "too little", "no row"})


def audit(evidence: Evidence) -> Verdict:
    """Everything that is wrong, and what of it a stated loss explains."""
    rows: defaultdict[str, list[Row]] = defaultdict(list)
    for row in evidence.rows:
        if row.kind in ("usage", "correction"):
            rows[row.rid].append(row)
    calls = {call.rid: call for call in evidence.calls if call.rid}
    booked = {rid: _Booked(found) for rid, found in rows.items()}
    books = _Books(evidence, calls, booked, {call.nonce: call for call in evidence.calls})
    verdict = Verdict(nearest=reached(evidence))
    for rule in RULES:
        for finding in rule(books):
            why = _excuse(books, finding)
            if why is None:
                verdict.findings.append(finding)
            else:
                verdict.excused[f"{finding.kind}, {why}"] += 1
    if evidence.verify and not verdict.excused:  # what is lost as stated, it finds as well
        verdict.findings.append(Finding("verify", "ledger verify", evidence.verify))
    unseen = sum(1 for rid in booked if rid not in evidence.served and _died_unseen(books, rid))
    if unseen:
        verdict.excused["booked by estimate, gateway killed before it asked upstream"] = unseen
    return verdict


def _excuse(books: _Books, finding: Finding) -> str | None:
    if finding.kind not in _MAY_BE_LOST and not _is_estimate(books, finding):
        return None
    call = books.asked(finding.subject)
    if call is None and finding.kind == "no row":
        return excuse_unseen(finding.subject, books.evidence)
    return excuse(call, books.evidence)


def _is_estimate(books: _Books, finding: Finding) -> bool:
    """A hold expired that was released, or corrected, later: that may be lost, and its estimate
    stands. A call that goes out without Redis releases the hold that it may have."""
    return finding.kind == "never served" and books.booked[finding.subject].expired


# --- call by call ------------------------------------------------------------------------------


def delivered_is_booked(books: _Books) -> Iterator[Finding]:
    """What reached a client is booked: as the upstream measured it, or estimated within bounds."""
    for rid, call in books.calls.items():
        served, booked = books.evidence.served.get(rid), books.booked.get(rid)
        if served is None or not call.output_tokens:
            continue
        if booked is None:
            yield Finding("unbooked", rid, f"{call.output_tokens} tokens delivered, no entry")
            continue
        is_told = call.whole and served.reported and call.output_tokens == served.completion_tokens
        if is_told and not booked.is_measured and not (booked.expired and booked.corrected):
            yield Finding("unmeasured", rid, f"the whole answer went through: {_shown(booked)}")
        least = served.prompt_tokens + call.output_tokens
        if not booked.is_measured and booked.tokens < least:
            yield Finding("too little", rid, f"{least} delivered, {_shown(booked)}")


def served_is_booked(books: _Books) -> Iterator[Finding]:
    """What upstream served has an entry, even when nothing of it was delivered."""
    for rid, served in books.evidence.served.items():
        call = books.calls.get(rid)
        if rid not in books.booked and (call is None or not call.output_tokens):
            yield Finding("no row", rid, f"{served.tokens} tokens served for {served.user}")


def booked_was_served(books: _Books) -> Iterator[Finding]:
    """Nothing is booked that upstream did not serve, and nothing more than it served."""
    for rid, booked in books.booked.items():
        served, call = books.evidence.served.get(rid), books.asked(rid)
        if call is None:
            yield Finding("asked by nobody", rid, _shown(booked))
        elif served is None:
            if booked.tokens and not _died_unseen(books, rid):
                yield Finding("never served", rid, _shown(booked))
        elif booked.is_measured:
            if booked.tokens != served.tokens:
                yield Finding("measured wrongly", rid, f"{served.tokens}, {_shown(booked)}")
        elif booked.tokens > (most := _most(call, served, booked)):
            yield Finding("too much", rid, f"at most {most}, {_shown(booked)}")


def _most(call: ClientCall, served: Served, booked: _Booked) -> int:
    """The most that may be booked of a call whose usage nobody told."""
    prompt = max(served.prompt_tokens, call.body_bytes // BYTES_A_TOKEN + 1)
    if not booked.expired:
        return prompt + served.completion_tokens
    # A client that stayed to the end has got everything that its gateway relayed.
    relayed = served.completion_tokens if call.left else call.output_tokens
    return prompt + max(relayed, call.output_tokens) + CHECKPOINT_TOKENS


def _died_unseen(books: _Books, rid: str) -> bool:
    """Whether the gateway was killed between its hold and its request: the hold's estimate stands,
    because nobody can know whether upstream was asked. A call that went out without it had its
    hold released, on disk if need be."""
    call = books.asked(rid)
    if call is None or not books.booked[rid].expired or call.rid in books.evidence.served:
        return False
    return any(True for _ in killed(call, books.evidence.applied))


def booked_once(books: _Books) -> Iterator[Finding]:
    """One entry a call; what corrects it has an id of its own and names it."""
    for rid, booked in books.booked.items():
        for kind in ("usage", "correction"):
            count = sum(row.kind == kind for row in booked.rows)
            if count > 1:
                yield Finding("booked twice", rid, f"{count} entries of kind {kind}")


def asked_once(books: _Books) -> Iterator[Finding]:
    """The upstream gets a request at most once."""
    for rid, served in books.evidence.served.items():
        if served.seen > 1:
            yield Finding("asked twice", rid, f"{served.seen} requests upstream")


def to_each_its_own(books: _Books) -> Iterator[Finding]:
    """Nobody got another's answer, id or entry."""
    shared = Counter(call.rid for call in books.evidence.calls if call.rid)
    for rid, count in shared.items():
        if count > 1:
            yield Finding("crossed", rid, f"{count} answers with this id")
    for call in books.evidence.calls:
        if call.echoed is not None and call.echoed != call.nonce:
            yield Finding("crossed", call.nonce, f"the answer is that of {call.echoed}")
    for rid, call in books.calls.items():
        served = books.evidence.served.get(rid)
        if served is not None and served.user != call.user:
            yield Finding("crossed", rid, f"of {call.user}, served on behalf of {served.user}")
        for row in books.booked[rid].rows if rid in books.booked else ():
            if (row.tag, row.user) != (call.nonce, call.user):
                yield Finding("crossed", rid, f"of {call.user}, booked on {row.user} as {row.tag}")


def no_lease_cut_short(books: _Books) -> Iterator[Finding]:
    """A hold expires only when its lease and the grace are over: a heartbeat wins."""
    for row in books.evidence.rows:
        deadline_s = books.evidence.leases_s.get(row.rid, 0.0)
        early_s = deadline_s + books.evidence.terms.grace_s - row.at_s
        if row.is_expiry and early_s > _CLOCK_S and not _from_disk(books, row):
            yield Finding("expired early", row.rid, f"{early_s:.3f} s before its time")


def _from_disk(books: _Books, row: Row) -> bool:
    call = books.asked(row.rid)
    return call is not None and left_on_disk(call, row.at_s, books.evidence.applied)


def told_as_booked(books: _Books) -> Iterator[Finding]:
    """An answer says that nothing was held for it, and its entry says the same. What is booked by
    what a gateway left on its disk belongs to one that died."""
    for rid, booked in books.booked.items():
        call, in_outage = books.calls.get(rid), any(row.in_outage for row in booked.rows)
        if call is None or booked.rows[0].outcome == "unknown_upstream":
            continue
        if call.status == 200 and in_outage != (call.decision == "outage"):
            yield Finding("told otherwise", rid, f"told {call.decision!r}, {_shown(booked)}")
        died = any(True for _ in killed(call, books.evidence.applied))
        if any(row.left_on_disk for row in booked.rows) and not died:
            yield Finding("left by nobody", rid, _shown(booked))


# --- user by user, and as a whole --------------------------------------------------------------


def redis_is_the_ledger(books: _Books) -> Iterator[Finding]:
    """Each user's figure in Redis is the sum of the ledger."""
    sums: Counter[tuple[str, int]] = Counter()
    for row in books.evidence.rows:
        sums[row.user, row.period_ms] += row.charged_tokens
    for account in books.evidence.accounts:
        if not account.in_force:
            continue
        told = sums[account.user, account.period_ms]
        if account.used_tokens != told:
            text = f"Redis says {account.used_tokens} used, the ledger {told}"
            yield Finding("redis differs", account.user, text)


def limits_hold(books: _Books) -> Iterator[Finding]:
    for user in beyond_limits(books.evidence):
        yield Finding("beyond the limit", user.user, str(user))


def nothing_is_left(books: _Books) -> Iterator[Finding]:
    """After the faults everything came to its end."""
    evidence = books.evidence
    for what in evidence.stuck:
        yield Finding("stuck", what, "did not come back, or did not end, in its time")
    for account in evidence.accounts:
        if account.in_force and (account.held_tokens or account.open_holds):
            text = f"{account.held_tokens} tokens in {account.open_holds} holds"
            yield Finding("still held", account.user, text)
    for count, what in (
        (evidence.open_holds, "leases still run"),
        (evidence.undrained_shards, "outboxes are not drained"),
        (evidence.dead_rows, "events could not be booked"),
        (len(evidence.spilled), f"files are on disk: {', '.join(evidence.spilled)}"),
    ):
        if count:
            yield Finding("left over", "the stores", f"{count} {what}")


def _shown(booked: _Booked) -> str:
    rows = ", ".join(
        f"{row.kind} {row.charged_tokens} {row.quality} {row.outcome}" for row in booked.rows
    )
    return f"{booked.tokens} booked ({rows})"


RULES: tuple[Rule, ...] = (
    delivered_is_booked,
    served_is_booked,
    booked_was_served,
    booked_once,
    asked_once,
    to_each_its_own,
    no_lease_cut_short,
    told_as_booked,
    redis_is_the_ledger,
    limits_hold,
    nothing_is_left,
)
