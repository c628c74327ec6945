"""Tokens and headers lead to users, change what they claim and may, and are forgotten in time."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
from msgspec import structs

from gateway.core.credential import Claims, Token, token_of
from gateway.core.identity import Identity
from gateway.core.refusal import Case, Refused
from gateway.flow import claimed
from gateway.flow.claimed import ClaimedUsers
from gateway.flow.identify import Identities
from gateway.ports.tokens import TokensUnavailable
from tests.fakes.answer import RecordedAnswer
from tests.fakes.chat_stream import completion
from tests.fakes.flow_rig import COUNTS, PEPPER, PLAN, FlowRig
from tests.fakes.ledger import FakeDirectory
from tests.fakes.upstream import ScriptedAnswer


class FakeTokens:
    """Fulfils ports.tokens.Tokens. `genuine` has what each token says."""

    def __init__(self) -> None:
        self.genuine: dict[str, Claims] = {}
        self.withdrawals = 0
        self.asked = 0
        self.away = False

    async def prove(self, text: str) -> Claims | None:
        self.asked += 1
        if self.away:
            raise TokensUnavailable("no keys yet")
        return self.genuine.get(text)


class ClaimsBook(FakeDirectory):
    """Fulfils ports.tokens.ClaimsDirectory over the people of the rig. `authors` wrote in it."""

    def __init__(self, directory: FakeDirectory) -> None:
        self.__dict__ = directory.__dict__
        self.authors: list[str] = []
        self.emails = 0

    def by(self, author: str) -> ClaimsBook:
        self.authors.append(author)
        return self

    async def set_email(self, user_id: str, email: str | None) -> Identity:
        self.emails += 1
        self.people[user_id] = replace(self.people[user_id], email=email)
        return self.people[user_id]


class Door:
    """Who may come in by token, over a rig's stores."""

    def __init__(self, rig: FlowRig) -> None:
        self.rig, self.tokens, self.book = rig, FakeTokens(), ClaimsBook(rig.directory)
        users = ClaimedUsers(self.tokens, self.book.by, rig.store, PLAN, rig.clock)
        self.identities = Identities(rig.directory, PEPPER, users)

    def token(self, name: str = "one", user_id: str = "ada", **says: object) -> Token:
        """A genuine token of that text, issued now, for an hour."""
        now_ms = self.rig.clock.now_ms()
        claims = Claims("issuer", user_id, issued_ms=now_ms, ends_ms=now_ms + 3_600_000)
        token = token_of(f"{'x' * 500}.{name}.")
        assert token is not None
        self.tokens.genuine[token.text] = structs.replace(claims, **says)
        return token

    async def refused(self, credential: Token | Claims) -> Case:
        with pytest.raises(Refused) as caught:
            await self.identities.of(credential)
        return caught.value.case


@pytest.fixture
def door(rig: FlowRig) -> Door:
    return Door(rig)


async def test_a_token_is_proven_once_and_looked_up_once(door: Door, rig: FlowRig) -> None:
    await rig.user()
    token = door.token()
    first = await door.identities.of(token)
    rig.directory.away = True
    assert await door.identities.of(token) == first == rig.directory.people["ada"]
    assert door.tokens.asked == 1


async def test_it_ends_at_its_end(door: Door, rig: FlowRig) -> None:
    await rig.user()
    token = door.token()
    await door.identities.of(token)
    rig.clock.pass_s(3599.9)
    assert door.identities.remembered(token) is not None
    rig.clock.pass_s(0.1)
    door.tokens.genuine.clear()  # nor does its issuer's clock let it pass
    assert door.identities.remembered(token) is None
    assert await door.refused(token) is Case.INVALID_API_KEY


async def test_tokens_that_begin_alike_are_told_apart(door: Door, rig: FlowRig) -> None:
    await rig.user("ada")
    await rig.user("bob")
    ada, bob = door.token("ada"), door.token("bob", "bob")
    assert ada.text[:500] == bob.text[:500]
    for _ in range(2):
        assert (await door.identities.of(ada)).user_id == "ada"
        assert (await door.identities.of(bob)).user_id == "bob"
    assert "xxx" not in f"{ada} {ada!r}"
    forged = token_of(ada.text + "x")
    assert forged is not None
    assert await door.refused(forged) is Case.INVALID_API_KEY


