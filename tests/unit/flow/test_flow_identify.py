"""A key leads to its user, from memory after the first time, and to one refusal otherwise."""

from __future__ import annotations

import pytest

from gateway.core.refusal import Case, Refused
from gateway.flow import identify
from gateway.flow.identify import Identities
from tests.fakes.flow_rig import PEPPER, FlowRig


async def refusal(identities: Identities, key: str) -> Refused:
    with pytest.raises(Refused) as caught:
        await identities.of(identities.credential(key))
    return caught.value


async def test_a_key_is_looked_up_once(rig: FlowRig) -> None:
    key = await rig.user()
    first = await rig.identities.of(rig.identities.credential(key))
    asked = rig.directory.asked
    assert (
        await rig.identities.of(rig.identities.credential(key))
        == first
        == rig.directory.people["ada"]
    )
    assert rig.directory.asked == asked


async def test_asking_again_reads_anew_and_remembers_that(rig: FlowRig) -> None:
    key = await rig.user()
    await rig.identities.of(rig.identities.credential(key))
    await rig.directory.set_tier("ada", "lite")
    assert (await rig.identities.of(rig.identities.credential(key))).tier == "free"
    assert (await rig.identities.again(rig.identities.credential(key))).tier == "lite"
    assert (await rig.identities.of(rig.identities.credential(key))).tier == "lite"


@pytest.mark.parametrize(
    "key",
    [
        *("", " ", "qg", "sk-proj-abc", "qg_", "qg_unknown", "qg_" + "a" * 43, "QG_a"),
        *("qg_\u00e9", "qg_\udc80", "qg_" + "a" * 10_000),
    ],
    ids=ascii,
)
async def test_an_unknown_and_a_malformed_key_get_the_same_answer(rig: FlowRig, key: str) -> None:
    revoked = await rig.user()
    (key_id,) = rig.directory.key_ids
    await rig.directory.revoke_key(key_id)
    expected, found = await refusal(rig.identities, revoked), await refusal(rig.identities, key)
    assert (found.case, found.message) == (expected.case, expected.message)
    assert found.case is Case.INVALID_API_KEY
    assert key.strip() in ("", "qg", "qg_") or key not in found.message


async def test_text_that_cannot_be_a_key_is_not_worth_a_look_up(rig: FlowRig) -> None:
    for key in ("", "sk-proj-abc", "qg_" + "a" * 300, "qg_é"):
        await refusal(rig.identities, key)
    assert rig.directory.asked == 0


async def test_an_unknown_key_is_not_remembered(rig: FlowRig) -> None:
    key = await rig.user()
    digest, user_id = rig.directory.keys.popitem()
    await refusal(rig.identities, key)
    rig.directory.keys[digest] = user_id
    assert (await rig.identities.of(rig.identities.credential(key))).user_id == "ada"


async def test_another_pepper_makes_every_key_unknown(rig: FlowRig) -> None:
    key = await rig.user()
    other = Identities(rig.directory, PEPPER + b"!")
    assert (await refusal(other, key)).case is Case.INVALID_API_KEY


async def test_a_directory_that_is_away_is_our_trouble_and_known_keys_go_on(rig: FlowRig) -> None:
    known, unknown = await rig.user("ada"), await rig.user("bob")
    await rig.identities.of(rig.identities.credential(known))
    rig.directory.away = True
    refused = await refusal(rig.identities, unknown)
    assert (refused.case, refused.retry_after_s) == (Case.QUOTA_BACKEND_UNAVAILABLE, 1)
    assert (await rig.identities.of(rig.identities.credential(known))).user_id == "ada"


async def test_asking_again_in_vain_forgets_nobody(rig: FlowRig) -> None:
    key = await rig.user()
    await rig.identities.of(rig.identities.credential(key))
    rig.directory.away = True
    with pytest.raises(Refused) as caught:
        await rig.identities.again(rig.identities.credential(key))
    assert caught.value.case is Case.QUOTA_BACKEND_UNAVAILABLE
    assert (await rig.identities.of(rig.identities.credential(key))).user_id == "ada"


async def test_asking_again_forgets_a_key_that_was_revoked(rig: FlowRig) -> None:
    key = await rig.user()
    await rig.identities.of(rig.identities.credential(key))
    (key_id,) = rig.directory.key_ids
    await rig.directory.revoke_key(key_id)
    with pytest.raises(Refused):
        await rig.identities.again(rig.identities.credential(key))
    assert (await refusal(rig.identities, key)).case is Case.INVALID_API_KEY


async def test_memory_is_bounded_and_the_least_used_goes_first(
    rig: FlowRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identify, "_REMEMBERED_MAX", 2)
    ada, bob, cy = [await rig.user(name) for name in ("ada", "bob", "cy")]
    for key in (ada, bob, ada, cy):
        await rig.identities.of(rig.identities.credential(key))
    asked = rig.directory.asked
    await rig.identities.of(rig.identities.credential(ada))
    await rig.identities.of(rig.identities.credential(cy))
    assert rig.directory.asked == asked
    await rig.identities.of(rig.identities.credential(bob))
    assert rig.directory.asked == asked + 1
