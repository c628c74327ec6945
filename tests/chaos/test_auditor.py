"""The auditor finds each kind of fault in hand-made records, excuses only what is stated, and
says nothing of a run in which all is well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.auditor import CHECKPOINT_TOKENS, Verdict, audit
from tests.chaos.records import Account, Applied, ClientCall, Evidence, Row, Served, Terms

LIMIT, PERIOD = 1000, 7
TERMS = Terms({"ann": LIMIT}, gateways=3, outage_tokens=0, grace_s=0.5)
CALL = ClientCall(
    "abc", "ann", 1, True, 200, 100.0, 102.0, 200, "", "r1", 80, "abc", whole=True, left=False
)
SERVED = Served("ann", 20, 80)
ROW = Row("r1", "r1", "usage", "ann", "abc", 100, 150, 0, "measured", "done", 200, PERIOD, 102.0)
ACCOUNT = Account("ann", True, PERIOD, 100, 0, 0)
EXPIRED = replace(ROW, quality="estimated", outcome="expired", status=0)
CUT = replace(CALL, whole=False)
KILLED = Applied("kill", "gateway-1", 102.1, 104.0)
SILENT = Applied("freeze", "redis", 101.9, 103.0)
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


def test_an_outage_widens_the_bound_by_its_tokens_on_each_gateway() -> None:
    found = evidence(
        calls=[replace(CALL, output_tokens=1080)],
        served={"r1": replace(SERVED, completion_tokens=1080)},
        rows=[replace(ROW, charged_tokens=1100)],
    )
    assert kinds(audit(found)) == {"beyond the limit"}
    found.terms = replace(TERMS, outage_tokens=34)
    assert audit(found).findings == []


# --- stated losses -----------------------------------------------------------------------------

EXCUSED: Sequence[tuple[str, Sequence[Applied]]] = (
    ("redis frozen", [SILENT, KILLED]),
    ("a worker killed", [SILENT, replace(KILLED, target="proxy-1")]),
    ("its link cut", [replace(SILENT, target="redis-1", kind="cut"), KILLED]),
    ("shortly after", [SILENT, replace(KILLED, began_s=107.0)]),
    ("redis emptied", [EMPTIED, replace(KILLED, began_s=112.0)]),
    ("redis emptied afterwards", [EMPTIED, KILLED]),
    ("settled before all was back", [replace(EMPTIED, began_s=90.0, ended_s=91.0), KILLED]),
)
NOT_EXCUSED: Sequence[tuple[str, Sequence[Applied]]] = (
    ("nothing happened", []),
    ("not killed", [SILENT]),
    ("not silent", [KILLED]),
    ("another gateway was killed", [SILENT, replace(KILLED, target="gateway-2")]),
    ("another's link was cut", [replace(SILENT, target="redis-2"), KILLED]),
    ("killed when all was confirmed", [SILENT, replace(KILLED, began_s=109.0)]),
    ("silent long before", [Applied("freeze", "redis", 90.0, 95.0), KILLED]),
    ("silent only afterwards", [Applied("freeze", "redis", 103.0, 104.0), KILLED]),
    ("emptied before", [replace(EMPTIED, began_s=60.0, ended_s=61.0), KILLED]),
    ("emptied long before", [EMPTIED, replace(KILLED, began_s=140.0)]),
    ("emptied, not killed", [EMPTIED]),
    ("killed before", [SILENT, replace(KILLED, began_s=99.0)]),
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


def test_a_double_booking_is_never_excused() -> None:
    rows = [ROW, replace(ROW, period_ms=8)]
    assert "booked twice" in kinds(audit(evidence(rows=rows, applied=[SILENT, KILLED])))


def test_a_hold_whose_gateway_died_before_it_asked_is_counted() -> None:
    died = Applied("kill", "gateway-1", 100.5, 103.0)
    unseen = replace(CALL, status=0, rid="", output_tokens=0, echoed=None, whole=False)
    verdict = audit(evidence(calls=[unseen], served={}, rows=[EXPIRED], applied=[died]))
    assert verdict.findings == []
    assert list(verdict.excused.values()) == [1]
