"""The shipped vocabularies are OpenAI's, and no text stops the counting."""

from __future__ import annotations

import base64
import gzip
import hashlib
import random
import socket
import zipfile
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.adapters.tokenizer import bpe, pack
from gateway.adapters.tokenizer.bpe import PIECE_CHARS, BpeTokenizer
from gateway.adapters.tokenizer.pack import parse_published
from gateway.adapters.tokenizer.published import PUBLISHED
from gateway.adapters.tokenizer.vocabulary import pack_tokens, unpack_ranks
from gateway.ports.tokenizer import ENCODINGS, LARGE_TEXT_CHARS, UnknownEncoding, is_large

TOKENIZER = BpeTokenizer()


def packed(name: str) -> bytes:
    return files("gateway.adapters.tokenizer").joinpath("vocab", f"{name}.gz").read_bytes()


def published_text(name: str) -> bytes:
    """The file that OpenAI published, made again out of ours."""
    lines = (base64.b64encode(t) + b" %d\n" % r for t, r in unpack_ranks(packed(name)).items())
    return b"".join(lines)


def refuse(*_: Any, **__: Any) -> NoReturn:
    raise AssertionError("the tokenizer tried to reach the network")


def test_all_encodings_of_the_port_ship() -> None:
    assert set(PUBLISHED) == ENCODINGS


@pytest.mark.parametrize("name", sorted(ENCODINGS))
def test_a_shipped_vocabulary_is_what_openai_published(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned: dict[str, str] = {}
    openai_public = import_module("tiktoken_ext.openai_public")
    monkeypatch.setattr(
        openai_public, "load_tiktoken_bpe", lambda _, expected_hash: pinned.update(h=expected_hash)
    )
    theirs = getattr(openai_public, name)()
    ours = PUBLISHED[name]
    assert hashlib.sha256(published_text(name)).hexdigest() == ours.text_sha256 == pinned["h"]
    assert ours.pattern == theirs["pat_str"]
    assert dict(ours.special_tokens) == theirs["special_tokens"]


@pytest.mark.parametrize(
    ("name", "text", "tokens"),
    [
        ("o200k_base", "tiktoken is great!", 6),
        ("cl100k_base", "tiktoken is great!", 6),
        ("cl100k_base", "antidisestablishmentarianism", 6),
        ("o200k_base", "お誕生日おめでとう", 8),
        ("cl100k_base", "お誕生日おめでとう", 9),
        ("o200k_base", "", 0),
    ],
)
def test_counts_are_those_of_the_openai_cookbook(name: str, text: str, tokens: int) -> None:
    assert TOKENIZER.count(text, name) == tokens


def test_neither_network_nor_cache_folder_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr("tiktoken.load.read_file", refuse)
    monkeypatch.setattr("tiktoken.load.read_file_cached", refuse)
    assert BpeTokenizer().count("hello world", "cl100k_base") == 2


def test_names_of_special_tokens_are_ordinary_text() -> None:
    assert TOKENIZER.count("<|endoftext|>", "o200k_base") == 7
    assert TOKENIZER.count("<|im_start|>system<|endofprompt|>", "cl100k_base") > 5


@pytest.mark.parametrize("text", [" ", "a", "!", "\n", "\u0301", "漢", "\U0001f468\u200d"])
def test_a_megabyte_of_anything_is_counted(text: str) -> None:
    chars = 1_000_000
    counted = TOKENIZER.count(text * (chars // len(text)), "o200k_base")
    assert 0 < counted <= chars * 4


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\udc00\ud800"])
def test_a_surrogate_counts_as_what_replaces_it(text: str) -> None:
    sent = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert TOKENIZER.count(text, "o200k_base") == TOKENIZER.count(sent, "o200k_base")


@settings(deadline=None)
@given(st.text(st.characters(codec=None), max_size=200))
def test_no_text_has_more_tokens_than_bytes(text: str) -> None:
    for name in ENCODINGS:
        bound = len(text.encode("utf-8", "surrogatepass"))
        assert TOKENIZER.count(text, name) <= bound


def test_pieces_add_less_than_a_thousandth() -> None:
    words = ["the", "quota", "of", "tokens", "naïve", "x = y[3];", "counted\n", "日本語"]
    text = " ".join(random.Random(7).choices(words, k=40_000))
    whole = len(TOKENIZER._encoding("o200k_base").encode_ordinary(text))
    assert len(text) > 20 * PIECE_CHARS
    assert whole <= TOKENIZER.count(text, "o200k_base") <= whole * 1.001


def test_threads_that_ask_at_once_read_the_vocabulary_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[bytes] = []

    def read(data: bytes) -> dict[bytes, int]:
        reads.append(data)
        return unpack_ranks(data)

    monkeypatch.setattr(bpe, "unpack_ranks", read)
    tokenizer = BpeTokenizer()
    with ThreadPoolExecutor(8) as threads:
        counts = threads.map(tokenizer.count, ["hello world"] * 16, ["cl100k_base"] * 16)
    assert list(counts) == [2] * 16
    assert len(reads) == 1


@pytest.mark.parametrize("name", ["gpt2", "", "../vocab/o200k_base"])
def test_an_unknown_encoding_is_named_with_those_there_are(name: str) -> None:
    for ask in (TOKENIZER.load, lambda n: TOKENIZER.count("a", n)):
        with pytest.raises(UnknownEncoding, match="o200k_base, cl100k_base"):
            ask(name)


def test_only_texts_over_the_threshold_are_large() -> None:
    assert not is_large(LARGE_TEXT_CHARS)
    assert is_large(LARGE_TEXT_CHARS + 1)


@settings(deadline=None)
@given(st.sets(st.binary(min_size=1, max_size=9), max_size=20))
def test_packing_and_unpacking_keeps_every_rank(tokens: set[bytes]) -> None:
    ordered = sorted(tokens)
    assert unpack_ranks(pack_tokens(ordered)) == {token: r for r, token in enumerate(ordered)}
    assert pack_tokens(ordered) == pack_tokens(ordered)


def test_the_pack_script_writes_the_shipped_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pack, "__file__", str(tmp_path / "pack.py"))
    (tmp_path / "vocab").mkdir()
    with zipfile.ZipFile(tmp_path / "wheel", "w") as wheel:
        for name in PUBLISHED:
            data = gzip.compress(published_text(name), 1)
            wheel.writestr(f"bpe_openai/data/{name}.tiktoken.gz", data)
    assert pack.main([str(tmp_path / "wheel")]) == 0
    assert "o200k_base: 199998 tokens" in capsys.readouterr().out
    for name in PUBLISHED:
        made = gzip.decompress((tmp_path / "vocab" / f"{name}.gz").read_bytes())
        assert made == gzip.decompress(packed(name))


def test_a_file_that_openai_did_not_publish_is_not_packed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ValueError, match="not the file OpenAI published"):
        parse_published(b"YQ== 0\n", PUBLISHED["o200k_base"].text_sha256)
    gap = b"YQ== 0\nYg== 2\n"
    with pytest.raises(ValueError, match="without a gap"):
        parse_published(gap, hashlib.sha256(gap).hexdigest())
    assert pack.main([]) == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize("tokens", [[b""], [b"x" * 256]])
def test_a_token_that_the_format_cannot_hold_is_refused(tokens: list[bytes]) -> None:
    with pytest.raises(ValueError, match="1 to 255 bytes"):
        pack_tokens(tokens)
