"""From an ending to a ledger row and back: nothing is lost, and nothing malformed gets through."""

from __future__ import annotations

import json
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.event import (
    EventError,
    HoldTail,
    Outcome,
    PackSplit,
    Quality,
    UsageEvent,
    decode_tail,
    encode_event,
    encode_tail,
    format_split,
    ledger_row,
    parse_script_part,
    parse_split,
    stream_position,
)
from gateway.core.rid import derived_rid, make_rid

RID = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"
EVENT = UsageEvent(
    event_id=RID,
    payer="team-1",
    user_id="ada",
    tier="free",
    route="chat",
    model="gpt-4o-mini",
    price_id="2026-11",
    charged_tokens=120,
    cost_nano_gbp=440,
    quality="measured",
    outcome="done",
)
# epoch, number, period, held, from allowance, from packs, overdraft, booked, booked cost, corrects
PART_OF_0_1 = b"3 9 1000 200 120 0 20 0 0 0"
# The same, then the start of a capped tier's period, the threshold crossed, what each pack paid.
PART = PART_OF_0_1 + b" 0 0 -"

WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
COUNTS = st.integers(0, 2**53)
SIGNED = st.integers(-(2**53), 2**53)
# What a pack's id is made of, and a colon, which a split need not fear.
PACK_IDS = st.text(st.characters(codec="ascii", categories=["L", "N"]) | st.just(":"), min_size=1)
SPLITS = st.lists(st.tuples(PACK_IDS, SIGNED), max_size=32).map(tuple)
EVENTS = st.builds(
    UsageEvent,
    event_id=st.builds(make_rid, st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10)),
    payer=WORDS,
    user_id=WORDS,
    tier=WORDS,
    route=WORDS,
    model=WORDS,
    price_id=WORDS,
    charged_tokens=COUNTS,
    cost_nano_gbp=COUNTS,
    quality=st.sampled_from(get_args(Quality)),
    outcome=st.sampled_from(get_args(Outcome)),
    stream=st.booleans(),
    tag=st.none() | WORDS,
    prompt_tokens=COUNTS,
    cached_tokens=COUNTS,
    output_tokens=COUNTS,
    reasoning_tokens=COUNTS,
    service_tier=st.none() | WORDS,
    status=st.integers(0, 599),
    sdk_retry=COUNTS,
    upstream_id=st.none() | WORDS,
    client_id=st.none() | WORDS,
)
TAILS = st.builds(
    HoldTail,
    payer=WORDS,
    user_id=WORDS,
    tier=WORDS,
    route=WORDS,
    model=WORDS,
    price_id=WORDS,
    stream=st.booleans(),
    tag=st.none() | WORDS,
    sdk_retry=COUNTS,
    prompt_tokens=COUNTS,
    limit_tokens=COUNTS,
    tier_period_start_ms=st.none() | COUNTS,
)
# What the script adds since release 0.2, or nothing: an event of the first release.
ADDED = st.none() | st.tuples(COUNTS, st.integers(0, 200), SPLITS)


@settings(deadline=None)
@given(EVENTS, st.tuples(*[SIGNED] * 9), ADDED, st.integers(0, 15), st.integers(0, 2**41))
def test_an_event_arrives_in_the_ledger_as_it_was(
    event: UsageEvent,
    part: tuple[int, ...],
    added: tuple[int, int, PackSplit] | None,
    shard: int,
    at_ms: int,
) -> None:
    script_part = " ".join(map(str, (*part, 0)))
    tier_starts, crossed, split = added or (0, 0, ())
    if added is not None:
        script_part += f" {tier_starts} {crossed} {format_split(split)}"
    row = ledger_row(shard, f"{at_ms}-7", encode_event(event), script_part.encode())
    epoch, number, period_ms, held, allowance, packs, overdraft, booked, booked_cost = part
    assert row.event == event
    assert (row.event_id, row.kind, row.corrects) == (event.event_id, "usage", None)
    assert (row.shard, row.at_ms, row.stream_id) == (shard, at_ms, f"{at_ms}-7")
    assert (row.epoch, row.account_seq, row.period_ms) == (epoch, number, period_ms)
    assert (row.held_tokens, row.overdraft_tokens) == (held, overdraft)
    assert (row.from_allowance, row.from_packs) == (allowance, packs)
    assert row.charged_tokens == event.charged_tokens - booked
    assert row.cost_nano_gbp == event.cost_nano_gbp - booked_cost
    assert (row.tier_period_start_ms or 0, row.crossed_percent) == (tier_starts, crossed)
    assert row.pack_split == split


@settings(deadline=None)
@given(TAILS)
def test_a_tail_comes_back_as_it_was(tail: HoldTail) -> None:
    assert decode_tail(encode_tail(tail)) == tail


