"""What one `serve` will consist of, settled before anything starts: its ports and its processes.

Ports are reserved here. So one that is taken is told at once, workers can share theirs, and a
process that is started again listens where it did. Imports little: it comes before everything else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from msgspec import structs

from gateway.config import Settings
from gateway.config.values import Address
from gateway.web.reserved import reserved, url_of

USER_HEADER = "x-quota-user"
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Arrangement:
    """`settings` have a number for each port that was 0, and the stand-in for every upstream if
    there is one. `names`: the processes that can be asked how they are. `places`: the URL of each
    server, `admin` of none being `none`."""

    settings: Settings
    names: tuple[str, ...]
    places: Mapping[str, str]

    @property
    def stand_in(self) -> str | None:
        """Where the stand-in will answer; None without one."""
        return self.places.get("stand_in")

    def again(self, settings: Settings) -> Arrangement:
        """The same ports, processes and stand-in, under other settings."""
        now = self.settings
        listen = replace(now.listen, body_bytes_max=settings.listen.body_bytes_max)
        settings = replace(settings, listen=listen, workers=now.workers)
        if self.stand_in is not None:
            settings = _with_stand_in(settings, self.stand_in)
        return replace(self, settings=settings)


@contextmanager
def arranged(settings: Settings, jobs: bool, stand_in: bool) -> Iterator[Arrangement]:
    """Hold the ports for as long as the block lasts. AddressTaken when one is in use."""
    with ExitStack() as stack:

        def hold(address: Address) -> Address:
            port = stack.enter_context(reserved(address.host, address.port))
            return replace(address, port=port)

        names = [f"proxy-{number}" for number in range(1, settings.workers + 1)]
        listen = replace(settings.listen, proxy=hold(settings.listen.proxy))
        places = {"proxy": url_of(listen.proxy.host, listen.proxy.port), "admin": "none"}
        if jobs:
            names.append("jobs")
            listen = replace(listen, admin=hold(listen.admin))
            places["admin"] = url_of(listen.admin.host, listen.admin.port)
        settings = replace(settings, listen=listen)
        if stand_in:
            address = hold(Address(_LOOPBACK, 0))
            places["stand_in"] = f"{url_of(address.host, address.port)}/v1"
            settings = _with_stand_in(settings, places["stand_in"])
        yield Arrangement(settings, tuple(names), places)


def _with_stand_in(settings: Settings, base_url: str) -> Settings:
    """The settings with every upstream replaced by the stand-in, which is told the user."""
    upstreams = {
        name: structs.replace(each, base_url=base_url, user_header=USER_HEADER)
        for name, each in settings.upstreams.items()
    }
    return replace(settings, upstreams=upstreams)
