"""Log lines: their fields, how many of them there may be, and what none of them ever holds."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import msgspec
import pytest
import redis.exceptions
import yaml

from gateway.app.logs import Bound, JsonLines, TextLines, choose_decisions, configure_logs
from gateway.config import Settings, load
from gateway.core.log_facts import Facts
from gateway.flow.decisions import ADMITTED, REFUSED, tell_admitted, tell_refused

ROOT = Path(__file__).resolve().parents[3]
RID = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"
FACTS = Facts(request=RID, user="ann", decision="refused", reason="quota_in_flight", tokens=9)
KEY, PLAIN = "sk-canary-a1b2c3d4e5", "canary.key.without.a.shape"


class Lines(logging.Handler):
    """Keeps the lines of a formatter."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, which a test may configure; all is as it was afterwards."""
    logger = logging.getLogger()
    before, level = logger.handlers[:], logger.level
    yield logger
    logger.handlers[:] = before
    logger.setLevel(level)
    choose_decisions("refused", lambda after_s, work: None)
    REFUSED.filters.clear()


def logged(root: logging.Logger, formatter: logging.Formatter, *decisions: str) -> list[str]:
    """What is written from now on at DEBUG level."""
    handler = Lines(formatter)
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG)
    if decisions:
        choose_decisions(decisions[0], lambda after_s, work: None)
    return handler.lines


def settings_with(place: Path, log: dict[str, str]) -> Settings:
    shipped = yaml.safe_load((ROOT / "config.yaml").read_text())
    shipped["log"] = log
    shipped["upstreams"]["openai"]["api_key"] = PLAIN
    path = place / "config.yaml"
    path.write_text(yaml.safe_dump(shipped))
    url = "postgresql://gw:pass[word@db/quota"
    return load(path, {"DATABASE_URL": url, "QUOTA_PEPPER": "p" * 40})


def test_a_line_of_json_has_fixed_names_and_no_others(root: logging.Logger) -> None:
    lines = logged(root, JsonLines(), "refused")
    tell_refused("refused", FACTS)
    logging.getLogger("other").warning("two\nlines, %s", "é", extra={"body": KEY})
    first, second = map(json.loads, lines)
    at = first.pop("time")
    assert (at[10], at[-1], len(at)) == ("T", "Z", 24)
    assert first == {
        "level": "info", "logger": "gateway.decisions.refused", "message": "refused",
        "request": RID, "user": "ann", "decision": "refused", "reason": "quota_in_flight",
        "tokens": 9,
    }  # fmt: skip
    assert list(second) == ["time", "level", "logger", "message"]
    assert second["message"] == "two\nlines, é"
    assert all(line.isascii() and line.count("\n") == 0 for line in lines)


def test_a_line_of_text_is_for_a_person_and_stays_one(root: logging.Logger) -> None:
    lines = logged(root, TextLines(), "refused")
    tell_refused("refused", FACTS)
    logging.getLogger("other").warning("a\n2026 forged\x1b[2J")
    assert lines[0].endswith(
        f" INFO    gateway.decisions.refused: refused request={RID} user=ann decision=refused "
        "reason=quota_in_flight tokens=9"
    )
    assert lines[1].endswith(r" WARNING other: a\n2026 forged\x1b[2J")


TROUBLE: list[Callable[[str], Exception]] = [
    ValueError,
    KeyError,
    aiohttp.InvalidURL,
    aiohttp.ClientPayloadError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    redis.exceptions.ConnectionError,
    redis.exceptions.AuthenticationError,
    msgspec.ValidationError,
    UnicodeError,
    OSError,
    lambda text: ExceptionGroup("several", [ValueError(text)]),
]


@pytest.mark.parametrize("made", TROUBLE, ids=range(len(TROUBLE)))
@pytest.mark.parametrize("formatter", [JsonLines, TextLines])
def test_no_exception_carries_a_secret_into_the_log(
    root: logging.Logger, formatter: Callable[[tuple[str, ...]], logging.Formatter], made: Any
) -> None:
    lines = logged(root, formatter((PLAIN,)))
    text = f"https://ann:pw123@api.test/v1/files?key=abc {KEY} {PLAIN} bob@example.test"
    try:
        try:
            raise made(text)
        except Exception as error:
            raise RuntimeError(f"again {text}") from error
    except RuntimeError as error:
        log = logging.getLogger("gateway.proxy")
        log.exception("failed: %s", error)
        log.debug("%r", error)
    assert len(lines) == 2
    for canary in (KEY, PLAIN, "pw123", "ann:", "/v1/files", "key=abc", "bob@"):
        assert [line for line in lines if canary in line] == [], canary
    if formatter is JsonLines:
        assert "Traceback (most recent call last)" in json.loads(lines[0])["exception"]
        assert "\n" not in lines[0]


@pytest.mark.parametrize(
    ("decisions", "written"),
    [("none", []), ("refused", ["refused"]), ("all", ["admitted", "refused"])],
)
def test_the_decisions_that_are_asked_for_get_a_line(
    root: logging.Logger, decisions: str, written: list[str]
) -> None:
    lines = logged(root, JsonLines(), decisions)
    assert ADMITTED.disabled == ("admitted" not in written)
    tell_admitted(FACTS)
    tell_refused("refused", FACTS)
    assert [json.loads(line)["message"] for line in lines] == written


def test_a_flood_of_refusals_is_counted_and_told_once(root: logging.Logger) -> None:
    due: list[Callable[[], None]] = []
    lines = logged(root, TextLines(), "all")
    bound = Bound(lambda after_s, work: due.append(work), lines_max=3)
    REFUSED.addFilter(bound)
    for _ in range(2):
        for reason in ("quota_in_flight", *["invalid_api_key"] * 6):
            tell_refused("refused", Facts(reason=reason))
        REFUSED.info("without facts")
        assert len(lines) == 3
        (end,) = due
        due.clear()
        end()
        assert lines[3].endswith(
            "gateway.decisions: 5 more calls were refused within 10 s: invalid_api_key 4, none 1"
        )
        lines.clear()
    tell_refused("refused", FACTS)
    due.pop()()
    assert len(lines) == 1, "nothing was left out, so nothing is told"


@pytest.mark.parametrize(
    ("form", "place"), [(f, p) for f in ("auto", "json", "text") for p in (Terminal, io.StringIO)]
)
def test_auto_is_text_on_a_terminal_and_json_elsewhere(
    root: logging.Logger,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    form: str,
    place: type[io.StringIO],
) -> None:
    written = place()
    monkeypatch.setattr(sys, "stderr", written)
    configure_logs(settings_with(tmp_path, {"format": form}))
    logging.getLogger("gateway.x").info("the key %s, the password %s", PLAIN, "pass[word")
    said = written.getvalue()
    is_json = form == "json" or (form == "auto" and not written.isatty())
    assert said.startswith("{") == is_json
    assert "the key ***, the password ***" in said
    assert root.level == logging.INFO
