"""The canary: every minute each proxy worker proves to itself that it enforces.

Promises a verdict a round, whatever happens in it, shown as a metric and told in the log when it
turns, and to operators (`notify.operators`). What the answers prove is decided in `core.canary`,
how the calls run in `canary_parts`.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable

import msgspec

from gateway.adapters.canary_metrics import CanaryMetrics
from gateway.app.canary_parts import canary_front
from gateway.app.proxy_terms import bounds_of
from gateway.app.served import Lasting
from gateway.config import Settings
from gateway.core import canary
from gateway.core.canary import NO_CHARGE, PROVEN, Finding, Reply
from gateway.core.identity import KEY_RANDOM_BYTES, format_key
from gateway.ports.ledger import LedgerUnavailable
from gateway.ports.notices import Alarm
from gateway.ports.tasks import spawn
from gateway.web.servers import Inside

_FIRST_S = 1.0
# A round that proved nothing is repeated soon: a restart of Redis must not look long.
_AGAIN_S = 10.0
_LOOKS, _BETWEEN_LOOKS_S = 4, 0.5
_ANSWER_S = 20.0
_PATIENCE_S = 120.0
_log = logging.getLogger("gateway.canary")

Ask = Callable[[int], Awaitable[Reply]]
"""One call of the canary, with this output cap."""


class Canary:
    """The rounds of one process."""

    def __init__(self, lasting: Lasting, metrics: CanaryMetrics) -> None:
        self._lasting = lasting
        self._metrics = metrics
        self._task: asyncio.Task[None] | None = None
        self._last = PROVEN
        self._bad_since_s: float | None = None
        self._is_told = False

    def begin(self, settings: Settings) -> None:
        """Prove these settings from now on, in place of those before."""
        self.end()
        if settings.canary is None:
            self._metrics.silent()
            return
        ask = asking(settings, self._lasting)
        self._task = spawn(self._prove_forever(ask, settings.canary.every_s), "canary")

    def end(self) -> None:
        """No more rounds."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _prove_forever(self, ask: Ask, every_s: float) -> None:
        rest_s = min(_FIRST_S, every_s)
        while True:
            await asyncio.sleep(rest_s)
            finding = await prove(ask)
            self._metrics.found(finding.result)
            self._tell(finding)
            await self._alarm(finding)
            rest_s = min(every_s, _AGAIN_S) if finding.result == "unproven" else every_s

    def _tell(self, finding: Finding) -> None:
        before, self._last = self._last, finding
        if finding == before:
            return
        if finding.result == "proven":
            _log.warning("the quota is proven to be enforced again")
        elif finding.result == "broken":
            _log.error("the quota is NOT ENFORCED: %s", finding.why)
        else:
            _log.warning("nothing proves that the quota is enforced: %s", finding.why)

    async def _alarm(self, finding: Finding) -> None:
        """Tell operators, once in a bad time, what is broken, or has not been proven for long. The
        ledger sees to it that of all workers and gateways one is heard."""
        now_s = asyncio.get_running_loop().time()
        if finding.result == "proven":
            self._bad_since_s, self._is_told = None, False
            return
        if self._bad_since_s is None:
            self._bad_since_s = now_s
        is_long = now_s - self._bad_since_s >= _PATIENCE_S
        if self._is_told or not (is_long or finding.result == "broken"):
            return
        stores = self._lasting.stores
        try:
            now_ms = stores.clock.now_ms()
            await stores.notices.alarm(Alarm("canary_failed", now_ms, {"why": finding.why}))
            self._is_told = True
        except LedgerUnavailable as error:
            _log.warning("operators are not told of the canary yet: %s", error)


async def prove(ask: Ask) -> Finding:
    """One round: a call that fits is admitted, and one that does not is refused. What may have come
    from a change of period, or from another canary, is looked at again."""
    for _ in range(_LOOKS):
        try:
            async with asyncio.timeout(_ANSWER_S):
                finding = await _look(ask)
        except TimeoutError:
            return Finding("unproven", f"no answer within {_ANSWER_S:.0f} s")
        except Exception as error:  # a canary that dies would go on looking well
            _log.exception("a round of the canary failed")
            return Finding("broken", f"the round failed: {type(error).__name__}")
        if not finding.is_passing:
            return finding
        await asyncio.sleep(_BETWEEN_LOOKS_S)
    return finding


async def _look(ask: Ask) -> Finding:
    reply = await ask(canary.FITS_TOKENS)
    finding = canary.of_fitting(reply, NO_CHARGE)
    if finding is None and canary.must_spend(reply):
        finding = canary.of_fitting(await ask(canary.SPENDS_TOKENS), 200)
    if finding is None:
        finding = canary.of_too_large(await ask(canary.NEVER_FITS_TOKENS))
    return finding or PROVEN


def asking(settings: Settings, lasting: Lasting) -> Ask:
    """How the canary calls: with a key of its own, over a connection that is not the port's."""
    key = format_key(secrets.token_bytes(KEY_RANDOM_BYTES))
    port = Inside(canary_front(settings, lasting, key).handle, bounds_of(settings))

    async def ask(cap: int) -> Reply:
        return _reply(await port.ask(_request(key, cap)))

    return ask


def _request(key: str, cap: int) -> bytes:
    message = {"role": "user", "content": "Is the quota enforced?"}
    asked = {"model": canary.MODEL, "messages": [message], "max_completion_tokens": cap}
    body = msgspec.json.encode(asked)
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: canary\r\nConnection: close\r\n"
        f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _reply(raw: bytes) -> Reply:
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    remaining = headers.get("x-quota-remaining-tokens")
    error = msgspec.json.decode(body, type=_Body).error if body else None
    return Reply(
        status=int(first.split()[1]),
        decision=headers.get("x-quota-decision", ""),
        source=headers.get("x-quota-source", ""),
        code=error.code if error is not None else "",
        remaining_tokens=None if remaining is None else int(remaining),
    )


class _Error(msgspec.Struct):
    code: str = ""


class _Body(msgspec.Struct):
    error: _Error | None = None