async def test_a_withdrawn_key_has_all_proven_again(door: Door, rig: FlowRig) -> None:
    await rig.user()
    token = door.token()
    await door.identities.of(token)
    door.tokens.withdrawals += 1
    assert (await door.identities.of(token)).user_id == "ada"
    assert door.tokens.asked == 2
    door.tokens.withdrawals += 1
    door.tokens.genuine.clear()
    assert await door.refused(token) is Case.INVALID_API_KEY


async def test_what_proves_nothing_is_not_remembered(door: Door, rig: FlowRig) -> None:
    token = door.token()
    assert await door.refused(token) is Case.INVALID_API_KEY  # nobody of that name
    await rig.user()
    assert (await door.identities.of(token)).user_id == "ada"


async def test_memory_is_bounded(door: Door, rig: FlowRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claimed, "_REMEMBERED_MAX", 2)
    await rig.user()
    one, two, three = (door.token(name) for name in ("one", "two", "three"))
    for token in (one, two, one, three):
        await door.identities.of(token)
    known = [door.identities.remembered(token) is not None for token in (one, two, three)]
    assert known == [True, False, True]


async def test_no_keys_and_no_ledger_are_our_trouble(door: Door, rig: FlowRig) -> None:
    await rig.user()
    token = door.token()
    door.tokens.away = True
    assert await door.refused(token) is Case.QUOTA_BACKEND_UNAVAILABLE
    door.tokens.away, rig.directory.away = False, True
    assert await door.refused(token) is Case.QUOTA_BACKEND_UNAVAILABLE


async def test_without_issuers_a_token_is_an_unknown_key(rig: FlowRig) -> None:
    with pytest.raises(Refused) as caught:
        rig.identities.credential("a.b.c")
    assert caught.value.case is Case.INVALID_API_KEY


# --- users ---------------------------------------------------------------------------------


async def test_a_new_user_is_made_where_that_is_allowed(door: Door, rig: FlowRig) -> None:
    assert await door.refused(door.token("a", "new")) is Case.INVALID_API_KEY
    token = door.token("b", "new", may_create=True, email="new@example.test")
    made = await door.identities.of(token)
    assert (made.user_id, made.payer, made.tier) == ("new", "new", PLAN.default_tier)
    assert made.email == "new@example.test"
    lite = await door.identities.of(door.token("c", "other", may_create=True, tier="lite"))
    assert lite.tier == "lite"
    assert set(door.book.authors) == {"issuer"}


async def test_many_first_calls_make_one_user(door: Door, rig: FlowRig) -> None:
    for n in range(10):
        await door.identities.of(door.token(str(n), "new", may_create=True))
    assert list(rig.directory.people) == ["new"]
    assert rig.directory.people["new"].rev == 1


async def test_a_team_is_nobody_who_calls(door: Door, rig: FlowRig) -> None:
    await rig.user("team")
    rig.directory.people["team"] = replace(rig.directory.people["team"], is_team=True)
    assert await door.refused(door.token("t", "team", may_create=True)) is Case.INVALID_API_KEY


async def test_a_name_that_is_no_user_s_is_nobody(door: Door) -> None:
    for name in ("", "a b", "é", "a/b", "a" * 129, "\udcff"):
        said = Claims("header", name, may_create=True)
        assert await door.refused(said) is Case.INVALID_API_KEY
    assert not door.rig.directory.people


async def test_who_is_blocked_is_told_and_not_remembered(door: Door, rig: FlowRig) -> None:
    await rig.user()
    token = door.token()
    await door.identities.of(token)
    rig.directory.people["ada"] = replace(rig.directory.people["ada"], is_blocked=True)
    with pytest.raises(Refused) as caught:
        await door.identities.again(token)
    assert caught.value.case is Case.USER_BLOCKED
    assert door.identities.remembered(token) is None


