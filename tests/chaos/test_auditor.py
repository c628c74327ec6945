"""The auditor finds each kind of fault in hand-made records, excuses only what is stated, and
says nothing of a run in which all is well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.auditor import CHECKPOINT_TOKENS, audit
from tests.chaos.findings import Verdict
from tests.chaos.records import Account, Applied, ClientCall, Evidence, Row, Served, Terms

LIMIT, PERIOD = 1000, 7
TERMS = Terms({"ann": LIMIT}, 3, outage_tokens=0, grace_s=0.5, deadline_s=1.0, drain_s=1.0)
CALL = ClientCall(
    "abc", "ann", 1, True, 200, 100.0, 102.0, 200, "", "r1", 80, "abc", True, decision="admitted"
)
SERVED = Served("ann", 20, 80)
ROW = Row("r1", "r1", "usage", "ann", "abc", 100, 150, 0, "measured", "done", 200, PERIOD, 102.0)
ACCOUNT = Account("ann", True, PERIOD, 100, 0, 0)
EXPIRED = replace(ROW, quality="estimated", outcome="expired", status=0)
CUT = replace(CALL, whole=False)
KILLED = Applied("kill", "gateway-1", 102.1, 104.0)
SILENT = Applied("freeze", "redis", 101.9, 103.0)
LATE = Applied("late", "redis-1", 101.9, 105.0)
SWALLOWED = Applied("swallow", "redis-1", 101.9, 105.0)
CUT_OFF = Applied("cut", "redis-1", 102.2, 103.0)
REDIS_KILLED = Applied("kill", "redis", 102.2, 103.0)
EMPTIED = Applied("empty", "redis", 110.0, 111.0)


def evidence(**changed: Any) -> Evidence:
    """One call that went well, but for what is changed."""
    sound: dict[str, Any] = {
        "calls": [CALL],
        "served": {"r1": SERVED},
        "rows": [ROW],
        "accounts": [ACCOUNT],
    }
    rows = changed.get("rows")
    if rows is not None and "accounts" not in changed:
        used = sum(row.charged_tokens for row in rows)
        sound["accounts"] = [replace(ACCOUNT, used_tokens=used)]
    return Evidence(TERMS, **{**sound, **changed})


def kinds(verdict: Verdict) -> set[str]:
    return {finding.kind for finding in verdict.findings}


def test_of_a_call_that_went_well_nothing_is_said() -> None:
    verdict = audit(evidence())
    assert verdict.findings == []
    assert not verdict.excused
    assert verdict.nearest is not None
    assert (verdict.nearest.booked, verdict.nearest.bound) == (100, LIMIT)


def corrected(tokens: int) -> Row:
    """The correction of the expired row, by so much."""
    return replace(ROW, event_id="c1", kind="correction", charged_tokens=tokens, held_tokens=0)


FINDINGS: Sequence[tuple[str, dict[str, Any]]] = (
    ("unbooked", {"rows": []}),
    ("unmeasured", {"rows": [replace(EXPIRED, charged_tokens=100)]}),
    ("too little", {"calls": [CUT], "rows": [replace(EXPIRED, charged_tokens=99)]}),
    (
        "too much",
        {"calls": [CUT], "rows": [replace(EXPIRED, charged_tokens=132 + CHECKPOINT_TOKENS)]},
    ),
    (
        "too much",
        {
            "calls": [CUT],
            "rows": [replace(ROW, charged_tokens=132, quality="partial", outcome="client_gone")],
        },
    ),
    ("measured wrongly", {"rows": [replace(ROW, charged_tokens=101)]}),
    ("measured wrongly", {"rows": [replace(EXPIRED, charged_tokens=90), corrected(11)]}),
    ("never served", {"served": {}}),
    ("never served", {"served": {}, "rows": [EXPIRED]}),
    ("asked by nobody", {"calls": []}),
    ("booked twice", {"rows": [ROW, replace(ROW, period_ms=8, charged_tokens=0)]}),
    ("booked twice", {"rows": [EXPIRED, corrected(0), corrected(0)]}),
    ("asked twice", {"served": {"r1": replace(SERVED, seen=2)}}),
    ("crossed", {"calls": [replace(CALL, echoed="xyz")]}),
    ("crossed", {"calls": [CALL, replace(CALL, nonce="xyz", echoed="xyz")]}),
    ("crossed", {"served": {"r1": replace(SERVED, user="bob")}}),
    ("crossed", {"rows": [replace(ROW, tag="xyz")]}),
    ("crossed", {"rows": [replace(ROW, user="bob")], "accounts": []}),
    ("expired early", {"rows": [EXPIRED], "leases_s": {"r1": 101.51}}),
    ("redis differs", {"accounts": [replace(ACCOUNT, used_tokens=99)]}),
    ("beyond the limit", {"rows": [ROW, replace(ROW, rid="r2", charged_tokens=901)]}),
    ("still held", {"accounts": [replace(ACCOUNT, held_tokens=5)]}),
    ("still held", {"accounts": [replace(ACCOUNT, open_holds=1)]}),
    ("left over", {"open_holds": 1}),
    ("left over", {"undrained_shards": 1}),
    ("left over", {"dead_rows": 1}),
    ("left over", {"spilled": ["a.spill"]}),
    ("told otherwise", {"calls": [replace(CALL, decision="outage")]}),
    ("told otherwise", {"rows": [replace(ROW, outcome="outage")]}),
    ("stuck", {"stuck": ["ann: 503"]}),
    ("verify", {"verify": "they differ"}),
)


@pytest.mark.parametrize(("kind", "changed"), FINDINGS, ids=[kind for kind, _ in FINDINGS])
def test_what_must_not_be_is_found(kind: str, changed: dict[str, Any]) -> None:
    assert kind in kinds(audit(evidence(**changed)))


FINE: Sequence[tuple[str, dict[str, Any]]] = (
    ("estimated within bounds", {"calls": [CUT], "rows": [EXPIRED]}),
    (
        "estimated, at most a checkpoint more",
        {"calls": [CUT], "rows": [replace(EXPIRED, charged_tokens=131 + CHECKPOINT_TOKENS)]},
    ),
    (
        "partial, the client left",
        {
            "calls": [replace(CUT, left=True, output_tokens=10)],
            "rows": [replace(ROW, charged_tokens=60, quality="partial", outcome="client_gone")],
        },
    ),
    (
        "expired, then measured",
        {"rows": [replace(EXPIRED, charged_tokens=90), corrected(10)]},
    ),
    ("expired at its time", {"calls": [CUT], "rows": [EXPIRED], "leases_s": {"r1": 101.5}}),
    ("not in force", {"accounts": [replace(ACCOUNT, in_force=False, used_tokens=5)]}),
    (
        "beyond the limit by overdraft",
        {
            "calls": [replace(CALL, output_tokens=1080)],
            "served": {"r1": replace(SERVED, completion_tokens=1080)},
            "rows": [replace(ROW, charged_tokens=1100, overdraft_tokens=100)],
        },
    ),
)


@pytest.mark.parametrize(("name", "changed"), FINE, ids=[name for name, _ in FINE])
def test_what_may_be_is_not_found(name: str, changed: dict[str, Any]) -> None:
    assert audit(evidence(**changed)).findings == [], name


def test_what_was_booked_after_its_hold_was_gone_widens_the_bound_and_is_shown() -> None:
    late = replace(ROW, charged_tokens=1100, held_tokens=0)
    verdict = audit(
        evidence(
            calls=[replace(CALL, output_tokens=1080)],
            served={"r1": replace(SERVED, completion_tokens=1080)},
            rows=[late],
        )
    )
    assert verdict.findings == []
    assert verdict.nearest is not None
    assert verdict.nearest.late == 1100
    assert "1100 booked of at most 2100" in str(verdict.nearest)


def test_an_outage_widens_the_bound_by_what_was_spent_in_it() -> None:
    found = outage_call(tokens=1100)
    assert kinds(audit(found)) == {"beyond the limit"}
    found.terms = replace(TERMS, outage_tokens=34)
    assert audit(found).findings == []
    nearest = audit(found).nearest
    assert nearest is not None
    assert (nearest.outage, nearest.late) == (3 * 34, 0)


def test_what_was_not_spent_in_an_outage_widens_nothing() -> None:
    found = outage_call(tokens=50)
    other = replace(ROW, event_id="r2", rid="r2", charged_tokens=1001)
    found.rows = [*found.rows, other]
    found.terms = replace(TERMS, outage_tokens=34)
    assert "beyond the limit" in kinds(audit(found))


def outage_call(tokens: int) -> Evidence:
    """One call of so many tokens that nothing was held for."""
    return evidence(
        calls=[replace(CALL, output_tokens=tokens - 20, decision="outage")],
        served={"r1": replace(SERVED, completion_tokens=tokens - 20)},
        rows=[replace(ROW, charged_tokens=tokens, held_tokens=0, outcome="outage")],
    )


LEFT = replace(ROW, charged_tokens=500, held_tokens=0, status=0, quality="estimated")
LEFT = replace(LEFT, outcome="outage")
CUT_IN_OUTAGE = replace(CUT, decision="outage")


def test_what_a_killed_gateway_left_on_disk_is_booked_by_its_progress() -> None:
    found = evidence(calls=[CUT_IN_OUTAGE], rows=[LEFT], applied=[KILLED])
    found.terms = replace(TERMS, outage_tokens=1000)
    assert audit(found).findings == []
    found.applied = []
    assert kinds(audit(found)) == {"left by nobody"}


def test_of_a_call_that_went_out_without_it_no_hold_may_stand() -> None:
    in_outage = replace(EXPIRED, event_id="r0", rid="r0", charged_tokens=120)
    found = evidence(calls=[CUT_IN_OUTAGE], rows=[LEFT, in_outage], applied=[KILLED])
    assert "never served" in kinds(audit(found))


MADE_AT_100_S = "00000001-86a0-7000-8000-000000000001"


def unseen(call: ClientCall, **changed: Any) -> Evidence:
    """Upstream served one call that is not booked, and this is what its user's client saw."""
    call = replace(call, rid="", output_tokens=0, echoed=None, whole=False)
    return evidence(calls=[call], served={MADE_AT_100_S: SERVED}, rows=[], **changed)


