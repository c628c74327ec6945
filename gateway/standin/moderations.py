"""`POST /v1/moderations`: nothing is ever objectionable, unless a directive says so.

A string, each string of a list, and all parts of a list of parts together get one result. Like
OpenAI's it is free and tells no usage. Categories are those of omni-moderation-latest.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.standin import fields
from gateway.standin.counting import texts_of
from gateway.standin.directives import OF_ALL, Directives
from gateway.standin.errors import invalid
from gateway.standin.fields import Body
from gateway.standin.reply import Setting, Whole
from gateway.standin.usage import Report, Usage

MODEL_DEFAULT = "omni-moderation-latest"
SCORE, SCORE_FLAGGED = 0.0001, 0.99

# The categories that a picture is looked at for, then those for texts alone.
_OF_PICTURES = (
    *("self-harm", "self-harm/instructions", "self-harm/intent"),
    *("sexual", "violence", "violence/graphic"),
)
_OF_TEXTS = (
    *("harassment", "harassment/threatening", "hate", "hate/threatening"),
    *("illicit", "illicit/violent", "sexual/minors"),
)
CATEGORIES = tuple(sorted(_OF_PICTURES + _OF_TEXTS))
_OBEYED = (OF_ALL - {"usage"}) | {"flag"}


@dataclass(frozen=True, slots=True)
class _Judged:
    """One input: the category it is flagged for, and what it consists of."""

    flag: str | None
    kinds: frozenset[str]


def moderations(body: dict[str, Any], setting: Setting) -> ModerationsReply:
    """The reply; raises Refused with OpenAI's 400."""
    if not setting.face.ignores_unknown:
        fields.known_only(body, ("input", "model"))
    texts, kinds = _inputs(body)
    orders = [fields.orders(text, _OBEYED, False, "input") for text in texts]
    unknown = [each.flag for each in orders if each.flag not in (None, *CATEGORIES)]
    if unknown:
        problem = f"stand-in directive 'flag={unknown[0]}': expected a category of moderation"
        raise invalid(problem, "input", "stand_in_directive")
    judged = [_Judged(each.flag, kinds) for each in orders]
    model = fields.words(body, "model") or MODEL_DEFAULT
    return ModerationsReply(orders[-1], f"modr-{setting.id}", model, judged)


@dataclass(frozen=True, slots=True)
class ModerationsReply:
    """One answer, which never streams and costs nothing."""

    directives: Directives
    id: str
    model: str
    judged: list[_Judged]

    @property
    def report(self) -> Report:
        return Report(Usage(0, 0), "none")

    @property
    def hidden_tokens(self) -> int:
        return 0

    def events(self) -> None:
        return None

    def whole(self) -> Whole:
        results = [_result(each) for each in self.judged]
        body = msgspec.json.encode({"id": self.id, "model": self.model, "results": results})
        return Whole(body, len(body) // 2)


def _inputs(body: Body) -> tuple[list[str], frozenset[str]]:
    """The text of each input, and the kinds of things all of them consist of."""
    given = body.get("input")
    if given is None:
        raise fields.missing("input")
    if isinstance(given, str):
        return [given], frozenset({"text"})
    if not isinstance(given, list):
        raise fields.wrong_type("input", "a string or an array", given)
    if not given:
        raise fields.empty("input")
    if all(isinstance(each, str) for each in given):
        return given, frozenset({"text"})
    return ["\n".join(texts_of(given))], frozenset(_kinds(given))


def _kinds(parts: Iterable[object]) -> Iterable[str]:
    for at, part in enumerate(parts):
        if not isinstance(part, dict):
            raise fields.wrong_type(f"input[{at}]", "an object", part)
        kind = fields.one_of(part.get("type"), ("text", "image_url"), f"input[{at}].type")
        if kind == "text":
            fields.words(part, "text", f"input[{at}].")
        elif not fields.mapping(part, "image_url", f"input[{at}].").get("url"):
            raise fields.missing(f"input[{at}].image_url.url")
        yield kind.removesuffix("_url")


def _result(judged: _Judged) -> dict[str, Any]:
    applied = {
        name: sorted(judged.kinds - ({"image"} if name in _OF_TEXTS else set()), reverse=True)
        for name in CATEGORIES
    }
    return {
        "flagged": judged.flag is not None,
        "categories": {name: name == judged.flag for name in CATEGORIES},
        "category_scores": {
            name: SCORE_FLAGGED if name == judged.flag else SCORE for name in CATEGORIES
        },
        "category_applied_input_types": applied,
    }
