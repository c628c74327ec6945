"""`POST /v1/embeddings`: a vector for every input, always the same for the same input and model.

The vectors mean nothing: they are a hash stretched out and brought to length 1, so equal inputs
are found again and nothing else is.
"""

from __future__ import annotations

import array
import base64
import hashlib
import math
import sys
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.standin import fields
from gateway.standin.directives import OF_ALL, Directives
from gateway.standin.errors import invalid
from gateway.standin.fields import Body
from gateway.standin.inputs import Input, inputs_of
from gateway.standin.reply import Setting, Whole
from gateway.standin.usage import Report, Usage

INPUTS_MAX = 2_048  # OpenAI's
DIMENSIONS = 1_536
DIMENSIONS_LARGE = 3_072

_PARAMETERS = ("input", "model", "dimensions", "encoding_format", "user")


def embeddings(body: dict[str, Any], setting: Setting) -> EmbeddingsReply:
    """The reply; raises Refused with OpenAI's 400."""
    if not setting.face.ignores_unknown:
        fields.known_only(body, _PARAMETERS)
    model = setting.model or fields.model_of(body)
    inputs = inputs_of(body, "input", INPUTS_MAX)
    if any(not each.text and not each.numbers for each in inputs):
        raise invalid("'$.input' is invalid. Please check the API reference.", None, None)
    orders = fields.orders(inputs[-1].text, OF_ALL, False, "input")
    wanted = body.get("encoding_format") or "float"
    encoding = fields.one_of(wanted, ("float", "base64"), "encoding_format")
    dimensions = _dimensions(body, model)
    tokens = sum(each.tokens(setting.count_tokens) for each in inputs)
    vectors = [vector(model, each, dimensions) for each in inputs]
    shown = [_in_base64(each) if encoding == "base64" else each.tolist() for each in vectors]
    return EmbeddingsReply(orders, Report(Usage(tokens, 0), orders.usage), model, shown)


@dataclass(frozen=True, slots=True)
class EmbeddingsReply:
    """One answer, which never streams."""

    directives: Directives
    report: Report
    model: str
    vectors: list[Any]

    @property
    def hidden_tokens(self) -> int:
        return 0

    def events(self) -> None:
        return None

    def whole(self) -> Whole:
        data = [
            {"object": "embedding", "index": at, "embedding": each}
            for at, each in enumerate(self.vectors)
        ]
        answer: dict[str, Any] = {"object": "list", "data": data, "model": self.model}
        if not self.report.left_out:
            answer["usage"] = self.report.shown(self.report.told.of_embeddings())
        body = msgspec.json.encode(answer)
        return Whole(body, len(body) // 2)


def vector(model: str, given: Input, dimensions: int) -> array.array[float]:
    """Single-precision numbers whose squares add up to 1; a shorter one begins like a longer."""
    seed = f"{model}\0{given.text}\0{given.numbers}".encode()
    stretched = array.array("h", hashlib.shake_256(seed).digest(2 * dimensions))
    length = math.sqrt(sum(each * each for each in stretched)) or 1.0
    return array.array("f", (each / length for each in stretched))


def _in_base64(numbers: array.array[float]) -> str:
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode()


def _dimensions(body: Body, model: str) -> int:
    most = DIMENSIONS_LARGE if "large" in model else DIMENSIONS
    wanted = fields.number(body, "dimensions", most)
    if wanted is not None and "ada-002" in model:
        raise invalid("This model does not support specifying dimensions.", "dimensions")
    return wanted or most
