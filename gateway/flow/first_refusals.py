"""The first refusal for quota is told: once for each period and arming, whoever was refused where.

A refusal leaves nothing in the store, and most users who are refused never reach their last token.
So the gateway that refuses notes it in the ledger, beside the answer and never before it; the
ledger's key lets one of all such notes stand. A user that this process has noted already is not
noted again until its revision changes. While the ledger is away notes wait here, within bounds.
"""

from __future__ import annotations

import asyncio
from collections import deque

from gateway.core.identity import Identity
from gateway.core.quota.reserve import ReserveReply
from gateway.core.refusal import Case, Refused
from gateway.ports.ledger import LedgerUnavailable
from gateway.ports.notices import Exhaustion, Exhaustions
from gateway.ports.tasks import spawn

_KNOWN_MAX = 20_000
_WAITING_MAX = 10_000
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0
_Known = tuple[str, int, int, int]


class FirstRefusals:
    """Notes refusals for quota."""

    def __init__(self, notices: Exhaustions) -> None:
        self._notices = notices
        self._known: dict[_Known, None] = {}  # the newest last
        self._waiting: deque[Exhaustion] = deque(maxlen=_WAITING_MAX)
        self._is_telling = False

    def note(self, refused: Refused, identity: Identity, reply: ReserveReply) -> None:
        """Note it, if it is a refusal for quota: not of a call that no quota could ever take, nor
        for a limit of the moment. Does not wait and does not fail."""
        whose = {Case.MONTH_USED_UP: identity.payer, Case.MEMBER_USED_UP: identity.user_id}
        user_id = whose.get(refused.case)
        if user_id is None:
            return
        known = (user_id, reply.period_start_ms, reply.rev, reply.member_rev)
        if known in self._known:
            return
        self._known[known] = None
        if len(self._known) > _KNOWN_MAX:
            del self._known[next(iter(self._known))]
        facts: dict[str, int | str] = {
            "tier": identity.tier,
            "used_tokens": reply.used_tokens,
            "limit_tokens": reply.limit_tokens,
            "needed_tokens": refused.quota.needed_tokens if refused.quota else 0,
        }
        self._waiting.append(
            Exhaustion(user_id, identity.payer, reply.period_start_ms, reply.now_ms, facts)
        )
        if not self._is_telling:
            self._is_telling = True
            spawn(self._tell(), "tell of refusals")

    async def _tell(self) -> None:
        """Write what waits until nothing does."""
        pause_s = _FIRST_PAUSE_S
        try:
            while self._waiting:
                told = self._waiting.popleft()
                try:
                    await self._notices.exhausted(told)
                except LedgerUnavailable:
                    self._waiting.append(told)
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        finally:
            self._is_telling = False
