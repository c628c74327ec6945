"""Pictures cost what OpenAI's guide says they do, and never more than their rule's most.

Sizes with their tokens are OpenAI's own examples ("Images and vision", and the older guide of 1,536
patches), or computed by hand from the rules there.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.inference.chat import ChatRequest, judge_chat
from gateway.core.models import Model, Weights
from gateway.core.prompt.pictures import (
    PICTURE_RULES,
    FlatRule,
    Level,
    PatchRule,
    TileRule,
    count_picture,
)
from gateway.core.refusal import Case, Refused
from tests.fakes.pictures import data_url, jpeg, png

DETAILS = ["low", "high", "auto", "original", None, "of tomorrow"]
MODEL = Model(
    "gpt-4o", "openai", "o200k_base", 9999, 99, 9, 9, Weights(), pictures=PICTURE_RULES["gpt-4o"]
)
FAR = "https://example.test/a.png"


@pytest.mark.parametrize(
    ("name", "detail", "width", "height", "tokens"),
    [
        ("gpt-4o", "high", 1024, 1024, 765),
        ("gpt-4o", "high", 2048, 4096, 1105),
        ("gpt-4o", "low", 4096, 8192, 85),
        ("gpt-4o", "auto", 1920, 1080, 1105),
        ("gpt-4o", None, 2048, 768, 1445),
        ("gpt-4o", "high", 512, 512, 255),
        ("gpt-4o-mini", "auto", 1024, 1024, 25_501),
        ("gpt-4o-mini", "low", 1024, 1024, 2833),
        ("gpt-5", "auto", 1024, 1024, 630),
        ("gpt-4.1-mini", "high", 2048, 2048, 6636),
        ("gpt-5.4", "high", 1024, 1024, 1229),
        ("gpt-5.4", "auto", 2048, 2048, 3000),
        ("gpt-5.5", "auto", 4032, 3024, 11_868),
        ("gpt-5.6", "auto", 256, 256, 77),
        ("gpt-5.6", None, 512, 512, 308),
        ("gpt-5.6", "auto", 768, 768, 692),
        ("gpt-5.6", "auto", 1280, 720, 1104),
        ("gpt-5.6", "auto", 1920, 1080, 2448),
        ("gpt-5.6", "original", 2560, 1440, 4320),
        ("gpt-5.6", "auto", 3840, 2160, 9792),
        ("gpt-5.6", "auto", 4032, 3024, 14_364),
        ("gpt-5.6", "high", 4032, 3024, 2942),
        ("gpt-5.6", "high", 3840, 2160, 2765),
        ("gpt-5.6", "low", 4032, 3024, 231),
        ("gpt-5.6", "auto", 4096, 8192, 35_722),  # OpenAI refuses it; as if it were scaled down
    ],
)
def test_a_picture_costs_what_the_guide_says(
    name: str, detail: str | None, width: int, height: int, tokens: int
) -> None:
    rule = PICTURE_RULES[name]
    assert rule.tokens((width, height), detail) == tokens
    assert rule.tokens((height, width), detail) == tokens
    assert count_picture(data_url(png(width, height)), detail, rule) == tokens


@pytest.mark.parametrize(("size", "patches"), [((1024, 1024), 1024), ((1800, 2400), 1452)])
def test_a_budget_of_patches_is_kept_as_the_older_guide_shows(
    size: tuple[int, int], patches: int
) -> None:
    assert Level(10**6, 1536).patches(size) == patches


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("gpt-4o", (85, 1445, 1445, 1445)),
        ("gpt-4o-mini", (2833, 48_169, 48_169, 48_169)),
        ("gpt-5", (70, 1190, 1190, 1190)),
        ("o3", (75, 1275, 1275, 1275)),
        ("gpt-4.1-mini", (6636, 6636, 6636, 6636)),
        ("gpt-5.2", (4916, 4916, 4916, 4916)),
        ("gpt-5.4", (4916, 3000, 3000, 12_000)),
        ("gpt-5.5", (308, 3000, 12_000, 12_000)),
        ("gpt-5.6", (308, 3000, 36_000, 36_000)),
    ],
)
def test_the_most_that_a_picture_can_cost(name: str, most: tuple[int, ...]) -> None:
    rule = PICTURE_RULES[name]
    assert tuple(rule.most_tokens(detail) for detail in DETAILS[:4]) == most
    assert rule.most_tokens(None) == rule.most_tokens("auto")
    assert rule.most_tokens("of tomorrow") == max(most)
    for detail in DETAILS:
        assert count_picture(FAR, detail, rule) == rule.most_tokens(detail)
        assert count_picture("data:image/png;base64,AAAA", detail, rule) == rule.most_tokens(detail)


def test_every_rule_is_in_the_table_of_the_most() -> None:
    assert len(PICTURE_RULES) == 9


SIDES = st.integers(1, 5000) | st.integers(1, 2**32)


@settings(deadline=None, max_examples=600)
@given(SIDES, SIDES, st.sampled_from(DETAILS))
def test_no_picture_costs_more_than_the_most_or_nothing(
    width: int, height: int, detail: str | None
) -> None:
    for rule in PICTURE_RULES.values():
        tokens = rule.tokens((width, height), detail)
        assert 1 <= tokens <= rule.most_tokens(detail)


@pytest.mark.parametrize("name", PICTURE_RULES)
@pytest.mark.parametrize("size", [(10**9, 10**9), (1, 2**31), (2**31, 1), (2049, 1), (1, 1)])
def test_a_picture_bomb_is_bounded(name: str, size: tuple[int, int]) -> None:
    rule = PICTURE_RULES[name]
    for detail in DETAILS:
        bomb = data_url(png(*size, rows=b"\0"))
        assert 1 <= count_picture(bomb, detail, rule) <= rule.most_tokens(detail)


def test_a_model_without_a_rule_of_its_own_has_one_price() -> None:
    rule = FlatRule(700)
    assert [count_picture(url, "low", rule) for url in (FAR, data_url(png(3, 3)))] == [700, 700]


def test_the_rules_by_patches_name_their_dearest_detail_original() -> None:
    by_patches = [rule for rule in PICTURE_RULES.values() if isinstance(rule, PatchRule)]
    assert len(by_patches) + sum(isinstance(r, TileRule) for r in PICTURE_RULES.values()) == 9
    for rule in by_patches:
        levels = (rule.low, rule.high, rule.auto)
        assert all(each.most_patches <= rule.original.most_patches for each in levels)


# --- in a chat ---------------------------------------------------------------------------------


def part(url: Any, **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **more}}


def judged(*parts: Any) -> ChatRequest:
    content = [{"type": "text", "text": "what?"}, *parts]
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": content}]}
    return judge_chat(json.dumps(body).encode())


def test_pictures_are_counted_by_their_rule_and_never_as_text() -> None:
    small, large = data_url(png(512, 512)), data_url(jpeg(2048, 768) + b"\0" * 100_000)
    text = judged().count_prompt(MODEL, len)
    request = judged(part(small), part(large, detail="high"), part(FAR, detail="low"), part(FAR))
    assert request.count_prompt(MODEL, len) == text + 255 + 1445 + 85 + 1445


def test_a_request_with_a_picture_is_not_text() -> None:
    assert judged().text_only
    assert not judged(part(FAR)).text_only


def test_a_model_that_takes_no_pictures_says_so_by_name() -> None:
    with pytest.raises(Refused) as caught:
        judged(part(FAR)).count_prompt(replace(MODEL, name="text-9", pictures=None), len)
    refused = caught.value
    assert (refused.case, refused.param) == (
        *(Case.UNSUPPORTED_PARAMETER, "messages[0].content[1]"),
    )
    assert "text-9" in refused.message


@pytest.mark.parametrize(
    "url", [None, 3, "", "a.png", "file:///etc/passwd", "//example.test/a", "javascript:1", [FAR]]
)
def test_only_data_and_addresses_are_pictures(url: Any) -> None:
    with pytest.raises(Refused) as caught:
        judged(part(url))
    assert caught.value.case is Case.INVALID_VALUE
    assert caught.value.param == "messages[0].content[1].image_url"


@pytest.mark.parametrize("held", [None, "https://example.test/a.png", []])
def test_a_picture_s_part_holds_an_object(held: Any) -> None:
    with pytest.raises(Refused) as caught:
        judged({"type": "image_url", "image_url": held})
    assert caught.value.case is Case.INVALID_VALUE


def test_a_stored_file_is_no_picture() -> None:
    with pytest.raises(Refused) as caught:
        judged({"type": "image_url", "image_url": {"file_id": "file-1"}})
    assert caught.value.case is Case.UNSUPPORTED_PARAMETER
    assert caught.value.param == "messages[0].content[1].image_url.file_id"


def test_a_detail_is_a_text() -> None:
    with pytest.raises(Refused) as caught:
        judged(part(FAR, detail=3))
    assert caught.value.param == "messages[0].content[1].detail"


def test_a_picture_goes_upstream_as_it_came() -> None:
    url = data_url(png(3, 3))
    assert json.loads(json.dumps(judged(part(url, detail="low")).body["messages"]))[0]["content"][
        1
    ] == part(url, detail="low")
