"""What became of the requests of a replay, told by the answers alone.

The gateway's own counters are not asked here: two counts that agree prove more than one. A request
that failed is sent again, so rows and answers stay one to one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.replay.client import Reply


@dataclass(slots=True)
class TierCounts:
    """One tier's requests; each is admitted or refused in the end, if a gateway answers at all.

    `refused` counts by code. `failed`: no whole answer came at first. `lowered`: the cap was less
    than was wanted. Tokens are those of answers that tell them (`with_usage`).
    """

    users: int
    requests: int = 0
    admitted: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    failed: int = 0
    lowered: int = 0
    with_usage: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0

    def add(self, reply: Reply) -> None:
        """Count the answer of one request."""
        if reply.refusal is not None:
            self.refused[reply.refusal] = self.refused.get(reply.refusal, 0) + 1
            return
        self.admitted += 1
        self.lowered += reply.lowered
        if reply.usage is not None:
            self.with_usage += 1
            self.prompt_tokens += reply.usage.prompt_tokens
            self.output_tokens += reply.usage.output_tokens
