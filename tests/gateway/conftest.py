"""Whole gateways for the tests: one that a worker's tests share, and ways to start others.

Tests use users of their own, so they can share. A second shared one is impatient: everything that
takes long by nature takes a second there. Tests that stop or kill a gateway start their own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.fakes.issuer import jwk, key_set
from tests.fakes.key_server import KeyServer, key_server
from tests.gateway.browser import Pipe, Tab, browser, tab_of
from tests.gateway.identity_settings import identity
from tests.gateway.node_sdk import require
from tests.gateway.page_pictures import shop_settings
from tests.gateway.page_server import PageServer, serving_pages
from tests.gateway.running_gateway import MakeGateway, RunningGateway, running_gateway
from tests.gateway.standin_process import StandInProcess
from tests.stripe_api import StripeApi


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the machine's environment says, these tests talk to this machine."""
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture(scope="session")
def stand_in() -> Iterator[StandInProcess]:
    """The upstream of the shared gateway alone, so that their books can be compared."""
    process = StandInProcess()
    yield process
    process.stop()


@pytest.fixture(scope="session")
def other_stand_in() -> Iterator[StandInProcess]:
    """The upstream of all other gateways."""
    process = StandInProcess()
    yield process
    process.stop()


@pytest.fixture(scope="session")
def gateway(stand_in: StandInProcess) -> Iterator[RunningGateway]:
    """The one that tests share. After all of them Redis, ledger and upstream must agree."""
    with running_gateway(stand_in) as running:
        yield running
        verdict = running.cli("ledger", "verify", "--upstream", stand_in.url)
        assert verdict["open_holds"] == 0


@pytest.fixture(scope="session")
def impatient(other_stand_in: StandInProcess) -> Iterator[RunningGateway]:
    """One that waits for nobody: streams, silence and drains end after a second at most. It
    keeps answers of up to 1 KiB."""
    changes = {
        "lease": {"ms": 3000, "grace_ms": 500, "heartbeat_ms": 200, "stream_max_s": 1},
        "client_gone": {"drain_s": 0},
        "clients": {"request_s": 1},
        "idempotency": {"answer_kib_max": 1},
        "upstreams": {"openai": {"idle_s": 1}},
        "plan": {"tiers": {"free": {"limits": {"models": ["gpt-4o-mini"]}}}},
        "refusal": {"upgrade_url": "https://example.test/upgrade"},
    }
    with running_gateway(other_stand_in, changes) as running:
        yield running


@pytest.fixture(scope="session")
def issuer_keys() -> Iterator[KeyServer]:
    """Where the issuer of `signed_in` publishes two keys."""
    with key_server() as server:
        server.answer = key_set(jwk("RS256", "rsa"), jwk("ES256", "ec"))
        yield server


@pytest.fixture(scope="session")
def signed_in(other_stand_in: StandInProcess, issuer_keys: KeyServer) -> Iterator[RunningGateway]:
    """One that knows callers by token, under a secret and under published keys, and by the header
    of a front at 127.0.0.1."""
    changes = {"identity": identity(issuer_keys.url)}
    with running_gateway(other_stand_in, changes) as running:
        yield running


@pytest.fixture(scope="session")
def stripe_api() -> Iterator[StripeApi]:
    """Stripe, as gateways that sell packs see it."""
    server = StripeApi()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def pages() -> Iterator[PageServer]:
    """Pages of another origin than any gateway's."""
    with serving_pages() as server:
        yield server


@pytest.fixture(scope="session")
def shop(
    other_stand_in: StandInProcess, stripe_api: StripeApi, pages: PageServer
) -> Iterator[RunningGateway]:
    """One that sells packs, to 'lite' too, and lists the origin of `pages`."""
    changes = shop_settings(stripe_api) | {"cors": {"origins": [pages.origin]}}
    with running_gateway(other_stand_in, changes) as running:
        yield running


@pytest.fixture(scope="session")
def chromium() -> Iterator[Pipe]:
    """One for all tabs."""
    require("chromium")
    with browser() as running:
        yield running


@pytest.fixture
def tab(chromium: Pipe) -> Iterator[Tab]:
    """A page of the test's own."""
    with tab_of(chromium) as opened:
        yield opened


@pytest.fixture
def make_gateway(other_stand_in: StandInProcess) -> Iterator[MakeGateway]:
    with ExitStack() as stack:

        def make(**changes: Any) -> RunningGateway:
            place = stack.enter_context(tempfile.TemporaryDirectory(prefix="qg-"))
            running = RunningGateway(Path(place), other_stand_in, changes)
            stack.callback(running.end)
            return running

        yield make


@pytest.fixture
def start_gateway(make_gateway: MakeGateway) -> MakeGateway:
    """The same, started."""
    return lambda **changes: make_gateway(**changes).start()


@pytest.fixture
def sdk(gateway: RunningGateway) -> Iterator[Callable[[str], openai.OpenAI]]:
    """The official client for a key, told nothing but where and who."""
    with ExitStack() as stack:

        def client(key: str) -> openai.OpenAI:
            made = openai.OpenAI(base_url=f"{gateway.proxy}/v1", api_key=key)
            return stack.enter_context(made)

        yield client
