"""A replay from end to end: its users made, its rows sent, and every store compared afterwards.

The stores are opened twice, before and after, because the gateway may be killed and started again
in between. Through a real upstream a replay spends money, so one is refused unless it is asked for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp

from gateway.adapters.tokenizer.bpe import BpeTokenizer
from gateway.app.command_stores import opened_for_command
from gateway.app.places import read_places
from gateway.app.secrets_of_state import pepper_of
from gateway.app.stores import Stores
from gateway.app.verify import Verdict, verify
from gateway.config import Settings
from gateway.config.values import Address
from gateway.core.models import Model, ModelTable
from gateway.replay.client import Failed, GatewayClient
from gateway.replay.counts import TierCounts
from gateway.replay.draw import Draw, deal_tiers
from gateway.replay.pace import Pace
from gateway.replay.prompt import PromptWriter
from gateway.replay.run import Part, Replay, ReplayUser
from gateway.replay.trace import count_rows, read_trace

SAMPLE: Final = Path(__file__).resolve().parents[1] / "replay" / "sample.csv"

HOLDS_WAIT_S: Final = 90.0
"""A killed gateway's holds end with their lease and its grace: 70 s as the configuration ships."""

_AUTHOR = "cli:replay"
_OK, _UNKNOWN_KEY = 200, 401


class CannotReplay(Exception):
    """Nothing was sent, and the text says what is missing."""


