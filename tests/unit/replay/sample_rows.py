"""Makes the sample trace that ships: `python tests/unit/replay/sample_rows.py` writes it anew.

Invented from chance alone, in the form of the public traces: short and long prompts are equally
likely on a scale of ratios, and requests come at random, every 1.5 seconds on average.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from math import exp, log
from pathlib import Path
from random import Random

SAMPLE = Path(__file__).resolve().parents[3] / "gateway" / "replay" / "sample.csv"
ROWS = 400
_SEED = 1
_GAP_S = 1.5


def sample_lines() -> Iterator[str]:
    """The lines of the file, without their ends."""
    chance = Random(_SEED)
    yield "TIMESTAMP,ContextTokens,GeneratedTokens"
    at = datetime(2026, 1, 5, 9)
    for _ in range(ROWS):
        at += timedelta(seconds=-log(1 - chance.random()) * _GAP_S)
        context, generated = between(20, 4000, chance), between(8, 600, chance)
        yield f"{at:%Y-%m-%d %H:%M:%S.%f}0,{context},{generated}"


def between(least: int, most: int, chance: Random) -> int:
    """A number whose logarithm is drawn evenly."""
    return round(exp(log(least) + chance.random() * log(most / least)))


if __name__ == "__main__":
    SAMPLE.write_text("".join(f"{line}\n" for line in sample_lines()))
