"""Teams, states, addresses and limits of a user's own: in Postgres, and told to the store."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from gateway.adapters.clock import SystemClock
from gateway.adapters.postgres.connection import Pool
from gateway.adapters.postgres.directory import PostgresDirectory
from gateway.core.identity import Identity, valid_email
from gateway.core.overrides import NO_OVERRIDES, Overrides, decode_overrides, encode_overrides
from gateway.core.period import Calendar
from gateway.core.quota.entitle import Entitlement
from gateway.flow.people import People
from gateway.ports.ledger import Conflict
from gateway.ports.people import UserState
from tests.contract.ledger_samples import FIRST_UTC, NOVEMBER_MS
from tests.fakes.flow_rig import PLAN
from tests.fakes.store import FakeStores, fake_stores

DIGEST = b"d" * 32
TOKYO = Calendar(20, "Asia/Tokyo")


@pytest.fixture
async def stores() -> AsyncIterator[FakeStores]:
    async with fake_stores() as made:
        yield made


@pytest.fixture
def people(directory: PostgresDirectory, stores: FakeStores) -> People:
    return People(directory, stores.store, PLAN, SystemClock())


@pytest.fixture
async def ann(directory: PostgresDirectory) -> Identity:
    made = await directory.create_user("ann", "free", TOKYO, "ann@example.org")
    await directory.create_key("k1", "ann", DIGEST)
    return made


async def test_whoever_joins_a_team_has_its_tier_and_calendar_and_its_own_revision(
    people: People, directory: PostgresDirectory, ann: Identity
) -> None:
    team = await people.create_team("crew", "full")
    assert (team.is_team, team.rev) == (True, 1)
    joined = await people.join_team("ann", "crew")
    assert joined == await directory.identity_of_key(DIGEST)
    assert (joined.payer, joined.member, joined.tier) == ("crew", "ann", "full")
    assert (joined.calendar, joined.rev, joined.member_rev) == (FIRST_UTC, 2, 3)
    assert [each.user_id for each in await directory.members("crew")] == ["ann"]
    left = await people.leave_team("ann", "crew")
    assert (left.payer, left.tier, left.calendar, left.rev) == ("ann", "free", TOKYO, 4)
    crew = await directory.identity_of_user("crew")
    assert crew is not None
    assert crew.rev == 3, "who remembers a member is told that it is out of date"
    assert await directory.unprojected(9) == [], "whatever changed was told before the answer"


async def test_what_a_crash_left_untold_is_on_the_list_of_both(
    people: People, directory: PostgresDirectory, ann: Identity
) -> None:
    await people.create_team("crew", "full")
    await directory.join_team("ann", "crew")
    assert [each.user_id for each in await directory.unprojected(9)] == ["ann", "crew"]


async def test_the_account_from_before_a_team_is_told_by_its_own_calendar(
    people: People, directory: PostgresDirectory, ann: Identity
) -> None:
    await people.create_team("crew", "full")
    await people.join_team("ann", "crew")
    alone = await directory.as_payer("ann")
    assert alone is not None
    assert (alone.payer, alone.member, alone.calendar, alone.rev) == ("ann", None, TOKYO, 3)
    period = TOKYO.period_at(NOVEMBER_MS)
    told = await directory.entitlement("ann", None, period.start_ms)
    assert told == Entitlement("ann", 3, period.start_ms, 0)


async def test_only_a_user_without_a_team_joins_one_and_only_a_member_leaves(
    people: People, directory: PostgresDirectory, ann: Identity
) -> None:
    await people.create_team("crew", "full")
    await people.create_team("other", "lite")
    for user_id, team_id in [("ann", "nobody"), ("ann", "ann"), ("bob", "crew"), ("other", "crew")]:
        with pytest.raises(Conflict, match="cannot join"):
            await people.join_team(user_id, team_id)
    await people.join_team("ann", "crew")
    with pytest.raises(Conflict, match="in another team"):
        await people.join_team("ann", "other")
    with pytest.raises(Conflict, match="no member of a team other"):
        await people.leave_team("ann", "other")
    with pytest.raises(Conflict, match="a team's tier and period are its own"):
        await directory.set_calendar("ann", FIRST_UTC)
    with pytest.raises(Conflict, match="who could have a key"):
        await directory.create_key("k2", "crew", b"e" * 32)
    with pytest.raises(Conflict, match="exists already"):
        await people.create_team("ann", "full")
    with pytest.raises(Conflict, match="not in the plan"):
        await people.create_team("third", "gold")
    with pytest.raises(Conflict, match="team id 'a b'"):
        await people.create_team("a b", "full")


@pytest.mark.parametrize(
    ("state", "blocked"), [("active", False), ("blocked", True), ("disabled", None)]
)
async def test_a_state_is_the_keys_at_once_and_the_members_too(
    people: People,
    directory: PostgresDirectory,
    ann: Identity,
    state: UserState,
    blocked: bool | None,
) -> None:
    """`blocked` None: the key finds nobody."""
    await people.create_team("crew", "full")
    await people.join_team("ann", "crew")
    for whose in ("crew", "ann"):
        await people.set_state(whose, state, "because")
        found = await directory.identity_of_key(DIGEST)
        assert (None if found is None else found.is_blocked) is blocked
        active = await people.set_state(whose, "active", None)
        assert not active.is_blocked
        assert await directory.identity_of_key(DIGEST) is not None
    with pytest.raises(Conflict, match="there is no user bob"):
        await people.set_state("bob", state, None)
    with pytest.raises(Conflict, match="at most 500"):
        await people.set_state("ann", state, "x" * 501)


async def test_limits_are_kept_whole_and_belong_to_payer_or_member(
    people: People, directory: PostgresDirectory, ann: Identity
) -> None:
    own = Overrides(tokens=5000, rpm=None, gbp="1.50", models=("gpt-5*",))
    assert (await people.set_limits("ann", own)).limits == own
    await people.create_team("crew", "full")
    await people.set_limits("crew", Overrides(concurrent=3))
    joined = await people.join_team("ann", "crew")
    assert (joined.limits, joined.member_limits) == (Overrides(concurrent=3), own)
    assert (await people.set_limits("ann", NO_OVERRIDES)).member_limits == NO_OVERRIDES


@pytest.mark.parametrize(
    "text",
    ['{"tokens": -1}', '{"rpm": 0}', '{"gbp": "1e9"}', '{"gbp": 2}', '{"models": []}', '{"rps": 1}',
     '{"tokens": null}'],
)  # fmt: skip
def test_limits_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"Expected|Object contains unknown"):
        decode_overrides(text)


def test_limits_that_are_not_set_are_not_written() -> None:
    assert json.loads(encode_overrides(Overrides(rpm=None, tokens=1))) == {"rpm": None, "tokens": 1}
    assert decode_overrides("{}") == NO_OVERRIDES


async def test_a_claimed_tier_counts_only_after_the_last_change_made_here(
    directory: PostgresDirectory, ann: Identity, pool: Pool
) -> None:
    past, future = ann.tier_set_ms - 1, ann.tier_set_ms + 60_000
    assert (await directory.claim_tier("ann", "full", past)).tier == "free"
    claimed = await directory.claim_tier("ann", "lite", future)
    assert (claimed.tier, claimed.tier_set_ms) == ("lite", future)
    assert (await directory.claim_tier("ann", "full", future)).tier == "lite"
    assert (await directory.set_tier("ann", "full")).tier == "full"
    with pytest.raises(Conflict, match="there is no user bob"):
        await directory.claim_tier("bob", "full", future)
    found = await pool.fetch("SELECT what FROM audit ORDER BY audit_id")
    assert [what for (what,) in found][-2:] == ["claim_tier", "set_tier"]


async def test_an_address_is_kept_and_the_audit_does_not_know_it(
    people: People, directory: PostgresDirectory, ann: Identity, pool: Pool
) -> None:
    assert ann.email == "ann@example.org"
    assert (await people.set_email("ann", "ann@example.com")).email == "ann@example.com"
    assert (await people.set_email("ann", None)).email is None
    kept = str(await pool.fetch("SELECT detail FROM audit"))
    assert "example" not in kept
    with pytest.raises(Conflict, match="e-mail address"):
        await people.set_email("ann", "nobody")


@pytest.mark.parametrize(
    "email", ["", "a", "@b", "a@", "a b@c", "a@b\nBcc: d@e", "a,b@c", "a@" + "b" * 320]
)
def test_what_no_mail_could_go_to_is_no_address(email: str) -> None:
    assert not valid_email(email)
