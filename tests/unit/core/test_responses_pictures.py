"""Pictures in a /responses request: counted by the model's rule, wherever they may stand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gateway.core.models import Model, Weights
from gateway.core.prompt.pictures import PICTURE_RULES
from gateway.core.refusal import Case, Refused
from tests.fakes.pictures import data_url, png
from tests.unit.core.test_responses import HI, OUTPUT, SEALED, judge, refusal, said

MODEL = Model("gpt-4o", "openai", "o200k_base", 9999, 99, 9, 9, Weights())
PNG = data_url(png(1024, 1024))
TILES = replace(MODEL, pictures=PICTURE_RULES["gpt-4o"])


def shown(**fields: Any) -> dict[str, Any]:
    return {"type": "input_image", "image_url": PNG, **fields}


def test_pictures_of_messages_and_of_results_are_counted_by_their_rule() -> None:
    text = {"type": "input_text", "text": "Hi"}
    plain = judge(input=[*said(text), {**OUTPUT, "output": [text]}])
    seen = judge(input=[*said(text, shown()), {**OUTPUT, "output": [text, shown(detail="low")]}])
    tokens = seen.count_prompt(TILES, len) - plain.count_prompt(TILES, len)
    assert tokens == 765 + 85
    assert not seen.text_only


def test_a_model_without_a_rule_takes_no_picture() -> None:
    with pytest.raises(Refused) as caught:
        judge(input=said(shown())).count_prompt(MODEL, len)
    assert caught.value.case is Case.UNSUPPORTED_PARAMETER
    assert caught.value.param == "input[0].content[0]"


@pytest.mark.parametrize("url", [None, "", "file:///etc/passwd", "/a.png", 3])
def test_a_picture_is_data_or_an_address(url: Any) -> None:
    assert refusal(input=said(shown(image_url=url))).case is Case.INVALID_VALUE


@pytest.mark.parametrize("parts", [[3], [None], ["input_image"], [{}], [[]], 3, {"type": "x"}])
def test_what_nobody_reads_in_a_call_is_no_picture(parts: Any) -> None:
    """Fields that an item of its kind does not have pass, and may hold anything."""
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    assert judge(input=[HI, {**call, "content": parts, "output": parts}]).pictures == ()


def test_a_stored_picture_and_one_in_a_thought_are_refused() -> None:
    stored = refusal(input=said({"type": "input_image", "file_id": "file-1"}))
    thought = refusal(input=[{**SEALED, "summary": [shown()]}])
    assert {stored.case, thought.case} <= {Case.UNSUPPORTED_PARAMETER, Case.INVALID_VALUE}