@dataclass(frozen=True, slots=True)
class ReplayOrder:
    """What is wanted. `speed` 0: as fast as it goes. `gateway`, `upstream`: None to find them;
    `model`: None for the first that every tier may call.

    `real_upstream`: go ahead although no stand-in is known, which may cost money.
    """

    trace: Path
    users: int
    seed: int
    speed: float
    concurrency: int
    patience_s: float
    fresh: bool
    model: str | None
    gateway: str | None
    upstream: str | None
    real_upstream: bool


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What happened. `behind_s`: how late the latest row was. `gone`: why the gateway was given up;
    then nothing was compared."""

    rows: int
    elapsed_s: float
    behind_s: float
    gone: str | None
    tiers: dict[str, TierCounts] = field(default_factory=dict)
    verdict: Verdict | None = None

    @property
    def in_order(self) -> bool:
        """Every row has its answer, nothing differs, and no hold was left open."""
        return self.verdict is not None and self.verdict.agrees and not self.verdict.open_holds


async def replay(
    settings: Settings, order: ReplayOrder, begin: Callable[[int], Callable[[], None]]
) -> ReplayReport:
    """Do all of it. `begin` is told the number of rows and returns what to call after each.

    TraceError for a file that is none; CannotReplay when something else is missing.
    """
    rows = count_rows(order.trace)
    places = read_places(settings)
    gateway = _base(order.gateway or places.get("proxy") or _listening(settings))
    upstream = order.upstream or places.get("stand_in")
    if upstream is not None:
        await _check_stand_in(upstream)
    elif not order.real_upstream:
        raise CannotReplay(
            "no stand-in is known behind this gateway, and a replay through a real upstream spends "
            "money. Start `serve --stand-in`, name the stand-in with --upstream URL, or say "
            "--real-upstream."
        )
    model_name, model = _model(settings, order.model)
    async with GatewayClient(gateway, order.concurrency) as client:
        await _check_gateway(client, gateway)
        users, key_ids = await _make_users(settings, order)
        if await client.status(users[0].key) == _UNKNOWN_KEY:
            raise CannotReplay(
                f"the gateway at {gateway} does not know a key made just now: it runs on another "
                "configuration or state directory than this command (--config)"
            )
        part = Part(users, Draw(order.users, order.seed), _prompts(model), model_name)
        pace = Pace(order.speed, time.monotonic, asyncio.sleep)
        run = Replay(part, client, pace, order.patience_s)
        began_s = time.monotonic()
        await run.run(read_trace(order.trace), order.concurrency, begin(rows))
        elapsed_s = time.monotonic() - began_s
    # A `serve` that was started again has started another stand-in.
    upstream = order.upstream or read_places(settings).get("stand_in")
    verdict = None if run.gone else await _compare(settings, key_ids, upstream)
    tiers = {name: run.counts[name] for name in settings.plan.tiers if name in run.counts}
    return ReplayReport(rows, elapsed_s, pace.behind_s, run.gone, tiers, verdict)


def _base(url: str) -> str:
    """A gateway's address, with or without the /v1 that OpenAI's clients want."""
    return url.rstrip("/").removesuffix("/v1")


def _listening(settings: Settings) -> str:
    address = settings.listen.proxy
    if not address.port:
        raise CannotReplay(
            "the configuration lets the proxy listen on any free port, and no `serve` of its state "
            "directory runs: say where the gateway is with --gateway URL"
        )
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    return f"http://{Address(everywhere.get(address.host, address.host), address.port)}"


def _model(settings: Settings, wanted: str | None) -> tuple[str, Model]:
    """The name to call, and its entry."""
    offered = {
        name: model
        for name, model in settings.models.items()
        if all(tier.allows(name) for tier in settings.plan.tiers.values())
    }
    named = [name for name, model in offered.items() if not model.is_pattern]
    name = wanted or next(iter(named), "")
    model = ModelTable(offered.values()).find(name)
    if model is not None and name:
        return name, model
    raise CannotReplay(
        f"--model: expected a model that every tier may call ({', '.join(offered) or 'none'}), "
        f"found {wanted or 'none'}"
    )


def _prompts(model: Model) -> PromptWriter:
    tokenizer = BpeTokenizer()
    tokenizer.load(model.tokenizer)
    return PromptWriter(lambda text: tokenizer.count(text, model.tokenizer))


async def _check_gateway(client: GatewayClient, gateway: str) -> None:
    try:
        await client.status("none")
    except Failed as failure:
        raise CannotReplay(
            f"no gateway answers at {gateway} ({failure}): start one with `serve --stand-in`, or "
            "say where it is with --gateway URL"
        ) from failure


async def _check_stand_in(upstream: str) -> None:
    url = f"{_base(upstream)}/stand-in/served?calls=0"
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            if answer.status == _OK and '"requests"' in await answer.text():
                return
        found = "another answer"
    except (aiohttp.ClientError, OSError, UnicodeDecodeError) as error:
        found = str(error) or type(error).__name__
    raise CannotReplay(f"{upstream}: expected the stand-in (mock-openai), found {found}")


async def _make_users(settings: Settings, order: ReplayOrder) -> tuple[list[ReplayUser], list[str]]:
    """The users in their order, those of an earlier replay as they are, and their new keys' ids."""
    tiers = deal_tiers(tuple(settings.plan.tiers), order.users, order.seed)
    made = f"-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}" if order.fresh else ""
    users, key_ids = [], []
    async with opened_for_command(settings, _AUTHOR) as stores:
        accounts = stores.accounts(settings)
        for number, tier in enumerate(tiers, 1):
            user_id = f"replay-{order.seed}{made}-{number:04}"
            identity = await stores.directory.identity_of_user(user_id)
            if identity is None:
                identity = await accounts.create_user(user_id, tier)
            key = await accounts.create_key(user_id, pepper_of(settings))
            users.append(ReplayUser(user_id, identity.tier, key.key))
            key_ids.append(key.key_id)
    return users, key_ids


async def _compare(settings: Settings, key_ids: list[str], upstream: str | None) -> Verdict:
    """End the replay's keys, which nobody else has, wait for the holds, and compare everything."""
    async with opened_for_command(settings, _AUTHOR) as stores:
        await _revoke(settings, stores, key_ids)
        return await verify(stores, upstream, HOLDS_WAIT_S)


async def _revoke(settings: Settings, stores: Stores, key_ids: list[str]) -> None:
    accounts = stores.accounts(settings)
    for key_id in key_ids:
        await accounts.revoke_key(key_id)
