"""What the auditor is given: plain facts from four places, none of them the product's opinion.

Clients say what reached them, the upstream what it served, Redis and the ledger what stands in
them, and the world what it broke and when. Instants are seconds since 1970 of this one machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class ClientCall:
    """One call as its client saw it. `nonce` is its tag, and what its answer must echo.

    `rid` and `decision` are the answer's x-request-id and x-quota-decision, `output_tokens` those
    of its `text`. `whole`: it came to its regular end. `left`: the client went away by itself.
    """

    nonce: str
    user: str
    gateway: int
    stream: bool
    body_bytes: int
    begun_s: float
    ended_s: float = 0.0
    status: int = 0
    code: str = ""
    rid: str = ""
    output_tokens: int = 0
    echoed: str | None = None
    whole: bool = False
    left: bool = False
    text: str = ""
    decision: str = ""


@dataclass(frozen=True, slots=True)
class Served:
    """One call as the upstream saw it; `seen` counts how often its id came."""

    user: str
    prompt_tokens: int
    completion_tokens: int
    finished: bool = True
    reported: bool = True
    seen: int = 1

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Row:
    """One entry of the ledger. `rid` is its call's: of a correction, that of what it corrects."""

    event_id: str
    rid: str
    kind: str
    user: str
    tag: str | None
    charged_tokens: int
    held_tokens: int
    overdraft_tokens: int
    quality: str
    outcome: str
    status: int
    period_ms: int
    at_s: float

    @property
    def is_expiry(self) -> bool:
        """Written because a lease was over, and not by whoever made the call."""
        by_sweeper = self.outcome == "expired" or (
            self.outcome == "unknown_upstream" and self.status == 0
        )
        return self.kind == "usage" and by_sweeper

    @property
    def in_outage(self) -> bool:
        """Of a call that nothing was held for."""
        return self.kind == "usage" and self.outcome == "outage"

    @property
    def left_on_disk(self) -> bool:
        """Of a stream in an outage whose gateway died: its last progress, sent by the next one."""
        return self.in_outage and self.quality == "estimated" and self.status == 0


@dataclass(frozen=True, slots=True)
class Account:
    """One user's account in Redis. `in_force`: of the epoch that counts."""

    user: str
    in_force: bool
    period_ms: int
    used_tokens: int
    held_tokens: int
    open_holds: int


@dataclass(frozen=True, slots=True)
class Applied:
    """A fault as it really was. Of a kill, `ended_s` is when its victim was ready again."""

    kind: str
    target: str
    began_s: float
    ended_s: float


@dataclass(frozen=True, slots=True)
class Terms:
    """What was promised: each user's limit, what an outage may cost, and the sweeper's grace. A
    settlement without a reply is on disk after `deadline_s`; a call that its client left goes on
    for `drain_s`."""

    limits: Mapping[str, int]
    gateways: int
    outage_tokens: int
    grace_s: float
    deadline_s: float
    drain_s: float


@dataclass(slots=True)
class Evidence:
    """Everything about one run. `leases_s`: the latest deadline at which each hold's lease was
    seen; `gone_s`: when Redis was first seen without that hold. `spilled`: files with settlements
    that are still on a disk. `verify`: what `ledger verify` printed, if it did not agree."""

    terms: Terms
    calls: Sequence[ClientCall] = ()
    served: Mapping[str, Served] = field(default_factory=dict)
    rows: Sequence[Row] = ()
    accounts: Sequence[Account] = ()
    applied: Sequence[Applied] = ()
    leases_s: Mapping[str, float] = field(default_factory=dict)
    gone_s: Mapping[str, float] = field(default_factory=dict)
    open_holds: int = 0
    undrained_shards: int = 0
    dead_rows: int = 0
    spilled: Sequence[str] = ()
    stuck: Sequence[str] = ()
    verify: str = ""