# --- claims --------------------------------------------------------------------------------


async def test_a_newer_token_moves_its_user_and_binds_calls_by_key(
    door: Door, rig: FlowRig
) -> None:
    key = await rig.user()
    await rig.spend(key)
    moved = await door.identities.of(door.token(tier="lite"))
    assert (moved.tier, moved.tier_set_ms) == ("lite", rig.clock.now_ms())
    answer = RecordedAnswer()
    rig.will_answer(ScriptedAnswer([completion("Hi", COUNTS)]))
    await rig.exchange.run(rig.call(key), answer)
    assert answer.head is not None
    assert (answer.head.quota.tier, answer.head.quota.limit_tokens) == ("lite", 10_000)
    assert rig.directory.projected["ada"] == moved.rev


async def test_an_old_token_undoes_nothing(door: Door, rig: FlowRig) -> None:
    await rig.user()
    old = door.token("old", tier="free")
    await door.identities.of(old)
    rig.clock.pass_s(10)
    upgraded = replace(
        rig.directory.people["ada"], tier="full", tier_set_ms=rig.clock.now_ms(), rev=9
    )
    rig.directory.people["ada"] = upgraded
    for token in (old, door.token("same second", tier="free", issued_ms=upgraded.tier_set_ms)):
        assert (await door.identities.again(token)).tier == "full"
    assert (
        await door.identities.of(door.token("undated", tier="free", issued_ms=0))
    ).tier == "full"
    rig.clock.pass_s(1)
    assert (await door.identities.of(door.token("new", tier="lite"))).tier == "lite"


async def test_of_two_tokens_the_later_one_decides_in_whatever_order(
    door: Door, rig: FlowRig
) -> None:
    for user_id, order in (("ada", (1, 2)), ("bob", (2, 1))):
        await rig.user(user_id)
        now_ms = rig.clock.now_ms()
        tokens = {
            1: door.token(f"{user_id}1", user_id, tier="full", issued_ms=now_ms - 2000),
            2: door.token(f"{user_id}2", user_id, tier="lite", issued_ms=now_ms - 1000),
        }
        for n in order:
            await door.identities.of(tokens[n])
        assert rig.directory.people[user_id].tier == "lite"


async def test_a_tier_that_is_not_in_the_plan_changes_nothing_and_is_logged_once(
    door: Door, rig: FlowRig, caplog: pytest.LogCaptureFixture
) -> None:
    await rig.user("ada", "lite")
    token = door.token(tier="platinum\n")
    with caplog.at_level(logging.WARNING, "gateway.identity"):
        for _ in range(3):
            assert (await door.identities.again(token)).tier == "lite"
    (line,) = caplog.messages
    assert "ada is on the tier 'platinum\\n', which is not in the plan" in line


async def test_the_team_decides_about_its_members(door: Door, rig: FlowRig) -> None:
    await rig.user("team", "full")
    await rig.member("ada", "team")
    found = await door.identities.of(door.token(tier="lite"))
    assert (found.payer, found.tier) == ("team", "full")


async def test_an_address_is_written_at_first_sight_and_only_a_usable_one(
    door: Door, rig: FlowRig
) -> None:
    await rig.user()
    one, two = door.token("1", email="a@example.test"), door.token("2", email="b@example.test")
    for token in (one, two, one, two, one, door.token("3", email="none"), door.token("4")):
        await door.identities.again(token)
    assert rig.directory.people["ada"].email == "b@example.test"
    assert door.book.emails == 2


async def test_a_front_decides_with_every_call(door: Door, rig: FlowRig) -> None:
    said = Claims("header", "ada", tier="lite", may_create=True, issued_ms=1 << 53)
    assert (await door.identities.of(said)).tier == "lite"
    rig.clock.pass_s(1)
    rig.directory.people["ada"] = replace(
        rig.directory.people["ada"], tier="full", tier_set_ms=rig.clock.now_ms() - 1
    )
    back = await door.identities.again(said)
    assert (back.tier, back.tier_set_ms) == ("lite", rig.clock.now_ms())
