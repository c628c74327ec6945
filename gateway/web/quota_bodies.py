"""The bodies of `/quota/v1`: what is read, strictly, and what is answered.

A field that is not known, a value that is not of its kind, two ways to say one thing: each is
refused with its name, because a figure that was misread is money. Amounts of money are pounds as
text, so that no reader rounds them; a number is accepted. Descriptions are made of these classes.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import parse_qsl

import msgspec
from msgspec import Meta

from gateway.core.elsewhere import GBP_MAX, TOKENS_MAX, Reported, rounded_nano
from gateway.core.identity import valid_user_id
from gateway.core.refusal import Case, Refused
from gateway.web.http_request import HttpRequest

BODY_BYTES_MAX = 65_536
_AHEAD_MS, _BEHIND_MS = 60_000, 35 * 86_400_000
_T = TypeVar("_T")

Tokens = Annotated[int, Meta(ge=0, le=TOKENS_MAX)]
UserId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@+-]{0,127}$")]
Model = Annotated[str, Meta(pattern=r"^[!-~]{1,128}$")]
ReportId = Annotated[str, Meta(pattern=r"^[ -~]{1,128}$")]
Tag = Annotated[str, Meta(min_length=1, max_length=64)]
Pounds = Annotated[
    Decimal,
    Meta(
        description=f"pounds, 0 to {GBP_MAX}, rounded to nine decimals",
        extra_json_schema={"type": ["string", "number"]},
    ),
]
Instant = Annotated[datetime, Meta(tz=True)]


class UsageBody(msgspec.Struct, forbid_unknown_fields=True):
    """One piece of usage. Tokens are either `prompt_tokens` and `output_tokens`, with the part of
    the prompt that came from a cache, or `total_tokens`. Only a service key may name a `user`,
    state `cost_gbp`, or say that the tokens are `already_spent`, which no limit refuses."""

    id: ReportId
    model: Model
    user: UserId | None = None
    prompt_tokens: Tokens | None = None
    cached_tokens: Tokens | None = None
    output_tokens: Tokens | None = None
    total_tokens: Tokens | None = None
    cost_gbp: Pounds | None = None
    tag: Tag | None = None
    at: Instant | None = None
    already_spent: bool = False

    def reported(self, now_ms: int) -> Reported:
        """What is reported; Refused where the fields contradict each other."""
        for name in ("id", "model", "tag"):
            if not (getattr(self, name) or "").isprintable():
                raise _invalid(name, "printable characters")
        prompt, cached, output = self._tokens()
        nano_gbp = self._nano_gbp()
        if not prompt + output and not nano_gbp:
            raise _invalid("total_tokens", "some tokens, or a cost: nothing was used")
        return Reported(
            id=self.id,
            model=self.model,
            prompt_tokens=prompt,
            cached_tokens=cached,
            output_tokens=output,
            is_split=self.total_tokens is None,
            nano_gbp=nano_gbp,
            tag=self.tag,
            at_ms=self._at_ms(now_ms),
        )

    def _tokens(self) -> tuple[int, int, int]:
        """Prompt, its cached part, output. All of a total is prompt."""
        split = (self.prompt_tokens, self.cached_tokens, self.output_tokens)
        if self.total_tokens is not None:
            if split != (None, None, None):
                raise _invalid("total_tokens", "either a total or its parts, not both")
            return self.total_tokens, 0, 0
        if self.prompt_tokens is None or self.output_tokens is None:
            name = "prompt_tokens" if self.prompt_tokens is None else "output_tokens"
            raise _invalid(name, "'prompt_tokens' and 'output_tokens', or 'total_tokens'")
        cached = self.cached_tokens or 0
        if cached > self.prompt_tokens:
            raise _invalid("cached_tokens", "at most 'prompt_tokens', of which they are a part")
        return self.prompt_tokens, cached, self.output_tokens

    def _nano_gbp(self) -> int | None:
        if self.cost_gbp is None:
            return None
        if not (self.cost_gbp.is_finite() and 0 <= self.cost_gbp <= GBP_MAX):
            raise _invalid("cost_gbp", f"an amount from 0 to {GBP_MAX}")
        return rounded_nano(self.cost_gbp)

    def _at_ms(self, now_ms: int) -> int | None:
        if self.at is None:
            return None
        at_ms = int(self.at.timestamp() * 1000)
        if not now_ms - _BEHIND_MS <= at_ms <= now_ms + _AHEAD_MS:
            raise _invalid("at", "an instant of the last 35 days")
        return at_ms


class CheckBody(msgspec.Struct, forbid_unknown_fields=True):
    """A call of so many tokens, prompt and output together, by a `user` if a service key asks."""

    model: Model
    tokens: Tokens
    user: UserId | None = None


class Upgrade(msgspec.Struct):
    """The next tier, and where to get it."""

    tier: str
    url: str | None


class TopUp(msgspec.Struct):
    """A pack that this tier may buy, and where."""

    tokens: int
    price_gbp: str
    url: str | None


class Quota(msgspec.Struct):
    """A quota in tokens, as a refusal has it too. `limit` is the limit that refused, else null;
    `remaining_tokens` are left of allowance and packs, held ones not taken off."""

    limit: str | None
    tier: str
    limit_tokens: int
    used_tokens: int
    held_tokens: int
    pack_tokens: int
    remaining_tokens: int
    reset_at: str
    upgrade: Upgrade | None
    topup: TopUp | None


class UsageAnswer(msgspec.Struct):
    """Usage that is booked, in the ledger as `event_id`. `decision` is `forced` where a limit had
    refused it. `cost_source` says whose the cost is: ours by the price list `price_id`, or the
    caller's. `quota` is as it was after this booking."""

    object: Literal["quota.usage"]
    id: str
    event_id: str
    user: str
    decision: Literal["admitted", "forced"]
    charged_tokens: int
    cost_gbp: str
    cost_source: Literal["price_list", "caller"]
    price_id: str
    quality: str
    quota: Quota


