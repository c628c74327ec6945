"""The real store of kept answers over fakeredis, and a network that may fail around it."""

from __future__ import annotations

from collections import deque

from gateway.adapters.redis_store.answers import RedisAnswers
from gateway.core.idempotency import Remembered
from gateway.ports.quota_store import StoreNotAsked, StoreUnavailable
from tests.fakes.store import Trouble


class TroubledAnswers:
    """Fulfils ports.answers.KeptAnswers by passing every call on, but for the troubles laid; each
    is for the next call. `away`: nothing arrives any more; `unasked`: nothing is even sent. `asked`
    names all calls."""

    def __init__(self, answers: RedisAnswers) -> None:
        self._answers = answers
        self.asked: list[str] = []
        self.troubles: deque[Trouble] = deque()
        self.away = self.unasked = False

    async def begin(self, running: Remembered, lives_ms: int) -> Remembered | None:
        trouble = self._before("begin")
        first = await self._answers.begin(running, lives_ms)
        _after(trouble)
        return first

    async def keep(self, running: Remembered, now: Remembered, lives_ms: int) -> bool:
        trouble = self._before("renew" if now == running else "keep")
        done = await self._answers.keep(running, now, lives_ms)
        _after(trouble)
        return done

    async def forget(self, running: Remembered) -> bool:
        trouble = self._before("forget")
        done = await self._answers.forget(running)
        _after(trouble)
        return done

    def _before(self, name: str) -> Trouble:
        self.asked.append(name)
        if self.unasked:
            raise StoreNotAsked("the breaker is open")
        trouble = self.troubles.popleft() if self.troubles else ""
        if self.away or trouble == "never arrives":
            raise StoreUnavailable(f"{name} never arrived")
        return trouble


def _after(trouble: Trouble) -> None:
    if trouble == "reply lost":
        raise StoreUnavailable("the reply was lost")