def test_a_whole_answer_that_reached_nobody_has_a_row_unless_its_gateway_died_in_an_outage() -> (
    None
):
    unanswered = replace(CALL, stream=False)
    died = Applied("kill", "gateway-1", 101.5, 103.0)
    silent = replace(SILENT, began_s=99.0, ended_s=99.5)
    found = unseen(unanswered, applied=[silent, died], verify="in no row")
    assert audit(found).findings == []
    assert list(audit(found).excused.values()) == [1]
    for less in ([silent], [died], [silent, replace(died, target="gateway-2")]):
        assert kinds(audit(unseen(unanswered, applied=less))) == {"no row"}
    assert kinds(audit(unseen(CALL, applied=[silent, died]))) == {"no row"}
    before = replace(silent, began_s=90.0, ended_s=91.0)
    asleep = Applied("freeze", "gateway-1", 90.5, 99.5)  # it hears late that Redis is back
    assert audit(unseen(unanswered, applied=[before, asleep, died])).findings == []
    assert kinds(audit(unseen(unanswered, applied=[before, died]))) == {"no row"}
    left = replace(unanswered, ended_s=100.2, left=True)  # its gateway goes on without it
    assert audit(unseen(left, applied=[silent, died])).findings == []
    late = replace(died, began_s=102.5)
    assert kinds(audit(unseen(left, applied=[silent, late]))) == {"no row"}
    stuck = Applied("freeze", "upstream", 101.0, 102.0)  # it answers later
    assert audit(unseen(left, applied=[silent, stuck, late])).findings == []


