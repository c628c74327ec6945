"""A free call reaches upstream once, as its user's, and leaves neither a hold nor a row."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from gateway.core.inference.moderations import judge_moderation
from gateway.core.models import Model, ModelTable, Weights
from gateway.core.refusal import Case, Refused
from gateway.core.rid import make_rid
from gateway.core.routes import MODERATIONS
from gateway.flow.free import FreeCall, FreeExchange
from gateway.ports.upstream import (
    UpstreamBroke,
    UpstreamHead,
    UpstreamSilent,
    UpstreamUnreachable,
)
from tests.fakes.flow_rig import FlowRig
from tests.fakes.upstream import ScriptedAnswer

JUDGED = b'{"id":"modr-1","model":"omni-moderation-latest","results":[{"flagged":false}]}'
MODELS = ModelTable(
    Model(name, "other", "chars", 32_768, 0, 0, 0, Weights())
    for name in ("omni-moderation-latest", "text-moderation-*")
)


@dataclass
class Asked:
    """What came back, and which call it was."""

    head: UpstreamHead
    body: bytes
    rid: str


async def ask(rig: FlowRig, source: ScriptedAnswer | Exception, **body: Any) -> Asked:
    """A moderation by a user whose quota is used up, on a tier that may not call the model."""
    await rig.user()
    await rig.accounts.set_used("ada", 1000, "test", "tester")
    rig.will_answer(source)
    rid = make_rid(rig.clock.now_ms(), bytes(10))
    request = judge_moderation(json.dumps({"input": "I hate you", **body}).encode())
    call = FreeCall(rid, MODERATIONS, rig.directory.people["ada"], request)
    head, said = await FreeExchange(rig.upstream, MODELS, rig.metrics).run(call)
    return Asked(head, said, rid)


async def test_whoever_has_nothing_left_may_still_ask_and_pays_nothing(rig: FlowRig) -> None:
    source = ScriptedAnswer([JUDGED[:9], JUDGED[9:]], relayed=(("openai-version", "2020"),))
    asked = await ask(rig, source)
    assert asked.body == JUDGED
    assert (asked.head.status, asked.head.relayed) == (200, (("openai-version", "2020"),))
    (call,) = rig.upstream.calls
    assert (call.upstream, call.path) == ("other", "/moderations")
    assert (call.user_id, call.rid) == ("ada", asked.rid)
    assert json.loads(call.body) == {"input": "I hate you", "model": "omni-moderation-latest"}
    assert source.closed == 1
    assert rig.metrics.of("decided") == [("free", "moderations", "admitted", "free")]
    account = await rig.account()
    assert (account.held_tokens, account.open_holds) == (0, 0)
    assert await rig.rows() == []
    assert rig.store.asks == []


async def test_a_name_that_a_pattern_covers_is_sent_as_it_was_called(rig: FlowRig) -> None:
    await ask(rig, ScriptedAnswer([JUDGED]), model="text-moderation-007")
    assert json.loads(rig.upstream.calls[0].body)["model"] == "text-moderation-007"


async def test_a_model_that_is_not_configured_is_refused_and_never_asked(rig: FlowRig) -> None:
    with pytest.raises(Refused) as caught:
        await ask(rig, ScriptedAnswer([JUDGED]), model="gpt-4o-mini")
    refused = caught.value
    assert (refused.case, refused.param) == (Case.MODEL_NOT_ALLOWED, "model")
    assert "'gpt-4o-mini'" in refused.message
    assert refused.tier == "free"
    assert rig.upstream.calls == []
    assert rig.metrics.of("decided") == []


@pytest.mark.parametrize(
    ("source", "case"),
    [
        (UpstreamUnreachable("closed"), Case.UPSTREAM_UNAVAILABLE),
        (UpstreamBroke("cut"), Case.UPSTREAM_UNAVAILABLE),
        (UpstreamSilent("silent"), Case.UPSTREAM_TIMEOUT),
        (ScriptedAnswer([b"{", UpstreamBroke("cut")]), Case.UPSTREAM_UNAVAILABLE),
        (ScriptedAnswer([b"{", UpstreamSilent("silent")]), Case.UPSTREAM_TIMEOUT),
        (ScriptedAnswer([b"sk-1***9"], 401), Case.UPSTREAM_AUTH_FAILED),
        (ScriptedAnswer([b"sk-1***9"], 307), Case.UPSTREAM_UNAVAILABLE),
        (
            ScriptedAnswer([b'{"error":{"code":"insufficient_quota"}}'], 429),
            Case.UPSTREAM_QUOTA_EXHAUSTED,
        ),
    ],
)
async def test_upstream_s_trouble_is_told_as_for_every_other_call(
    rig: FlowRig, source: ScriptedAnswer | Exception, case: Case
) -> None:
    with pytest.raises(Refused) as caught:
        await ask(rig, source)
    assert caught.value.case is case
    assert "sk-" not in caught.value.message
    assert not isinstance(source, ScriptedAnswer) or source.closed == 1


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
async def test_upstream_s_other_errors_pass_as_they_are(rig: FlowRig, status: int) -> None:
    asked = await ask(rig, ScriptedAnswer([b'{"error":{}}'], status, retry_after="7"))
    assert (asked.head.status, asked.head.retry_after) == (status, "7")
    assert asked.body == b'{"error":{}}'
