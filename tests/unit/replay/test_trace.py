"""Reading a trace: the rows as they stand, and a clear word about any that do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.replay.trace import COLUMNS, Row, TraceError, count_rows, read_trace
from tests.unit.replay.sample_rows import ROWS, SAMPLE, sample_lines

HEADER = ",".join(COLUMNS)
TIME = "2023-11-16 18:15:46.6805900"


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "trace.csv"


def test_rows_are_read_in_the_form_of_the_public_trace(trace: Path) -> None:
    later = "2023-11-16 18:15:50.9951690"
    trace.write_bytes(f"{HEADER}\r\n{TIME},374,44\r\n{later},396,0".encode())
    rows = list(read_trace(trace))
    assert rows[0] == Row(0.0, 374, 44)
    assert rows[1].at_s == pytest.approx(4.314579, abs=1e-5)
    assert (rows[1].context_tokens, rows[1].generated_tokens) == (396, 0)
    assert count_rows(trace) == 2


def test_columns_may_stand_in_any_order_among_others(trace: Path) -> None:
    trace.write_text(
        "\ufeffGeneratedTokens,Kind,TIMESTAMP,ContextTokens\n"
        "7,chat,2024-05-10 00:00:00.009930+00:00,20\n\n"
        "8,chat,2024-05-10 00:00:01.009930+00:00,30\n"
    )
    assert [tuple(map(int, (row.at_s, row.context_tokens, row.generated_tokens)))
            for row in read_trace(trace)] == [(0, 20, 7), (1, 30, 8)]  # fmt: skip


def test_rows_are_read_only_when_they_are_asked_for(trace: Path) -> None:
    trace.write_text(f"{HEADER}\n{TIME},1,2\nbroken\n")
    rows = read_trace(trace)
    assert next(rows) == Row(0.0, 1, 2)
    with pytest.raises(TraceError):
        next(rows)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", f"line 1: expected the columns {HEADER}, found nothing"),
        ("a,b\n1,2\n", f"line 1: expected the columns {HEADER}, found 'a,b'"),
        (f"{HEADER}\n", "expected at least one row below the names of the columns"),
        (f"{HEADER}\n{TIME},1,2\n{TIME},1\n", f"line 3: expected 3 columns, found '{TIME},1'"),
        (
            f"{HEADER}\nyesterday,1,2\n",
            "line 2: expected a TIMESTAMP such as 2023-11-16 18:15:46.6805900, found 'yesterday'",
        ),
        (
            f"{HEADER}\n{TIME},-1,2\n",
            "line 2: expected ContextTokens as a whole number up to 1,000,000, found '-1'",
        ),
        (
            f"{HEADER}\n{TIME},1,1000001\n",
            "line 2: expected GeneratedTokens as a whole number up to 1,000,000, found '1000001'",
        ),
        (f"{HEADER}\n{TIME},1,\n", "line 2: expected GeneratedTokens as a whole number up to "
         "1,000,000, found nothing"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_file_line_and_expectation(
    trace: Path, text: str, problem: str
) -> None:
    trace.write_text(text)
    with pytest.raises(TraceError) as told:
        count_rows(trace)
    assert str(told.value) == f"{trace}: {problem}"


def test_a_file_that_is_missing_a_directory_or_no_text_is_told_apart(
    trace: Path, tmp_path: Path
) -> None:
    with pytest.raises(TraceError, match=r"expected a CSV file, found nothing there"):
        count_rows(trace)
    with pytest.raises(TraceError, match=r"expected a CSV file, found a directory"):
        count_rows(tmp_path)
    trace.write_bytes(f"{HEADER}\n".encode() + b"\xff\xfe\n")
    with pytest.raises(TraceError, match=r"expected CSV in UTF-8"):
        count_rows(trace)


def test_the_sample_that_ships_is_what_its_generator_makes() -> None:
    assert SAMPLE.read_text().splitlines() == list(sample_lines())
    assert count_rows(SAMPLE) == ROWS
