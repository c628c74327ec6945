"""Prompts of a replay have the size that the trace demands, to the token, as everybody counts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.adapters.tokenizer.bpe import PIECE_CHARS, BpeTokenizer
from gateway.core.prompt.chat import count_chat_prompt
from gateway.ports.tokenizer import ENCODINGS
from gateway.replay.prompt import PromptWriter, message
from gateway.standin.counting import prompt_tokens
from gateway.standin.directives import read_directives

Count = Callable[[str], int]
LEAST_TOKENS = 13  # 3 for the reply, 3 and the role for the message, 6 for the order
# All around the places where a tokenizer takes the next piece of a text.
AROUND_PIECES = [PIECE_CHARS // 4 * n + more for n in (1, 2) for more in range(-12, 30)]
SIZES = [*range(60), *AROUND_PIECES, 14_050]


@pytest.fixture(scope="module", params=sorted(ENCODINGS))
def count(request: pytest.FixtureRequest) -> Count:
    tokenizer = BpeTokenizer()
    tokenizer.load(request.param)
    return lambda text: tokenizer.count(text, request.param)


def test_a_prompt_has_exactly_the_tokens_of_its_row(count: Count) -> None:
    writer = PromptWriter(count)
    order = count("@stand-in write=44")
    least = LEAST_TOKENS - 6 + order
    for size in SIZES:
        chat = [message(writer.write(size, 44))]
        wanted = max(least, size)
        assert count_chat_prompt({"messages": chat}, count) == wanted
        assert prompt_tokens(chat, count) == wanted


def test_the_least_prompt_of_gpt_4o_has_13_tokens() -> None:
    tokenizer = BpeTokenizer()

    def count(text: str) -> int:
        return tokenizer.count(text, "o200k_base")

    chat = [message(PromptWriter(count).write(0, 44))]
    assert count_chat_prompt({"messages": chat}, count) == LEAST_TOKENS


def test_the_stand_in_reads_the_order_in_every_prompt(count: Count) -> None:
    writer = PromptWriter(count)
    for size in (0, 14, 15, 400):
        for tokens in (0, 7, 44, 395, 1000, 123_456, 1_000_000):
            text = writer.write(size, tokens)
            assert read_directives(text).write == tokens
            asked = max(
                size, count_chat_prompt({"messages": [message(writer.write(0, tokens))]}, count)
            )
            assert count_chat_prompt({"messages": [message(text)]}, count) == asked


def test_a_vocabulary_without_the_word_is_refused() -> None:
    with pytest.raises(ValueError, match="not one token"):
        PromptWriter(len)