def test_a_call_beside_an_outage_of_its_gateway_was_in_one_itself() -> None:
    died = Applied("kill", "gateway-1", 101.5, 103.0)
    lost = replace(CALL, stream=False, rid="", output_tokens=0, echoed=None, whole=False)
    beside = replace(
        CALL, nonce="b", rid="r2", echoed=None, output_tokens=0, decision="outage", status=503
    )

    def found(other: ClientCall) -> set[str]:
        served = {MADE_AT_100_S: SERVED}
        return kinds(audit(evidence(calls=[lost, other], served=served, rows=[], applied=[died])))

    assert found(beside) == set()
    assert found(replace(beside, gateway=2)) == {"no row"}
    assert found(replace(beside, decision="admitted")) == {"no row"}
    assert found(replace(beside, begun_s=98.0, ended_s=99.0)) == {"no row"}


def test_of_calls_without_an_id_only_one_that_was_under_way_explains_a_lost_one() -> None:
    lost = [EMPTIED, KILLED]
    assert audit(unseen(CALL, applied=lost)).findings == []
    for begun_s, ended_s in ((101.0, 102.0), (98.0, 99.0)):
        other = replace(CALL, begun_s=begun_s, ended_s=ended_s)
        assert kinds(audit(unseen(other, applied=lost))) == {"no row"}
    gone = replace(CALL, begun_s=98.0, ended_s=99.0, left=True)
    assert audit(unseen(gone, applied=lost)).findings == []


