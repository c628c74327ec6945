"""Several processes' metrics as one: what the ops port shows.

Each process renders its own registry; here they are read again and added up by name and labels.
A gauge of lateness or age is not a sum: the worst process counts, and so it does where a 1 says
that all is well. What a process has counted stays counted when it dies, as far as it was read
before: a sum that drops would look to Prometheus as if all had begun anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

_BIRTH = "_created"  # when a series began: as many samples again, and no sum of them means anything
_WORST: dict[str, Callable[[float, float], float]] = {
    "loop_lag_seconds": max,
    "lag_seconds": max,
    "age_seconds": max,
    "canary_ok": min,
}

_COUNTED = ("counter", "histogram")  # what only grows while a process lives

Labels = tuple[tuple[str, str], ...]


class MergedMetrics:
    """The metrics of several processes, scrape by scrape, also of those that have died since."""

    def __init__(self) -> None:
        self._last: dict[str, str] = {}  # by process: what it said when it was last read
        self._gone = ""  # what earlier lives of all processes had counted

    def of(self, texts: Mapping[str, str | None]) -> str:
        """One exposition. The first line of each text names the life of its process; None for a
        process that does not answer, which counts as what it said last, without its gauges."""
        for name, text in texts.items():
            last = self._last.get(name)
            if text is None:
                continue
            if last is not None and _life(last) != _life(text):
                self._gone = _merge([*_counted(self._gone), *_counted(last)])
            self._last[name] = text
        silent = [self._last.get(name, "") for name, text in texts.items() if text is None]
        counted = (family for text in (self._gone, *silent) for family in _counted(text))
        return _merge([*_families(text for text in texts.values() if text), *counted])


def _life(text: str) -> str:
    return text.partition("\n")[0]


def _families(texts: Iterable[str]) -> Iterator[Metric]:
    for text in texts:
        yield from text_string_to_metric_families(text)


def _counted(text: str) -> Iterator[Metric]:
    return (family for family in _families([text]) if family.type in _COUNTED)


def _merge(families: Iterable[Metric]) -> str:
    """One exposition; samples of the same name and labels become one."""
    heads: dict[str, tuple[str, str]] = {}
    samples: dict[str, dict[tuple[str, Labels], float]] = {}
    for family in families:
        if family.name.endswith(_BIRTH):
            continue
        heads.setdefault(family.name, (family.documentation, family.type))
        merged = samples.setdefault(family.name, {})
        worst = next((of for end, of in _WORST.items() if family.name.endswith(end)), None)
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            if worst is not None:
                merged[key] = worst(merged.get(key, sample.value), sample.value)
            else:
                merged[key] = merged.get(key, 0.0) + sample.value
    return "".join(
        _exposition(name, *heads[name], merged) for name, merged in sorted(samples.items())
    )


def _exposition(
    name: str, documentation: str, kind: str, samples: dict[tuple[str, Labels], float]
) -> str:
    shown = f"{name}_total" if kind == "counter" else name
    lines = [f"# HELP {shown} {documentation}", f"# TYPE {shown} {kind}"]
    for (sample, labels), value in samples.items():
        inner = ",".join(f'{label}="{_escape(text)}"' for label, text in labels)
        lines.append(f"{sample}{{{inner}}} {value!r}" if inner else f"{sample} {value!r}")
    return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
