"""The world: stores, upstream and three gateways, every way between them a link that can break.

It applies faults and notes what it really did and when, because verdicts rest on that. `heal` ends
all of them. It knows nothing of calls and of what is promised.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from gateway.adapters.embedded import postgres_url, redis_url, start_postgres, start_redis
from gateway.adapters.embedded.place import POSTGRES_SOCKET, REDIS_SOCKET, socket_dir
from gateway.ports.tasks import spawn
from tests.chaos.gateways import Gateway, Servers, configuration
from tests.chaos.link import Link
from tests.chaos.records import Applied
from tests.chaos.schedule import GATEWAYS, Fault, parts_of
from tests.chaos.stores import Store, Upstream

PRODUCT = ("-m", "gateway")
_DELAY_S = 0.2  # each way and piece
_HEAL_S = 120.0


class World:
    """Everything that runs, in the directory `place`. Start it, break it, heal it, close it."""

    def __init__(self, place: Path, small_tokens: int, entry: Sequence[str] = PRODUCT) -> None:
        self.place, self._entry, self._small_tokens = place, entry, small_tokens
        self.state_dir = place / "stores"
        self.redis = Store(partial(start_redis, self.state_dir))
        self.postgres = Store(partial(start_postgres, self.state_dir))
        self.upstream: Upstream
        self.gateways: list[Gateway] = []
        self.direct: Gateway  # never started: the configuration of whoever looks from outside
        self.links: dict[str, Link] = {}
        self.applied: list[Applied] = []
        self._under_way: dict[Fault, asyncio.Task[None]] = {}
        self._healing = asyncio.Event()
        self._fronts: list[asyncio.Server] = []

    @property
    def redis_url(self) -> str:
        return redis_url(self.state_dir)

    @property
    def postgres_url(self) -> str:
        return postgres_url(self.state_dir)

    async def start_stores(self) -> None:
        """The stores and the upstream; the gateways want a ledger with users first."""
        await asyncio.gather(self.redis.start(), self.postgres.start())
        self.upstream = Upstream(self.place / "upstream.log")
        servers = Servers(self.redis_url, self.postgres_url, self.upstream.url)
        self.direct = self._gateway(0, "outside", servers)

    async def start_gateways(self) -> None:
        for number in range(1, GATEWAYS + 1):
            servers = await self._linked(number)
            self.gateways.append(self._gateway(number, f"gateway-{number}", servers))
        await asyncio.gather(*(gateway.start() for gateway in self.gateways))

    def _gateway(self, number: int, name: str, servers: Servers) -> Gateway:
        place = self.place / name
        config = configuration(servers, place / "state", self._small_tokens)
        return Gateway(number, place, config, self._entry)

    async def _linked(self, number: int) -> Servers:
        """Links of one gateway to all servers, and where they listen."""
        loop, sockets = asyncio.get_running_loop(), socket_dir(self.state_dir)
        ours = self.place / f"links-{number}"
        ours.mkdir()
        for name, socket in (("redis", REDIS_SOCKET), ("postgres", POSTGRES_SOCKET)):
            connect = partial(loop.create_unix_connection, path=str(sockets / socket))
            link = self.links[f"{name}-{number}"] = Link(f"{name}-{number}", connect)
            front = await loop.create_unix_server(link.accept, str(ours / socket))
            (ours / socket).chmod(0o700)
            self._fronts.append(front)
        to_upstream = partial(
            loop.create_connection, host=self.upstream.host, port=self.upstream.port
        )
        link = self.links[f"upstream-{number}"] = Link(f"upstream-{number}", to_upstream)
        front = await loop.create_server(link.accept, "127.0.0.1", 0)
        self._fronts.append(front)
        port = front.sockets[0].getsockname()[1]
        return Servers(
            f"unix://{ours / REDIS_SOCKET}?db=0",
            f"postgresql://quota@/postgres?host={ours}&port=5432",
            f"http://127.0.0.1:{port}/v1",
        )

    # --- faults ----------------------------------------------------------------------------

    def befall(self, fault: Fault) -> None:
        """Let it happen now; it ends by itself, or when the world is healed. What is not back yet
        from an earlier fault is left alone."""
        parts = parts_of(fault.target)
        if any(parts & parts_of(each.target) for each in self._unfinished()):
            return
        task = spawn(self._one(fault), str(fault), awaited=True)
        self._under_way[fault] = task

    def _unfinished(self) -> list[Fault]:
        return [fault for fault, task in self._under_way.items() if not task.done()]

    async def heal(self) -> list[str]:
        """End every fault; the names of those that did not come back."""
        self._healing.set()
        for link in self.links.values():
            link.heal()
        if self._under_way:
            await asyncio.wait(self._under_way.values(), timeout=_HEAL_S)
        stuck = [str(fault) for fault in self._unfinished()]
        for task in self._under_way.values():
            if task.done():
                task.result()
        return stuck

    def spilled(self) -> list[str]:
        """What the gateways have on disk of what Redis has not confirmed."""
        return [file for gateway in self.gateways for file in gateway.spilled]

    async def _one(self, fault: Fault) -> None:
        name, _, number = fault.target.partition("-")
        began_s = time.time()
        if fault.target in self.links:
            await self._break_link(fault, self.links[fault.target])
        elif number:
            if not await self._break_gateway(fault, name, self.gateways[int(number) - 1]):
                return
        elif fault.kind == "freeze":
            server = self.upstream if name == "upstream" else self._store(name)
            server.freeze()
            await self._last(fault)
            server.go_on()
        else:
            store = self._store(name)
            await store.kill()
            if fault.kind == "empty":
                shutil.rmtree(self.state_dir / name)
            await self._last(fault)
            await store.start()
        self.applied.append(Applied(fault.kind, fault.target, began_s, time.time()))

    def _store(self, name: str) -> Store:
        return {"redis": self.redis, "postgres": self.postgres}[name]

    async def _break_gateway(self, fault: Fault, name: str, gateway: Gateway) -> bool:
        """False when there was nothing to break just then."""
        if fault.kind == "freeze":
            if not gateway.freeze(None if name == "gateway" else "jobs"):
                return False
            await self._last(fault)
            gateway.go_on()
            return True
        if name != "gateway":
            return gateway.kill_one("jobs" if name == "jobs" else "proxy-1")
        await gateway.kill()
        await self._last(fault)
        await gateway.start()
        return True

    async def _break_link(self, fault: Fault, link: Link) -> None:
        if fault.kind == "half close":
            link.half_close()
            return
        if fault.kind == "cut":
            link.refuses = True
            link.cut()
        elif fault.kind == "delay":
            link.up.delay_s = link.down.delay_s = _DELAY_S
        else:
            (link.down if fault.kind == "no replies" else link.up).is_open.clear()
        await self._last(fault)
        if fault.kind in ("swallow", "no replies"):
            link.cut()  # what went into the hole never comes out
        link.heal()

    async def _last(self, fault: Fault) -> None:
        try:
            async with asyncio.timeout(fault.lasting_s):
                await self._healing.wait()
        except TimeoutError:
            return

    # --- the end ---------------------------------------------------------------------------

    async def close(self) -> None:
        """End all processes, whatever state they are in."""
        self._healing.set()
        for task in self._under_way.values():
            task.cancel()
        if self._under_way:
            await asyncio.wait(self._under_way.values())
        async with AsyncExitStack() as stack:  # the gateways end first
            for front in self._fronts:
                stack.callback(front.close)
            for link in self.links.values():
                stack.push_async_callback(link.close)
            if hasattr(self, "upstream"):
                stack.callback(self.upstream.stop)
            for store in (self.redis, self.postgres):
                if hasattr(store, "server"):
                    stack.push_async_callback(store.stop)
            for gateway in self.gateways:
                stack.push_async_callback(gateway.kill)