def test_a_tail_ends_a_hold_s_text_so_its_spaces_do_no_harm() -> None:
    raw = encode_tail(HoldTail("a b", "a", "free", "chat", "m", "p", tag="two words"))
    assert decode_tail(b"h 1 2 3 4 0 ".join([b"", raw]).split(b" ", 6)[6]).tag == "two words"


def test_the_keys_of_an_event_are_columns_and_what_is_usual_is_left_out() -> None:
    assert list(json.loads(encode_event(EVENT))) == [
        *("event_id", "payer", "user_id", "tier", "route", "model", "price_id"),
        *("charged_tokens", "cost_nano_gbp", "quality", "outcome"),
    ]


def test_a_correction_has_an_id_of_its_own_and_what_was_booked_taken_off() -> None:
    corrected = b"3 9 1000 0 100 0 0 50 300 1"
    row = ledger_row(0, "5-0", encode_event(EVENT), corrected)
    again = ledger_row(1, "6-0", encode_event(EVENT), corrected)
    assert row.kind == "correction"
    assert row.corrects == RID
    assert row.event_id == again.event_id == derived_rid(RID, "late") != RID
    assert (row.charged_tokens, row.cost_nano_gbp) == (120 - 50, 440 - 300)


@pytest.mark.parametrize("added", [b"", b" 0 0 -", b" 800 0 b:-60,a:-20"])
def test_a_correction_may_give_back(added: bytes) -> None:
    row = ledger_row(0, "5-0", encode_event(EVENT), b"3 9 1000 0 -300 -80 0 500 900 1" + added)
    assert (row.charged_tokens, row.cost_nano_gbp) == (-380, -460)
    assert (row.from_allowance, row.from_packs) == (-300, -80)
    assert sum(tokens for _, tokens in row.pack_split) in (0, row.from_packs)


def test_the_row_of_a_team_s_member_names_the_member() -> None:
    alone = msgspec.structs.replace(EVENT, user_id=EVENT.payer)
    assert ledger_row(0, "1-0", encode_event(EVENT), PART).member == "ada"
    assert ledger_row(0, "1-0", encode_event(alone), PART).member is None


def test_a_tier_without_a_cap_has_no_period_of_its_own() -> None:
    capped = PART_OF_0_1 + b" 900 80 -"
    assert ledger_row(0, "1-0", encode_event(EVENT), PART).tier_period_start_ms is None
    assert ledger_row(0, "1-0", encode_event(EVENT), PART_OF_0_1).tier_period_start_ms is None
    assert ledger_row(0, "1-0", encode_event(EVENT), capped).tier_period_start_ms == 900


# --- what packs paid --------------------------------------------------------------------------


@settings(deadline=None)
@given(SPLITS)
def test_a_split_comes_back_as_it_was(split: PackSplit) -> None:
    text = format_split(split)
    assert parse_split(text) == split
    assert " " not in text


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("-", ()),
        ("a:1", (("a", 1),)),
        ("a:-1", (("a", -1),)),
        ("b:20,a:0", (("b", 20), ("a", 0))),
        ("-:5", (("-", 5),)),
        ("topup:7:9", (("topup:7", 9),)),
    ],
)
def test_a_split_is_written_like_this(text: str, split: PackSplit) -> None:
    assert parse_split(text) == split
    assert format_split(split) == text


WRONG_SPLITS = ("", "--", "a", "a:", "a:b", "a:1,", ",a:1", "a:1,,b:2", "a:1.5", "a:1e2")


@pytest.mark.parametrize("text", WRONG_SPLITS)
def test_what_is_no_split_is_an_event_error_and_nothing_else(text: str) -> None:
    with pytest.raises(ValueError):
        parse_split(text)
    with pytest.raises(EventError, match="script part"):
        ledger_row(0, "1-0", encode_event(EVENT), PART[:-1] + text.encode())


def test_the_newest_of_stream_ids_is_the_largest_by_number() -> None:
    ids = ["11-1", "10-10", "10-2", "10-0", "2-0", "0-0"]
    assert sorted(ids, key=stream_position) == ids[::-1]
    assert stream_position("7") == (7, 0)


# --- garbage ------------------------------------------------------------------------------------


def without(name: str) -> bytes:
    document = json.loads(encode_event(EVENT))
    del document[name]
    return json.dumps(document).encode()


def changed(**fields: Any) -> bytes:
    return json.dumps({**json.loads(encode_event(EVENT)), **fields}).encode()


