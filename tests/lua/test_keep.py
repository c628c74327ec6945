"""keep.lua: a call replaces what it put under its key, and nothing that another put there."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from tests.lua.script_calls import ANSWER_KEY, Lua, Value

MARK, OTHER = b"the mark of the call \x00\xff", b"another's"
ANSWER = b"an answer \r\n\x00\xff"


def there(lua: Lua) -> bytes | None:
    found: bytes | None = lua.client.get(ANSWER_KEY)
    return found


def test_a_mark_becomes_the_answer_and_lives_as_long_as_told(bare: Lua) -> None:
    bare.client.set(ANSWER_KEY, MARK, px=100)
    assert bare.keep(MARK, ANSWER, 50_000) == 1
    assert there(bare) == ANSWER
    assert 40_000 < bare.client.pttl(ANSWER_KEY) <= 50_000


def test_a_mark_is_renewed_but_never_made_anew(bare: Lua) -> None:
    bare.client.set(ANSWER_KEY, MARK, px=100)
    assert bare.keep(MARK, MARK, 50_000) == 1
    assert there(bare) == MARK
    assert bare.client.pttl(ANSWER_KEY) > 40_000
    bare.client.delete(ANSWER_KEY)
    assert bare.keep(MARK, MARK, 50_000) == 0
    assert there(bare) is None


def test_a_mark_is_removed(bare: Lua) -> None:
    bare.client.set(ANSWER_KEY, MARK)
    assert bare.keep(MARK, "") == 1
    assert there(bare) is None


def test_an_answer_is_kept_although_its_mark_is_gone(bare: Lua) -> None:
    assert bare.keep(MARK, ANSWER) == 1
    assert there(bare) == ANSWER


@pytest.mark.parametrize("instead", [ANSWER, MARK, b""])
def test_what_another_call_has_there_stays(bare: Lua, instead: bytes) -> None:
    bare.client.set(ANSWER_KEY, OTHER, px=5_000)
    assert bare.keep(MARK, instead) == 0
    assert there(bare) == OTHER
    assert bare.client.pttl(ANSWER_KEY) <= 5_000


def test_a_repetition_changes_nothing(bare: Lua) -> None:
    bare.client.set(ANSWER_KEY, MARK)
    assert [bare.keep(MARK, ANSWER) for _ in range(3)] == [1, 1, 1]
    assert there(bare) == ANSWER
    assert bare.keep(MARK, MARK) == 0  # a renewal that comes late
    assert there(bare) == ANSWER
    bare.client.set(ANSWER_KEY, MARK)
    assert [bare.keep(MARK, "") for _ in range(3)] == [1, 1, 1]
    assert bare.keep(MARK, MARK) == 0
    assert there(bare) is None


@pytest.mark.parametrize(
    "wrong",
    [{"rid": ""}, {"mark": ""}, *({"lives": lives} for lives in ("", 0, -1, 1.5, "x", 10**15))],
    ids=str,
)
def test_a_wrong_argument_writes_nothing(bare: Lua, wrong: dict[str, Value]) -> None:
    bare.client.set(ANSWER_KEY, MARK)
    with pytest.raises(redis.ResponseError, match=r"keep: an argument"):
        bare.run("keep", **{"mark": MARK, "instead": ANSWER, **wrong})
    assert there(bare) == MARK


def test_a_key_of_another_type_is_left_alone(bare: Lua) -> None:
    bare.client.hset(ANSWER_KEY, "a", "b")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        bare.keep(MARK, ANSWER)
    assert bare.client.hgetall(ANSWER_KEY) == {b"a": b"b"}


def test_a_call_ends_its_mark_even_without_memory(
    bare: Lua, fill_memory: Callable[[], None]
) -> None:
    bare.client.set(ANSWER_KEY, MARK)
    fill_memory()
    assert bare.keep(MARK, ANSWER) == 1
    assert there(bare) == ANSWER
