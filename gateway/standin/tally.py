"""The tally: what the stand-in served, in all, by user and by call.

A call that ended well counts what its usage said; one that was cut counts what went onto the
wire. Totals are kept for every user, single calls only for the newest `CALLS_MAX`, so memory stays
bounded by calls. It knows no HTTP.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.standin.usage import Usage

# A day's replay is a tenth of this; at about 300 bytes a call it is 60 MB.
CALLS_MAX = 200_000


class Totals(msgspec.Struct):
    """Sums over calls; tokens of running calls are not in them yet."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Call(msgspec.Struct):
    """One call, by its request id; `seen` counts how often that id came.

    `status` is 0 while it runs. `finished`: sent to its end. `reported`: usage was sent with it.
    """

    user: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    status: int = 0
    finished: bool = False
    reported: bool = False
    seen: int = 0


class Served(msgspec.Struct):
    """What one call has put onto the wire so far."""

    status: int
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finished: bool = False
    reported: bool = False

    def report(self, usage: Usage) -> None:
        """Usage went out: from now on its figures are what this call counts, true or not."""
        self.prompt_tokens = usage.prompt_tokens
        self.completion_tokens = usage.completion_tokens
        self.reported = True


@dataclass(frozen=True, slots=True)
class OpenCall:
    """Where a running call will be booked. After a reset that is nowhere anybody looks."""

    call: Call
    sums: tuple[Totals, Totals]

    def end(self, served: Served) -> None:
        """Book the call; to be called once."""
        booked: tuple[Totals | Call, ...] = (*self.sums, self.call)
        for sums in booked:
            sums.prompt_tokens += served.prompt_tokens
            sums.completion_tokens += served.completion_tokens
        self.call.status = served.status
        self.call.finished = served.finished
        self.call.reported = served.reported


class Tally:
    """Counts calls from their begin to their end."""

    def __init__(self, calls_max: int = CALLS_MAX) -> None:
        self._calls_max = calls_max
        self.reset()

    def reset(self) -> None:
        """Forget everything, calls that still run included."""
        self._totals = Totals()
        self._users: dict[str, Totals] = {}
        self._calls: OrderedDict[str, Call] = OrderedDict()

    def begin(self, request_id: str, user: str) -> OpenCall:
        """Count a request of `user`; its tokens follow when it ends."""
        of_user = self._users.setdefault(user, Totals())
        self._totals.requests += 1
        of_user.requests += 1
        call = self._calls.get(request_id)
        if call is None:
            call = self._calls[request_id] = Call(user)
            if len(self._calls) > self._calls_max:
                self._calls.popitem(last=False)
        call.seen += 1
        return OpenCall(call, (self._totals, of_user))

    def shown(self, with_calls: bool) -> dict[str, Any]:
        """Totals, users and, if wanted, calls; for JSON at once, since it is the living data."""
        shown: dict[str, Any] = {**msgspec.structs.asdict(self._totals), "users": self._users}
        if with_calls:
            shown["calls"] = self._calls
        return shown
