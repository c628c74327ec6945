"""Usage from elsewhere on the rig's stores: what is left in them, and what trouble makes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from msgspec import structs

from gateway.core.elsewhere import Reported, event_id_of
from gateway.core.identity import Identity
from gateway.core.quota.reserve import Limits
from gateway.core.refusal import Case, Refused
from gateway.flow.asking import Asking
from gateway.flow.elsewhere import Booked, Elsewhere, ElsewhereParts
from gateway.flow.entitled import Entitlements
from gateway.flow.limits import Bindings
from gateway.flow.quota_refusal import offers
from gateway.flow.subjects import Subject, Subjects
from gateway.ports.quota_store import StoreNotAsked
from tests.fakes.flow_rig import MODEL, PEPPER, TERMS, FlowRig
from tests.fakes.store import Trouble

ONE = Reported("one", MODEL, prompt_tokens=60, output_tokens=40)


class Desk:
    """Where one rig's usage is booked."""

    def __init__(self, rig: FlowRig) -> None:
        stores = rig.admission._stores
        entitlements = Entitlements(rig.identities, rig.directory, rig.store, rig.terms)
        self.rig, self.subjects = rig, Subjects(rig.identities, rig.directory)

        bindings = Bindings(rig.terms.plan)

        def limits_of(identity: Identity) -> Limits:
            return bindings.of(identity, rig.clock.now_ms()).limits

        asking = Asking(stores, entitlements, self.subjects, limits_of, rig.clock)
        parts = ElsewhereParts(
            asking,
            entitlements,
            self.subjects,
            rig.settlements,
            rig.answers,
            rig.first_refusals,
        )
        self.elsewhere = Elsewhere(parts, rig.terms, rig.metrics, rig.clock)

    async def subject(self, key: str, user_id: str | None = None) -> Subject:
        return await self.subjects.of(self.rig.identities.credential(key), user_id)

    async def book(self, key: str, reported: Reported = ONE, is_spent: bool = False) -> Booked:
        return await self.elsewhere.book(await self.subject(key), reported, is_spent)

    async def refused(self, key: str, reported: Reported = ONE) -> Refused:
        with pytest.raises(Refused) as caught:
            await self.book(key, reported)
        return caught.value


@pytest.fixture
def desk(rig: FlowRig) -> Desk:
    return Desk(rig)


async def kept(rig: FlowRig) -> list[bytes]:
    """What stands under rids."""
    found = []
    for name in await rig.redis.client.keys("qg:*:h:*"):
        found += (await rig.redis.client.hgetall(name)).values()
    return found


async def test_it_leaves_a_mark_and_one_row(desk: Desk) -> None:
    key = await desk.rig.user()
    booked = await desk.book(key)
    assert (booked.event_id, booked.is_repeat) == (event_id_of("ada", "one"), False)
    assert (booked.quota.used_tokens, booked.quota.held_tokens) == (100, 0)
    (row,) = await desk.rig.rows()
    assert (row.event_id, row.charged_tokens, row.held_tokens) == (booked.event_id, 100, 100)
    assert await kept(desk.rig) == [b"d"]
    account = await desk.rig.account()
    assert (account.used_tokens, account.held_tokens, account.open_holds) == (100, 0, 0)


@pytest.mark.parametrize("forgets", [False, True], ids=["answer kept", "answer lost"])
async def test_again_it_changes_nothing(desk: Desk, forgets: bool) -> None:
    key = await desk.rig.user()
    first = await desk.book(key)
    if forgets:
        for name in await desk.rig.redis.client.keys("qg:*:i:*"):
            await desk.rig.redis.client.delete(name)
    again = await desk.book(key)
    assert again == structs.replace(first, is_repeat=True)
    assert len(await desk.rig.rows()) == 1
    charged = [seen for seen in desk.rig.metrics.seen if seen[0] == "charged"]
    assert len(charged) == 1, "nor in the metrics"