@pytest.mark.parametrize(
    "event_json",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"3",
        b"\xff\xfe",
        b"{}",
        b'{"a":' + b"[" * 100_000,
        *(without(name) for name in ("event_id", "payer", "charged_tokens", "quality")),
        changed(charged_tokens="120"),
        changed(charged_tokens=1.5),
        changed(charged_tokens=None),
        changed(quality="guessed"),
        changed(outcome="lost"),
        changed(stream=1),
        changed(payer=3),
        changed(unknown=[[[[]]]], event_id=None),
    ],
    ids=lambda raw: ascii(raw[-30:]),
)
def test_a_malformed_event_is_an_event_error_and_nothing_else(event_json: bytes) -> None:
    with pytest.raises(EventError, match=r"^event "):
        ledger_row(0, "1-0", event_json, PART)


@pytest.mark.parametrize("event_id", ["", "x", "017f22e2", RID + "0", "ж" * 36])
def test_a_correction_of_something_without_a_rid_is_an_event_error(event_id: str) -> None:
    with pytest.raises(EventError, match="event "):
        ledger_row(0, "1-0", changed(event_id=event_id), b"3 9 1000 0 100 0 0 50 300 1")


@pytest.mark.parametrize(
    "raw",
    [
        *(b"", b" ", b"1", b"a " * 9 + b"a", b"- " * 12 + b"-"),
        *(PART_OF_0_1 + more for more in (b" 1", b" 1 2", b" ", b" -", b" 0 -", b" - - -")),
        *(PART + more for more in (b" 1", b" -", b" ", b" a:1", b" b:2")),
        *(PART_OF_0_1[:-2], PART[:-2], PART[:-1], b" " + PART, b" " + PART_OF_0_1),
        *(PART.replace(b" ", odd, 1) for odd in (b"  ", b"\t", b",", b"")),
        *(PART.replace(b"200", odd) for odd in (b"2e2", b"2.5", b"\xff", b"", b"9" * 5000)),
        *(PART_OF_0_1.replace(b"200", odd) for odd in (b"2e2", b"2.5", b"\xff", b"", b"-")),
    ],
    ids=lambda raw: ascii(raw[:30]),
)
def test_a_malformed_script_part_is_an_event_error_and_nothing_else(raw: bytes) -> None:
    with pytest.raises(EventError, match="script part"):
        ledger_row(0, "1-0", encode_event(EVENT), raw)


@settings(deadline=None)
@given(st.binary(), st.binary())
def test_no_bytes_bring_anything_but_a_row_or_an_event_error(event: bytes, part: bytes) -> None:
    for raw, script_part in ((event, PART), (encode_event(EVENT), part), (event, part)):
        try:
            ledger_row(0, "1-0", raw, script_part)
        except EventError:
            continue


@settings(deadline=None)
@given(st.integers(0, len(PART)), st.binary(max_size=4), st.integers(0, 4))
def test_a_script_part_with_a_spoilt_place_is_a_row_or_an_event_error(
    place: int, put_in: bytes, left_out: int
) -> None:
    spoilt = PART[:place] + put_in + PART[place + left_out :]
    try:
        row = ledger_row(0, "1-0", encode_event(EVENT), spoilt)
    except EventError:
        return
    assert row.event == EVENT


@pytest.mark.parametrize("raw", [b"", b"{}", b"3", b"\xff", b'{"a":' + b"[" * 100_000], ids=len)
def test_a_malformed_tail_is_an_event_error_and_nothing_else(raw: bytes) -> None:
    with pytest.raises(EventError, match="hold tail"):
        decode_tail(raw)


@settings(deadline=None)
@given(st.binary())
def test_no_bytes_bring_anything_but_a_tail_or_an_event_error(raw: bytes) -> None:
    try:
        decode_tail(raw)
    except EventError:
        return


def test_an_error_shows_the_beginning_of_what_is_wrong_and_not_all_of_it() -> None:
    with pytest.raises(EventError) as caught:
        ledger_row(0, "1-0", b"x" * 10_000, PART)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("added", "tier_starts", "crossed", "split"),
    [(b"", 0, 0, ()), (b" 11 12 a:13,b:14", 11, 12, (("a", 13), ("b", 14)))],
    ids=["release 0.1", "now"],
)
def test_numbers_of_a_script_part_stand_where_the_script_writes_them(
    added: bytes, tier_starts: int, crossed: int, split: PackSplit
) -> None:
    part = parse_script_part(b"1 2 3 4 5 6 7 8 9 10" + added)
    assert msgspec.structs.asdict(part) == {
        "epoch": 1,
        "account_seq": 2,
        "period_ms": 3,
        "held_tokens": 4,
        "from_allowance": 5,
        "from_packs": 6,
        "overdraft_tokens": 7,
        "booked_tokens": 8,
        "booked_nano_gbp": 9,
        "is_correction": 10,
        "tier_period_start_ms": tier_starts,
        "crossed_percent": crossed,
        "pack_split": split,
    }