def test_a_call_whose_client_left_at_its_head_is_lost_as_any_other() -> None:
    """It was told its id, so no other call of its user explains it."""
    gone = replace(CALL, output_tokens=0, echoed=None, whole=False, left=True)
    lost = [EMPTIED, KILLED]
    verdict = audit(evidence(calls=[gone], rows=[], applied=lost, verify="one is not booked"))
    assert verdict.findings == []
    assert list(verdict.excused.values()) == [1]
    unanswered = replace(CALL, nonce="xyz", rid="", echoed=None, gateway=2)
    lost = [EMPTIED, replace(KILLED, target="gateway-2")]
    found = evidence(calls=[gone, unanswered], rows=[], applied=lost)
    assert kinds(audit(found)) == {"no row"}


def test_a_hold_of_a_killed_gateway_ends_early_only_from_its_disk() -> None:
    died = Applied("kill", "gateway-1", 101.5, 103.0)
    silent = replace(SILENT, began_s=100.5)
    found = evidence(calls=[CUT], rows=[EXPIRED], leases_s={"r1": 105.0}, applied=[died])
    assert kinds(audit(found)) == {"expired early"}
    found.applied = [silent, died]
    assert audit(found).findings == []
    found.applied = [silent, replace(died, began_s=102.5)]
    assert kinds(audit(found)) == {"expired early"}


# --- stated losses -----------------------------------------------------------------------------

EXCUSED: Sequence[tuple[str, Sequence[Applied]]] = (
    ("redis killed at once", [REDIS_KILLED, KILLED]),
    ("a worker killed", [REDIS_KILLED, replace(KILLED, target="proxy-1")]),
    ("its link cut", [CUT_OFF, KILLED]),
    ("its link swallowed it", [SWALLOWED, KILLED]),
    ("just in time", [SWALLOWED, replace(KILLED, began_s=103.4)]),
    ("redis frozen, and killed then", [SILENT, replace(REDIS_KILLED, began_s=103.1), KILLED]),
    ("redis emptied", [EMPTIED, replace(KILLED, began_s=112.0)]),
    ("redis emptied afterwards", [EMPTIED, KILLED]),
    ("begun before it was emptied", [replace(EMPTIED, began_s=99.0, ended_s=100.0), KILLED]),
)
NOT_EXCUSED: Sequence[tuple[str, Sequence[Applied]]] = (
    ("nothing happened", []),
    ("not killed", [SWALLOWED]),
    ("nothing lost", [KILLED]),
    ("redis woke up and read it", [SILENT, KILLED]),
    ("its link passed it on in the end", [LATE, KILLED]),
    ("no reply, but redis had it", [replace(LATE, kind="no replies"), KILLED]),
    ("the machine was busy", [replace(SILENT, kind="silence"), KILLED]),
    ("another gateway was killed", [SWALLOWED, replace(KILLED, target="gateway-2")]),
    ("another's link", [replace(SWALLOWED, target="redis-2"), KILLED]),
    ("killed when it was on disk", [SWALLOWED, replace(KILLED, began_s=103.6)]),
    ("killed when it had heard of the loss", [REDIS_KILLED, replace(KILLED, began_s=103.0)]),
    ("lost before it was sent", [replace(CUT_OFF, began_s=101.0), KILLED]),
    ("lost when redis had read it", [replace(REDIS_KILLED, began_s=103.1), KILLED]),
    ("emptied before it began", [replace(EMPTIED, began_s=98.0, ended_s=99.0), KILLED]),
    ("emptied long before", [EMPTIED, replace(KILLED, began_s=140.0)]),
    ("emptied, not killed", [EMPTIED]),
    ("killed before", [SWALLOWED, replace(KILLED, began_s=99.0)]),
)


