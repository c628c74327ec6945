"""Prompt tokens, written tokens, and the tally that adds them up."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.adapters.tokenizer.bpe import BpeTokenizer
from gateway.core.prompt.chat import count_chat_prompt
from gateway.standin.counting import prompt_tokens
from gateway.standin.tally import Served, Tally
from gateway.standin.usage import Usage
from gateway.standin.writing import SENTENCE_TOKENS, text
from tests.unit.standin.standin_client import count_words

served = Served(status=200, prompt_tokens=5, completion_tokens=7, finished=True, reported=True)


def test_the_prompt_formula() -> None:
    one = [{"role": "user", "content": "one two three"}]
    assert prompt_tokens(one, count_words) == 3 + (3 + 1 + 3)
    named = [{"role": "user", "content": "one", "name": "ann"}]
    assert prompt_tokens(named, count_words) == 3 + (3 + 1 + 1 + 1 + 1)
    assert prompt_tokens([*one, *named], count_words) == 3 + 7 + 7


def test_the_parts_of_a_message_count() -> None:
    def counted(*parts: dict[str, Any]) -> int:
        return prompt_tokens([{"role": "user", "content": list(parts)}], count_words) - 3 - 3 - 1

    text_part = {"type": "text", "text": "one two"}
    assert counted(text_part) == 2
    assert counted(text_part, {"type": "image_url", "image_url": {"url": "x"}}) == 2 + 765
    low = {"type": "image_url", "image_url": {"url": "x", "detail": "low"}}
    assert counted(low, low) == 2 * 85
    assert counted({"type": "input_image", "image_url": "x", "detail": "low"}) == 85
    assert counted({"type": "input_image", "image_url": "x", "detail": "high"}) == 765
    sound = {"type": "input_audio", "input_audio": {"data": "A" * 8_000, "format": "wav"}}
    assert counted(sound) == 2
    assert counted({"type": "file", "file": {"file_id": "f"}}) == 0
    assert prompt_tokens([{"role": "assistant", "content": None}], count_words) == 3 + 3 + 1


words = st.text(alphabet="ab ", min_size=1, max_size=20)
part = st.fixed_dictionaries({"type": st.just("text"), "text": words})
message = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant"])},
    optional={"content": words | st.lists(part, max_size=3), "name": words},
)


@given(messages=st.lists(message, max_size=4))
def test_the_gateway_states_the_same_formula(messages: list[dict[str, Any]]) -> None:
    gateways = count_chat_prompt({"messages": messages}, count_words)
    assert prompt_tokens(messages, count_words) == gateways


@given(start=st.integers(0, 1000), tokens=st.integers(0, 1000))
def test_a_text_has_the_tokens_it_was_asked_for(start: int, tokens: int) -> None:
    assert count_words(text(start, tokens)) == tokens


@given(total=st.integers(0, 200), step=st.integers(1, 50))
def test_pieces_of_a_text_join_to_the_whole(total: int, step: int) -> None:
    pieces = [text(start, min(step, total - start)) for start in range(0, total, step)]
    assert "".join(pieces) == text(0, total)


def test_a_token_here_is_a_token_of_o200k_wherever_the_text_is_cut() -> None:
    tokenizer = BpeTokenizer()
    for start in range(SENTENCE_TOKENS + 1):
        for tokens in range(3 * SENTENCE_TOKENS):
            assert tokenizer.count(text(start, tokens), "o200k_base") == tokens
    assert tokenizer.count(text(0, 1_900), "o200k_base") == 1_900


def test_the_default_length_is_one_friendly_sentence() -> None:
    assert text(0, 12) == "Hello! Your words arrived, and here is an answer."


def test_a_call_is_added_when_it_ends() -> None:
    tally = Tally()
    call = tally.begin("r1", "ann")
    before = tally.shown(with_calls=False)
    assert (before["requests"], before["prompt_tokens"]) == (1, 0)
    call.end(served)
    after = tally.shown(with_calls=False)
    assert (after["prompt_tokens"], after["completion_tokens"]) == (5, 7)
    assert "calls" not in after


def test_only_the_newest_calls_are_kept_but_every_sum() -> None:
    tally = Tally(calls_max=2)
    for request_id in ("r1", "r2", "r3"):
        tally.begin(request_id, "ann").end(served)
    shown = tally.shown(with_calls=True)
    assert shown["requests"] == 3
    assert shown["completion_tokens"] == 21
    assert list(shown["calls"]) == ["r2", "r3"]


def test_a_call_that_ends_after_a_reset_is_counted_nowhere() -> None:
    tally = Tally()
    call = tally.begin("r1", "ann")
    tally.reset()
    call.end(served)
    shown = tally.shown(with_calls=True)
    assert shown["requests"] == shown["prompt_tokens"] == 0
    assert not shown["users"]
    assert not shown["calls"]


def test_a_reported_usage_replaces_what_was_counted() -> None:
    told = Served(status=200, prompt_tokens=1, completion_tokens=1)
    told.report(Usage(90, 80))
    assert (told.prompt_tokens, told.completion_tokens, told.reported) == (90, 80, True)