@pytest.mark.parametrize("name", ["reserve", "settle"])
@pytest.mark.parametrize("trouble", ["never arrives", "reply lost"])
async def test_a_reply_that_is_lost_is_asked_for_with_the_same_id(
    desk: Desk, name: str, trouble: Trouble
) -> None:
    key = await desk.rig.user()
    await desk.book(key, replace(ONE, id="before"))
    desk.rig.store.trouble(name, trouble)
    if name == "reserve":
        refused = await desk.refused(key)
        assert refused.case is Case.QUOTA_BACKEND_UNAVAILABLE
        assert b"v" not in await kept(desk.rig), "a release would make it look booked"
    assert (await desk.book(key)).charged_tokens == 100
    account = await desk.rig.account()
    assert (account.used_tokens, account.open_holds) == (200, 0)
    assert len(await desk.rig.rows()) == 2


async def test_what_expired_meanwhile_is_corrected_by_the_repetition(desk: Desk) -> None:
    key = await desk.rig.user()
    await desk.book(key, replace(ONE, id="before"))
    desk.rig.store.trouble("reserve", "reply lost")
    await desk.refused(key)
    await desk.rig.expire()
    assert [row.charged_tokens for row in await desk.rig.rows()] == [100, 0]
    for _ in range(2):
        assert (await desk.book(key)).charged_tokens == 100
    assert [row.charged_tokens for row in await desk.rig.rows()] == [100, 0, 100]
    assert (await desk.rig.account()).used_tokens == 200


async def test_a_refusal_leaves_nothing_and_frees_the_id(desk: Desk) -> None:
    key = await desk.rig.user()
    await desk.book(key, replace(ONE, id="before", prompt_tokens=910))
    before = await desk.rig.redis.client.keys("*")
    refused = await desk.refused(key)
    assert (refused.case, refused.param) == (Case.MONTH_USED_UP, None)
    assert sorted(await desk.rig.redis.client.keys("*")) == sorted(before)
    forced = await desk.book(key, is_spent=True)
    assert (forced.decision, forced.quota.used_tokens) == ("forced", 1050)
    assert (await desk.book(key, is_spent=True)).is_repeat
    assert (await desk.rig.account()).used_tokens == 1050
    other = await desk.refused(key, replace(ONE, prompt_tokens=61))
    assert other.case is Case.IDEMPOTENCY_KEY_REUSED


def test_a_tier_that_is_gone_offers_nothing() -> None:
    assert offers("gone", TERMS) == (None, None)
    upgrade, topup = offers("free", TERMS)
    assert (upgrade and upgrade.tier, topup) == ("lite", None)


async def test_while_the_store_is_not_even_asked_nothing_is_sent_later(desk: Desk) -> None:
    key = await desk.rig.user()
    await desk.book(key)
    desk.rig.store.trouble("reserve", StoreNotAsked("the breaker is open"))
    refused = await desk.refused(key, replace(ONE, id="two"))
    assert refused.case is Case.QUOTA_BACKEND_UNAVAILABLE
    assert len(await desk.rig.rows()) == 1


async def test_a_service_speaks_for_whom_it_names_until_it_is_revoked(desk: Desk) -> None:
    rig = desk.rig
    await rig.user()
    await rig.accounts.create_user("sync", "free")
    made = await rig.accounts.create_key("sync", PEPPER, is_service=True)
    subject = await desk.subject(made.key, "ada")
    assert (subject.identity.user_id, subject.by_service) == ("ada", True)
    booked = await desk.elsewhere.book(subject, ONE, False)
    assert booked.user_id == "ada"
    for user_id, case in ((None, Case.INVALID_VALUE), ("eve", Case.USER_UNKNOWN)):
        with pytest.raises(Refused) as caught:
            await desk.subject(made.key, user_id)
        assert caught.value.case is case
    with pytest.raises(Refused) as caught:
        await rig.admission.admit(rig.call(made.key))
    assert caught.value.case is Case.KEY_NOT_ALLOWED
    rig.directory.away = True
    assert (await desk.subject(made.key, "ada")).by_service, "as it was known"
    rig.directory.away = False
    await rig.accounts.revoke_key(made.key_id)
    with pytest.raises(Refused) as caught:
        await desk.subject(made.key, "ada")
    assert caught.value.case is Case.INVALID_API_KEY
