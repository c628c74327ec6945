"""How log lines look and how many of them there may be, for every command that runs.

JSON with fixed names, one line each, or text for a person at a terminal. Promises that what leaves
here is masked, traceback included, and that a flood of refusals is counted instead of written.
Refuses to know what is logged.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from gateway.config import Settings
from gateway.config.hidden import secrets_of
from gateway.core.log_facts import Facts
from gateway.core.masking import MASK, masked
from gateway.flow.decisions import ADMITTED, DECISIONS, REFUSED

LEVEL = logging.INFO
# Facts that others chose; all the rest are from closed lists or made here.
_FROM_OUTSIDE = ("client_request", "user")
_LINES_MAX, _WINDOW_S = 100, 10.0

Later = Callable[[float, Callable[[], None]], object]


def configure_logs(settings: Settings, before: Settings | None = None) -> None:
    """Log to standard error from now on, as the configuration says. Calls may still be under way
    with the secrets of the one `before`."""
    log = settings.log
    as_json = log.format == "json" or (log.format == "auto" and not sys.stderr.isatty())
    hidden = secrets_of(settings.file)
    if before is not None:
        both = {*hidden, *secrets_of(before.file)}
        hidden = tuple(sorted(both, key=len, reverse=True))
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(hidden) if as_json else TextLines(hidden))
    logging.basicConfig(level=LEVEL, handlers=[handler], force=True)
    choose_decisions(log.decisions)


def choose_decisions(decisions: str, later: Later | None = None) -> None:
    """Which decisions get a line: `none`, `refused` (within bounds) or `all`."""
    REFUSED.disabled = decisions == "none"
    ADMITTED.disabled = decisions != "all"
    REFUSED.filters.clear()
    if decisions == "refused":
        REFUSED.addFilter(Bound(later or _later))


class Lines(logging.Formatter):
    """What both ways of writing have in common. `hidden`: secrets, the longest first."""

    def __init__(self, hidden: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._hidden = hidden

    def clean(self, text: str) -> str:
        """The text without any secret."""
        for secret in self._hidden:
            text = text.replace(secret, MASK)
        return masked(text)

    def facts(self, record: logging.LogRecord) -> dict[str, Any]:
        """What stands beside the words."""
        found = getattr(record, "facts", None)
        if not isinstance(found, Facts):
            return {}
        named: dict[str, Any] = msgspec.to_builtins(found)
        return named | {each: self.clean(named[each]) for each in _FROM_OUTSIDE if each in named}

    def trouble(self, record: logging.LogRecord) -> str:
        """The traceback, '' without one."""
        told = self.formatException(record.exc_info) if record.exc_info else ""
        return self.clean(told)


class JsonLines(Lines):
    """One JSON object a line, in ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _instant(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self.clean(record.getMessage()),
        }
        line |= self.facts(record)
        trouble = self.trouble(record)
        if trouble:
            line["exception"] = trouble
        return json.dumps(line)


class TextLines(Lines):
    """Time, level, part, words, and then the facts as name=value."""

    def format(self, record: logging.LogRecord) -> str:
        facts = "".join(f" {name}={value}" for name, value in self.facts(record).items())
        words = _on_one_line(self.clean(record.getMessage()) + facts)
        line = f"{_instant(record)} {record.levelname:<7} {record.name}: {words}"
        trouble = self.trouble(record)
        return f"{line}\n{trouble}" if trouble else line


class Bound(logging.Filter):
    """Lets so many lines pass in each window, from the first on; the others are counted, and their
    number is told at its end. The metrics have every one of them."""

    def __init__(self, later: Later, lines_max: int = _LINES_MAX) -> None:
        super().__init__()
        self._later, self._lines_max = later, lines_max
        self._written = 0
        self._untold: Counter[str] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        if not self._written:
            self._later(_WINDOW_S, self._end)
        if self._written < self._lines_max:
            self._written += 1
            return True
        facts = getattr(record, "facts", Facts())
        self._untold[facts.reason or "none"] += 1
        return False

    def _end(self) -> None:
        untold, self._untold, self._written = self._untold, Counter(), 0
        if untold:
            reasons = ", ".join(f"{reason} {count}" for reason, count in untold.most_common())
            DECISIONS.info(
                "%d more calls were refused within %d s: %s", untold.total(), _WINDOW_S, reasons
            )


def _later(after_s: float, work: Callable[[], None]) -> object:
    return asyncio.get_running_loop().call_later(after_s, work)


def _instant(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _on_one_line(text: str) -> str:
    """Nobody's words begin a line of their own, or move the cursor of a terminal."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
