"""A client of a stand-in that really listens."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.standin import StandInSettings
from tests.unit.standin.standin_client import Client, count_words, running


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with running(StandInSettings(count_words)) as client:
        yield client
