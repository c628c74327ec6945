"""Results on their way to a reader: tables, pictures, and the page that they are written into."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from bench.chart import Chart
from bench.processes import BenchError
from bench.report import BEGIN, END, TABLES, keep
from bench.table import Table

ROOT = Path(__file__).resolve().parents[2]
START = {"first_s": 3.25, "later_s": [1.5, 1.25, 1.75]}
STREAMS = {
    "loop": "asyncio",
    "streams": 100,
    "books": "all is well",
    "gateway": {"before_mib": 100, "rss_mib": 110, "pss_mib": 105},
    "bare": {"before_mib": 30, "rss_mib": 40, "pss_mib": 35},
}


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    (tmp_path / "performance.md").write_text(f"# Head\n\n{BEGIN}\nold\n{END}\n\nFoot.\n")
    return tmp_path


def page(docs: Path) -> str:
    return (docs / "performance.md").read_text()


def test_a_part_is_written_between_the_marks_and_nothing_else_changes(docs: Path) -> None:
    keep("start", START, docs)
    text = page(docs)
    assert text.startswith("# Head\n\n")
    assert text.endswith("\n\nFoot.\n")
    assert "old" not in text
    assert "| later start, median of 3 | 1.50 | 1.25-1.75 |" in text


def test_measuring_one_part_again_leaves_the_others(docs: Path) -> None:
    keep("start", START, docs)
    keep("streams", STREAMS, docs)
    keep("start", {**START, "first_s": 2.0}, docs)
    text = page(docs)
    assert "3.25" not in text
    assert "| first start, which makes the stores | 2.00 |" in text
    assert text.index("100 open streams") < text.index("Start to ready")  # always the same order
    kept = json.loads((docs / "performance.json").read_text())
    assert kept["streams"]["found"] == STREAMS
    assert {"date", "machine", "python", "versions"} == set(kept["start"]["on"])


def test_a_page_without_the_marks_is_left_alone(docs: Path) -> None:
    (docs / "performance.md").write_text("# Head\n")
    with pytest.raises(BenchError, match="has lost the lines"):
        keep("start", START, docs)
    assert page(docs) == "# Head\n"


def test_a_table_says_the_same_on_a_screen_and_on_a_page() -> None:
    table = Table("Title", ("what", "µs"), (("one", "1"), ("another", "1,234")), ("A note.",))
    assert table.text().splitlines() == [
        "",
        "Title",
        "what        µs",
        "one          1",
        "another  1,234",
        "A note.",
    ]
    assert table.markdown().endswith("| one | 1 |\n| another | 1,234 |\n\n- A note.")


def test_bars_are_as_long_as_their_figures_and_stay_in_the_picture() -> None:
    rows = [("a < b", (50.0, 100.0)), ("c", (0.0, 25.0))]
    root = ET.fromstring(Chart("Title", "µs", ("ours", "theirs"), rows).svg())
    space = "{http://www.w3.org/2000/svg}"
    bars = [float(each.get("width", 0)) for each in root.iter(f"{space}rect") if each.get("rx")]
    assert bars[0] * 2 == pytest.approx(bars[1], abs=0.2)
    assert bars[3] * 4 == pytest.approx(bars[1], abs=0.2)
    wide = float(root.get("viewBox", "").split()[2])
    texts: list[dict[str, Any]] = [dict(each.attrib) for each in root.iter(f"{space}text")]
    assert all(float(text["x"]) < wide - 10 for text in texts)


def test_what_is_kept_in_the_tree_is_what_the_page_shows() -> None:
    """Every part of the page was measured, and by a part that there is."""
    kept = json.loads((ROOT / "docs" / "performance.json").read_text())
    assert kept
    text = (ROOT / "docs" / "performance.md").read_text()
    for name, each in kept.items():
        assert TABLES[name](each["found"]).markdown() in text
