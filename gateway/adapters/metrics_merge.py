"""Several processes' metrics as one: what the ops port shows.

Each process renders its own registry; here they are read again and added up by name and labels.
A gauge of lateness or age is not a sum: the worst process counts.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.parser import text_string_to_metric_families

_BIRTH = "_created"  # when a series began: as many samples again, and no sum of them means anything
_WORST = ("loop_lag_seconds", "lag_seconds", "age_seconds")

Labels = tuple[tuple[str, str], ...]


def merge_metrics(texts: Iterable[str]) -> str:
    """One exposition out of several; samples of the same name and labels become one."""
    heads: dict[str, tuple[str, str]] = {}
    samples: dict[str, dict[tuple[str, Labels], float]] = {}
    for text in texts:
        for family in text_string_to_metric_families(text):
            if family.name.endswith(_BIRTH):
                continue
            heads.setdefault(family.name, (family.documentation, family.type))
            merged = samples.setdefault(family.name, {})
            for sample in family.samples:
                key = (sample.name, tuple(sorted(sample.labels.items())))
                if family.name.endswith(_WORST):
                    merged[key] = max(merged.get(key, sample.value), sample.value)
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