class CheckAnswer(msgspec.Struct):
    """Whether it would fit now. `reason` and `message` are those of the refusal it would get."""

    object: Literal["quota.check"]
    user: str
    fits: bool
    decision: Literal["admitted", "refused"]
    reason: str | None
    message: str | None
    retry_after_s: int | None
    quota: Quota | None


class ErrorDetail(msgspec.Struct):
    """What is wrong. `quota` is there where a limit refused."""

    message: str
    type: str
    param: str | None
    code: str
    quota: Any = None


class Error(msgspec.Struct):
    """OpenAI's error object."""

    error: ErrorDetail


def read_body_as(kind: type[_T], raw: bytes) -> _T:
    """The body as one of these classes; Refused says which field is wrong and what was expected."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        said, _, path = str(error).partition(" - at `$.")
        name = path.rstrip("`") or None
        if said.startswith("Object contains unknown field"):
            raise Refused(
                Case.UNSUPPORTED_PARAMETER, f"{said}.", param=said.split("`")[1]
            ) from None
        where = f" for '{name}'" if name else ""
        raise Refused(Case.INVALID_VALUE, f"Invalid value{where}: {said}.", param=name) from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(Case.INVALID_JSON, f"The request body is not valid JSON: {error}.") from None


def checked_user(user_id: str | None) -> str | None:
    """The id of a user as it was given; Refused when nobody can have it."""
    if user_id is not None and not valid_user_id(user_id):
        raise _invalid("user", "1 to 128 letters, digits and ._:@+-")
    return user_id


def asked_user(request: HttpRequest) -> str | None:
    """`?user=`, the one parameter there is."""
    asked: dict[str, str] = {}
    for name, value in parse_qsl(request.raw_path.partition("?")[2], keep_blank_values=True):
        if name != "user" or name in asked:
            raise Refused(
                Case.UNSUPPORTED_PARAMETER,
                f"The parameter {name[:64]!a} is not known here, or given twice. There is 'user'.",
                param="user" if name == "user" else None,
            )
        asked[name] = value
    return checked_user(asked.get("user"))


def _invalid(name: str, expected: str) -> Refused:
    return Refused(
        Case.INVALID_VALUE, f"Invalid value for '{name}': expected {expected}.", param=name
    )
