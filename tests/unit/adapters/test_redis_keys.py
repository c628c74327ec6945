"""Key names: one slot a payer, nothing of the payer's own text, the same in every release."""

from __future__ import annotations

import dataclasses
import fnmatch
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from gateway.adapters.redis_store.keys import (
    ACCOUNTS_PATTERN,
    AccountKeys,
    ShardKeys,
    account_keys,
    account_of_key,
    answer_key,
    keys_of_name,
    member_keys,
    shard_keys,
    tier_key,
)

payers = st.text(min_size=1)
counts = st.integers(1, 99)


def names(keys: AccountKeys | ShardKeys) -> Iterator[str]:
    for field in dataclasses.fields(keys):
        value = getattr(keys, field.name)
        if isinstance(value, ShardKeys):
            yield from names(value)
        elif isinstance(value, str) and value.startswith("qg:"):
            yield value


def test_the_names_are_those_that_are_on_servers_already() -> None:
    keys = account_keys("somebody", 16)
    assert keys.of_shard == shard_keys(keys.shard)
    assert (keys.shard, keys.name) == (0, "qgm-7GAP4fGaGEKsdBJCQA")
    assert keys.account == "qg:{00}:a:qgm-7GAP4fGaGEKsdBJCQA"
    assert keys.holds == "qg:{00}:h:qgm-7GAP4fGaGEKsdBJCQA"
    assert keys.packs == "qg:{00}:k:qgm-7GAP4fGaGEKsdBJCQA"
    assert tier_key("free", 3) == "qg:{03}:t:free"
    assert answer_key("somebody", "once", 16) == "qg:{00}:i:E8_7y-QQOxyQW7HzQxYJKw"
    assert shard_keys(9) == ShardKeys("qg:{09}:m", "qg:{09}:l", "qg:{09}:x", "qg:{09}:o")


@given(payer=payers, shards=counts)
def test_all_keys_of_a_payer_share_one_slot(payer: str, shards: int) -> None:
    keys = account_keys(payer, shards)
    found = [*names(keys), member_keys(payer, "a member", shards).account]
    found.append(tier_key("a tier", keys.shard))
    assert len(set(found)) == 9
    assert len({key_slot(name.encode()) for name in found}) == 1


@given(payer=payers)
def test_no_text_of_a_payer_names_a_key(payer: str) -> None:
    for keys in (account_keys(payer, 16), member_keys(payer, payer, 16)):
        for name in names(keys):
            assert re.fullmatch(r"qg:\{\d\d\}:([mlxo]|[ahk]:[\w-]{22})", name)


@given(payer=payers, shards=counts, rid=st.uuids().map(str))
def test_a_member_leads_back_to_its_account(payer: str, shards: int, rid: str) -> None:
    keys = account_keys(payer, shards)
    name, found_rid = keys.member(rid).split(" ", 1)
    assert found_rid == rid
    assert keys_of_name(name, keys.shard) == keys


@given(user=payers, key=st.text())
def test_no_text_of_a_user_or_of_an_idempotency_key_names_a_key(user: str, key: str) -> None:
    name = answer_key(user, key, 16)
    assert re.fullmatch(r"qg:\{\d\d\}:i:[\w-]{22}", name)
    assert key_slot(name.encode()) == key_slot(account_keys(user, 16).account.encode())


@given(first=payers, second=payers)
def test_two_payers_share_no_account(first: str, second: str) -> None:
    same = account_keys(first, 16).account == account_keys(second, 16).account
    assert same == (first == second)


@given(payer=payers, first=payers, second=payers)
def test_a_member_has_an_account_of_its_own_beside_the_payers(
    payer: str, first: str, second: str
) -> None:
    of_payer, of_first = account_keys(payer, 16), member_keys(payer, first, 16)
    assert of_first.of_shard == of_payer.of_shard
    assert of_first.account != of_payer.account
    assert (of_first == member_keys(payer, second, 16)) == (first == second)


@given(payer=payers, shards=counts)
def test_the_key_of_an_account_leads_back_to_its_name(payer: str, shards: int) -> None:
    keys = account_keys(payer, shards)
    assert account_of_key(keys.account) == (keys.name, keys.shard)
    assert fnmatch.fnmatchcase(keys.account, ACCOUNTS_PATTERN)
    others = [name for name in names(keys) if name != keys.account]
    for other in [*others, tier_key("a:b", keys.shard), "", keys.account + "\n"]:
        with pytest.raises(ValueError, match="is not the key of an account"):
            account_of_key(other)
