"""What is planned before it is written: JSON of a schema, its tokens, and where the cap cuts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.adapters.tokenizer.bpe import BpeTokenizer
from gateway.standin.directives import Directives
from gateway.standin.errors import Refused
from gateway.standin.output import Part, Wanted, planned
from gateway.standin.schemas import written_by
from tests.unit.standin.standin_client import count_words

ORDER = {
    "type": "object",
    "properties": {
        "customer_name": {"type": "string"},
        "lineItems": {"type": "array", "items": {"$ref": "#/$defs/Item"}},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "paid": {"type": "boolean"},
    },
    "$defs": {
        "Item": {
            "type": "object",
            "properties": {
                "sku-number": {"enum": ["A-1", "B-2"]},
                "count": {"type": "integer", "minimum": 250},
                "kind": {"const": "item"},
                "size": {"type": ["number", "null"]},
                "none": {"type": "null"},
            },
        }
    },
}
TREE = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "children": {"type": "array", "items": {"$ref": "#"}},
    },
}


def o200k(text: str) -> int:
    return _TOKENIZER.count(text, "o200k_base")


_TOKENIZER = BpeTokenizer()


def structured(write: int, cap: int | None, **wanted: Any) -> Part:
    [part] = planned(Directives(write=write), Wanted(cap, **wanted), o200k).parts
    return part


def test_a_schema_is_satisfied() -> None:
    assert json.loads(written_by(ORDER, "words")) == {
        "customer_name": "words",
        "lineItems": [{"sku-number": "A-1", "count": 250, "kind": "item", "size": 1, "none": None}],
        "note": "words",
        "paid": True,
    }


def test_a_schema_of_itself_comes_to_an_end() -> None:
    written = json.loads(written_by(TREE, "x"))
    assert written["children"][0]["name"] == "x"
    endless = {"type": "object", "properties": {"next": {"$ref": "#"}}}
    with pytest.raises(Refused, match="too deep"):
        written_by(endless, "x")


@pytest.mark.parametrize(
    "schema", [{}, {"$ref": "#/$defs/Lost"}, {"type": "object", "properties": 5}]
)
def test_a_schema_that_cannot_be_followed_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="cannot follow"):
        written_by({"type": "object", "properties": {"a": schema}}, "x")


@pytest.mark.parametrize("write", range(14))
def test_the_tokens_of_json_are_those_of_o200k_wherever_it_is_cut(write: int) -> None:
    whole = structured(write, None, schema=ORDER)
    assert whole.tokens == o200k(whole.text)
    for cap in range(1, whole.tokens, 3):
        cut = structured(write, cap, schema=ORDER)
        assert whole.text.startswith(cut.text)
        assert cap - 3 < cut.tokens == o200k(cut.text) <= cap
    for size in (1, 4, 100):
        chunks = list(whole.chunks(size))
        assert "".join(chunk for chunk, _ in chunks) == whole.text
        assert [o200k(chunk) for chunk, _ in chunks] == [tokens for _, tokens in chunks]


def test_the_name_of_a_function_counts_with_its_call() -> None:
    functions = (("get_weather", ORDER),)
    part = structured(3, None, functions=functions, calls=1)
    assert part.tokens == o200k("get_weather") + o200k(part.text)


def test_half_of_a_text_is_half_of_its_tokens() -> None:
    assert [Part(tokens).half[1] for tokens in (0, 1, 2, 9)] == [0, 0, 1, 4]
    text, tokens = structured(20, None, schema=ORDER).half
    assert tokens == o200k(text)


def test_nothing_is_called_when_the_cap_has_been_thought_away() -> None:
    wanted = Wanted(5, functions=(("now", TREE),), calls=2)
    output = planned(Directives(think=9), wanted, count_words)
    assert (output.reasoning_tokens, output.tokens, output.cut) == (5, 5, True)
    assert len(output.parts) == 1
