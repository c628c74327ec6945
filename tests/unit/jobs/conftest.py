"""One flow a test, on an imitated Redis of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.fakes.flow_rig import FlowRig, flow_rig


@pytest.fixture
async def rig() -> AsyncIterator[FlowRig]:
    async with flow_rig() as opened:
        yield opened
