"""What a single value may be: types with their range and the sentence that describes it.

A description is shown twice: in the JSON Schema, and in an error as what was expected. It says what
the pattern or the bounds say, in words. Knows values only; which key has which type is in `shape`.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Literal

from msgspec import Meta

from gateway.config.values import ADDRESS_PATTERN

# Redis counts in doubles, exact below 2^53. A million million leaves room for sums over all users.
_AMOUNT_MAX = 10**12
_DAY_MS = 86_400_000
_WEEK_S = 604_800

Text = Annotated[str, Meta(min_length=1, max_length=1024, description="a text, not empty")]
VersionId = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$",
        description="a name in quotes, of letters, digits and ._-, at most 32",
    ),
]
HeaderName = Annotated[
    str, Meta(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,63}$", description="the name of a header")
]
ApiVersion = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}(-preview)?$",
        description='a date in quotes, such as "2024-10-21"',
    ),
]
# As browsers write it in `Origin`: RFC 6454, section 6.2. No path, not even a slash.
Origin = Annotated[
    str,
    Meta(
        pattern=r"^(\*|https?://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:.]+\](:[0-9]{1,5})?)$",
        description='"*", or an origin in small letters without a path, such as '
        '"https://app.example.org"',
    ),
]
Algorithm = Annotated[
    Literal["HS256", "RS256", "ES256", "EdDSA"],
    Meta(description="one of HS256, RS256, ES256, EdDSA"),
]
WebUrl = Annotated[str, Meta(description="an http:// or https:// URL")]
ListenAddress = Annotated[
    str,
    Meta(
        pattern=ADDRESS_PATTERN,
        description='"host:port" in quotes, such as "127.0.0.1:8790" or "[::1]:8790"',
    ),
]
Moment = Annotated[
    datetime, Meta(tz=True, description='a time with zone, such as "2026-11-01T00:00:00Z"')
]
Day = Annotated[date, Meta(description="a day, such as 2027-01-14")]

Amount = Annotated[
    int, Meta(ge=1, le=_AMOUNT_MAX, description="a whole number from 1 to a million million")
]
# More than any rule of OpenAI's, and no more than the largest window.
_PictureTokens = Annotated[int, Meta(ge=1, le=1_000_000)]
Pictures = Annotated[
    _PictureTokens | Text,
    Meta(description="a rule's name, or the most a picture costs: a whole number up to 1000000"),
]
Allowance = Annotated[
    int, Meta(ge=0, le=_AMOUNT_MAX, description="a whole number from 0 to a million million")
]
Millis = Annotated[
    int, Meta(ge=0, le=_DAY_MS, description="milliseconds, a whole number from 0 to 86400000")
]
# Below 10 ms a healthy Redis would be called dead, above 5 s a dead one would hang every call.
DeadlineMillis = Annotated[
    int, Meta(ge=10, le=5000, description="milliseconds, a whole number from 10 to 5000")
]
LeaseMillis = Annotated[
    int, Meta(ge=1000, le=_DAY_MS, description="milliseconds, a whole number from 1000 to 86400000")
]
HeartbeatMillis = Annotated[
    int, Meta(ge=100, le=_DAY_MS, description="milliseconds, a whole number from 100 to 86400000")
]
Seconds = Annotated[
    int, Meta(ge=0, le=_WEEK_S, description="seconds, a whole number from 0 to 604800")
]
SomeSeconds = Annotated[
    int, Meta(ge=1, le=_WEEK_S, description="seconds, a whole number from 1 to 604800")
]
# Below 3 s nothing but a kill would be left; an hour is the longest stream that ships.
ShutdownSeconds = Annotated[
    int, Meta(ge=3, le=3600, description="seconds, a whole number from 3 to 3600")
]
LeewaySeconds = Annotated[
    int, Meta(ge=0, le=300, description="seconds, a whole number from 0 to 300")
]
BodyMib = Annotated[int, Meta(ge=1, le=512, description="MiB, a whole number from 1 to 512")]
# A kept answer travels to Redis and back in one call, whose deadline is short.
AnswerKib = Annotated[int, Meta(ge=0, le=4096, description="KiB, a whole number from 0 to 4096")]
RetainMib = Annotated[int, Meta(ge=1, le=65_536, description="MiB, a whole number from 1 to 65536")]
WORKERS_MAX = 64  # as many processors as a machine may well have
Workers = Annotated[
    int, Meta(ge=1, le=WORKERS_MAX, description=f"a whole number from 1 to {WORKERS_MAX}")
]
Shards = Annotated[int, Meta(ge=1, le=1024, description="a whole number from 1 to 1024")]
Port = Annotated[int, Meta(ge=1, le=65_535, description="a port, a whole number from 1 to 65535")]
Connections = Annotated[
    int, Meta(ge=1, le=1_000_000, description="a whole number from 1 to 1000000")
]
Drains = Annotated[int, Meta(ge=0, le=100_000, description="a whole number from 0 to 100000")]
AnchorDay = Annotated[
    int, Meta(ge=1, le=31, description="a day of the month, a whole number from 1 to 31")
]
Percent = Annotated[int, Meta(ge=1, le=100, description="a whole number from 1 to 100")]
ValidDays = Annotated[int, Meta(ge=1, le=3660, description="days, a whole number from 1 to 3660")]
Weight = Annotated[
    float, Meta(ge=0, le=1, description="a number from 0 to 1 with at most 3 decimals")
]

Currency = Annotated[
    str, Meta(pattern="^[A-Z]{3}$", description="three capital letters, such as USD")
]
# Prices have at most 4 decimals and the rate 5, so that their product is whole in nano-GBP.
Price = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{1,6}(\.[0-9]{1,4})?$",
        description='a decimal number in quotes with at most 4 decimals, such as "0.15"',
    ),
]
Times = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{1,3}(\.[0-9]{1,4})?$",
        description='a decimal number in quotes with at most 4 decimals, such as "0.5"',
    ),
]
Rate = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{1,6}(\.[0-9]{1,5})?$",
        description='a decimal number in quotes with at most 5 decimals, such as "0.79"',
    ),
]
Pounds = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{1,6}(\.[0-9]{1,2})?$",
        description='pounds, a decimal number in quotes with at most 2 decimals, such as "2.00"',
    ),
]