@pytest.mark.parametrize(("name", "applied"), EXCUSED, ids=[name for name, _ in EXCUSED])
def test_a_stated_loss_is_counted_where_it_happened(name: str, applied: Sequence[Applied]) -> None:
    verdict = audit(evidence(rows=[], applied=applied, verify="one call is not booked"))
    assert verdict.findings == [], name
    assert list(verdict.excused.values()) == [1]


@pytest.mark.parametrize(("name", "applied"), NOT_EXCUSED, ids=[name for name, _ in NOT_EXCUSED])
def test_a_loss_is_not_excused_by_what_did_not_happen(
    name: str, applied: Sequence[Applied]
) -> None:
    assert kinds(audit(evidence(rows=[], applied=applied))) == {"unbooked"}, name


def test_a_call_that_its_client_left_is_settled_when_it_was_drained() -> None:
    left = replace(CALL, whole=False, left=True)
    late = replace(KILLED, began_s=104.4)
    found = audit(evidence(calls=[left], rows=[], applied=[SWALLOWED, late]))
    assert found.findings == []
    stayed = replace(left, left=False)
    found = audit(evidence(calls=[stayed], rows=[], applied=[SWALLOWED, late]))
    assert kinds(found) == {"unbooked"}


def test_what_the_drain_had_passed_when_redis_was_emptied_is_not_lost_by_that() -> None:
    later = replace(ROW, event_id="r2", rid="r2", at_s=104.0)

    def found(row: Row, gone_s: float = 103.0) -> set[str]:
        lost = evidence(rows=[row], applied=[EMPTIED, KILLED], gone_s={"r1": gone_s})
        return kinds(audit(lost)) & {"unbooked"}

    assert found(later) == {"unbooked"}
    assert not found(later, gone_s=105.0)  # it was held when that was settled
    assert not found(replace(later, at_s=112.0))  # of the Redis that came then
    assert not found(replace(later, user="bob"))  # perhaps of another outbox
    assert not found(replace(later, kind="correction"))  # follows from another entry
    expired = replace(EXPIRED, charged_tokens=100)  # its settlement came after that, and was lost
    lost = evidence(rows=[expired, later], applied=[EMPTIED, KILLED], gone_s={"r1": 103.0})
    assert "unmeasured" not in kinds(audit(lost))


def test_an_estimate_stands_where_the_release_that_takes_it_back_was_lost() -> None:
    """Nobody knew whether the hold was made: the call went out without, under another id."""
    held = replace(EXPIRED, event_id="r0", rid="r0", charged_tokens=120)
    found = evidence(rows=[ROW, held], applied=[EMPTIED, KILLED], verify="r0 was never served")
    assert audit(found).findings == []
    assert list(audit(found).excused.values()) == [1]
    for applied in ([EMPTIED], [KILLED]):
        assert kinds(audit(replace(found, applied=applied, verify=""))) == {"never served"}
    measured = replace(found, rows=[ROW, replace(ROW, event_id="r0", rid="r0")], verify="")
    assert "never served" in kinds(audit(measured))


def test_a_double_booking_is_never_excused() -> None:
    rows = [ROW, replace(ROW, period_ms=8)]
    assert "booked twice" in kinds(audit(evidence(rows=rows, applied=[SWALLOWED, KILLED])))


def test_a_hold_whose_gateway_died_before_it_asked_is_counted() -> None:
    died = Applied("kill", "gateway-1", 100.5, 103.0)
    unseen = replace(CALL, status=0, rid="", output_tokens=0, echoed=None, whole=False)
    verdict = audit(evidence(calls=[unseen], served={}, rows=[EXPIRED], applied=[died]))
    assert verdict.findings == []
    assert list(verdict.excused.values()) == [1]
