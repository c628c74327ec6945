"""Entries of the configuration that stand for many names, and what a call of them is booked as.

The entry is booked, priced and counted; the name that was called is what upstream gets.
"""

from __future__ import annotations

import json
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

import pytest

from gateway.core.models import Model, ModelTable, Weights
from gateway.core.pricing import Price, PriceTable, PriceVersion
from gateway.core.refusal import Case, Refused
from tests.fakes.answer import RecordedAnswer
from tests.fakes.chat_stream import DONE, completion, text, usage
from tests.fakes.flow_rig import COUNTS, TERMS, FlowRig, flow_rig
from tests.fakes.upstream import ScriptedAnswer

M = 10**6
MODEL = Model("gpt-4o-mini", "openai", "chars", 100_000, 400, 100, 16, Weights())
MODELS = ModelTable(
    (
        replace(MODEL, snapshots=True),
        replace(MODEL, name="llama-*"),
        replace(MODEL, name="small", upstream_model="acme/small-v2"),
    )
)
LINE = Price("2026", 2 * M, M, 4 * M)
LUNA = replace(LINE, tiers={"flex": Price("2026", M, M, 2 * M)})
DEFAULT = Price("2026", 9 * M, 9 * M, 9 * M, is_default=True)
PRICES = PriceTable(
    (PriceVersion("2026", 0, {"*": DEFAULT, "gpt-4o-mini": LUNA, "llama-*": LINE, "small": LINE}),)
)


def rig_of_many() -> AbstractAsyncContextManager[FlowRig]:
    return flow_rig(models=MODELS, prices=PRICES)


async def called(rig: FlowRig, name: str, *answer: bytes, **body: Any) -> dict[str, Any]:
    """The body that upstream got for a call of that name."""
    content_type = "text/event-stream" if body.get("stream") else "application/json"
    rig.will_answer(ScriptedAnswer(list(answer), content_type=content_type))
    key = await rig.user(tier="lite")
    await rig.exchange.run(rig.call(key, model=name, **body), RecordedAnswer())
    return dict(json.loads(rig.upstream.calls[-1].body))


@pytest.mark.parametrize(
    ("name", "entry", "sent"),
    [
        ("gpt-4o-mini", "gpt-4o-mini", "gpt-4o-mini"),
        ("gpt-4o-mini-2024-07-18", "gpt-4o-mini", "gpt-4o-mini-2024-07-18"),
        ("llama-3.3-70b", "llama-*", "llama-3.3-70b"),
        ("small", "small", "acme/small-v2"),
    ],
)
async def test_the_entry_is_booked_and_the_called_name_is_sent(
    name: str, entry: str, sent: str
) -> None:
    async with rig_of_many() as rig:
        body = await called(rig, name, completion("Hi", COUNTS))
        (row,) = await rig.rows()
        assert (body["model"], row.event.model) == (sent, entry)
        assert row.cost_nano_gbp == 20 * 2 + 30 * 4
        assert rig.metrics.of("unpriced") == []


async def test_an_answer_that_does_not_count_itself_is_counted_for_the_entry() -> None:
    async with rig_of_many() as rig:
        await called(rig, "llama-3.3-70b", completion("Hello", None))
        (row,) = await rig.rows()
        assert (row.event.output_tokens, row.event.quality) == (5, "estimated")


async def test_a_tier_s_entries_bind_the_names_they_stand_for() -> None:
    plan = TERMS.plan
    free = replace(plan.tiers["free"], models=("gpt-*",))
    async with flow_rig(
        models=MODELS, plan=replace(plan, tiers={**plan.tiers, "free": free})
    ) as rig:
        key = await rig.user()
        await rig.admission.admit(rig.call(key, model="gpt-4o-mini-2024-07-18"))
        with pytest.raises(Refused, match="'llama-3'") as caught:
            await rig.admission.admit(rig.call(key, model="llama-3"))
        assert caught.value.case is Case.MODEL_NOT_ALLOWED


@pytest.mark.parametrize(
    ("service_tier", "cost", "unpriced"),
    [
        (None, 20 * 2 + 30 * 4, 0),
        ("default", 20 * 2 + 30 * 4, 0),
        ("flex", 20 * 1 + 30 * 2, 0),
        ("ultrafast", (20 + 30) * 9, 1),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_the_tier_that_the_answer_names_is_booked(
    service_tier: str | None, cost: int, unpriced: int, stream: bool
) -> None:
    answer = [completion("Hi", COUNTS, service_tier=service_tier)]
    if stream:
        answer = [text("Hi", service_tier=service_tier), usage(20, 30), DONE]
    async with rig_of_many() as rig:
        await called(rig, "gpt-4o-mini", *answer, service_tier="auto", stream=stream)
        (row,) = await rig.rows()
        assert (row.cost_nano_gbp, row.event.service_tier) == (cost, service_tier)
        assert rig.metrics.of("unpriced") == ["gpt-4o-mini"] * unpriced


@pytest.mark.parametrize(
    ("asked", "output_nano_gbp"), [("default", 4), ("flex", 4), (None, 4), ("ultrafast", 9)]
)
async def test_a_hold_takes_the_dearest_line_that_is_asked_for(
    asked: str | None, output_nano_gbp: int
) -> None:
    async with rig_of_many() as rig:
        await called(rig, "gpt-4o-mini", completion("Hi", COUNTS), service_tier=asked)
        assert rig.store.asks[-1].output_nano_gbp == output_nano_gbp
