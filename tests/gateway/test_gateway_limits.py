"""Limits of tiers, of users and of teams, shadow tiers and caps, through three whole gateways."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters.embedded import postgres_url, redis_url
from gateway.adapters.tokenizer.bpe import BpeTokenizer
from gateway.app.secrets_of_state import pepper_of
from gateway.app.stores import Stores
from gateway.core.overrides import Overrides
from gateway.core.prompt.chat import count_chat_prompt
from tests.gateway.many_clients import Answer, Crowd
from tests.gateway.running_gateway import MakeGateway, RunningGateway, prompt
from tests.gateway.standin_process import StandInProcess
from tests.gateway.waiting_for import until

MUCH = 10**9
PLAN: dict[str, Any] = {
    "tiers": {
        "crew": {"tokens": 37_010},  # what is left of 37 calls is not worth another
        "narrow": {"tokens": MUCH, "upgrade": "full", "limits": {"rpm": 2}},
        "small": {"tokens": MUCH, "limits": {"tpm": 300}},
        "single": {"tokens": MUCH, "limits": {"concurrent": 1}},
        "poor": {"tokens": MUCH, "upgrade": "full", "limits": {"gbp": "0.01"}},
        "capped": {"tokens": MUCH, "upgrade": "full", "limits": {"tier_tokens": 12_000}},
        "shadow": {"tokens": 40, "shadow": True, "limits": {"models": ["gpt-4o"], "rpm": 2}},
    }
}
CHANGES = {
    "identity": {"keys": {"pepper": "the-pepper-of-three"}},
    "lease": {"ms": 8000, "grace_ms": 1000, "heartbeat_ms": 1000},
    "plan": PLAN,
}


@pytest.fixture(scope="module")
def three(other_stand_in: StandInProcess) -> Iterator[list[RunningGateway]]:
    """The first has the stores and the jobs, the others only proxies. They end before it does."""
    with ExitStack() as stack:

        def make(changes: dict[str, Any]) -> RunningGateway:
            place = stack.enter_context(tempfile.TemporaryDirectory(prefix="qg-"))
            running = RunningGateway(Path(place), other_stand_in, changes)
            stack.callback(running.end)
            return running

        first = make(CHANGES).start()
        stores = {
            "redis": {"url": redis_url(first.state_dir)},
            "ledger": {"url": postgres_url(first.state_dir)},
        }
        yield [first, *(make({**CHANGES, **stores}).start("--jobs", "none") for _ in range(2))]


def prompt_tokens(body: dict[str, object]) -> int:
    tokenizer = BpeTokenizer()
    return count_chat_prompt(body, lambda text: tokenizer.count(text, "o200k_base"))


def of_1000(name: str) -> dict[str, Any]:
    """A call that holds 1,000 tokens, no less, until it is let go, and is settled to 500."""
    body = prompt(f"{'A long question. ' * 10}\n@stand-in hold={name} usage=100/400")
    body["max_tokens"] = 1000 - prompt_tokens(body)
    return body


def team_of(gateway: RunningGateway, team: str, members: int, ceiling: int | None) -> list[str]:
    """A team of the tier `crew`, and the keys of its members."""

    async def make(stores: Stores) -> list[str]:
        accounts, people = stores.accounts(gateway.settings), stores.people(gateway.settings)
        await people.create_team(team, "crew")
        keys = []
        for place in range(members):
            name = f"{team}-{place}"
            await accounts.create_user(name, "free")
            await people.join_team(name, team)
            if ceiling is not None:
                await people.set_limits(name, Overrides(tokens=ceiling))
            keys.append((await accounts.create_key(name, pepper_of(gateway.settings))).key)
        return keys

    return gateway.in_stores(make)


def finished(three: list[RunningGateway], crowd: Crowd, name: str, admitted: int) -> list[Answer]:
    """All answers, once so many calls were held at the same time and the others refused."""
    stand_in, calls = three[0].stand_in, len(crowd.answers)
    stand_in.await_held(name, admitted)
    until(lambda: crowd.refused() == calls - admitted, 60, "the others to be refused")
    stand_in.release(name)
    return crowd.done()


def test_100_members_at_once_cannot_pass_the_pool_of_their_team(
    three: list[RunningGateway],
) -> None:
    keys = team_of(three[0], "pool", 100, ceiling=2_010)
    body = of_1000("pool")
    crowd = Crowd(three, [(key, body) for key in keys * 2])
    answers = finished(three, crowd, "pool", 37)
    assert Counter((each.status, each.code) for each in answers) == {
        (200, ""): 37,
        (429, "quota_in_flight"): 163,
    }
    until(lambda: three[0].shown("pool")["open_holds"] == 0, 20, "all calls to be settled")
    assert three[0].shown("pool")["used_tokens"] == 37 * 500


def test_no_member_passes_its_own_ceiling(three: list[RunningGateway]) -> None:
    keys = team_of(three[0], "ceilings", 12, ceiling=2_010)
    body = of_1000("ceilings")
    crowd = Crowd(three, [(key, body) for key in keys * 5])
    answers = finished(three, crowd, "ceilings", 24)
    codes = Counter((place % 12, each.code) for place, each in enumerate(answers))
    assert codes == Counter({(n, ""): 2 for n in range(12)}) + Counter(
        {(n, "quota_in_flight"): 3 for n in range(12)}
    )
    until(lambda: three[0].shown("ceilings")["open_holds"] == 0, 20, "all calls to be settled")
    # 1,000 of 2,010 are used: one more each, and then the ceiling is told.
    answer = three[1].chat(keys[0], prompt("@stand-in usage=600/500", max_tokens=1_000))
    assert answer.status == 200
    until(lambda: three[0].shown("ceilings")["open_holds"] == 0, 20, "the call to be settled")
    refused = three[2].chat(keys[0], "one more")
    assert (refused.status, refused.json["error"]["code"]) == (429, "member_quota_exceeded")
    quota = refused.json["error"]["quota"]
    assert (quota["limit"], quota["used_tokens"], quota["limit_tokens"]) == ("member", 2_100, 2_010)
    assert (quota["upgrade"], quota["topup"]) == (None, None)
    assert refused.headers["x-quota-remaining-tokens"] == "0"
    assert refused.headers["x-should-retry"] == "false"
    assert three[2].chat(keys[1], prompt("hi", max_tokens=50)).status == 200


def test_each_limit_says_which_and_how_long(three: list[RunningGateway]) -> None:
    first = three[0]

    def refused(key: str, body: Any) -> tuple[int, str, str, str | None, str | None]:
        answer = first.chat(key, body)
        error, headers = answer.json["error"], answer.headers
        quota = error.get("quota") or {}
        retry, again = headers.get("retry-after"), headers.get("x-should-retry")
        return answer.status, error["code"], quota.get("limit", ""), retry, again

    _, narrow = first.new_user("narrow")
    assert [first.chat(narrow, "hi").status for _ in range(2)] == [200, 200]
    status, code, limit, retry, again = refused(narrow, "hi")
    assert (status, code, limit, again) == (429, "rate_limit_exceeded", "requests_a_minute", None)
    assert 1 <= int(retry or 0) <= 30  # of two a minute, the third comes after half of one
    _, small = first.new_user("small")
    asked = prompt("hi", max_tokens=250)
    assert first.chat(small, asked).status == 200
    status, code, limit, retry, _ = refused(small, asked)
    assert (status, code, limit) == (429, "rate_limit_exceeded", "tokens_a_minute")
    assert 1 <= int(retry or 0) <= 60
    assert refused(small, "word " * 400)[:3] == (400, "request_exceeds_quota", "tokens_a_minute")
    user, poor = first.new_user("poor")
    dear = prompt("@stand-in usage=10/20000", max_tokens=16_000)  # a penny each, or nearly
    assert [first.chat(poor, dear).status for _ in range(2)] == [200, 200]
    until(lambda: first.shown(user)["open_holds"] == 0, 20, "the second to be settled")
    assert refused(poor, "hi")[:3] == (429, "budget_exceeded", "budget")


def test_calls_at_the_same_time_are_counted_over_all_gateways(
    three: list[RunningGateway],
) -> None:
    _, key = three[0].new_user("single")
    crowd = Crowd(three, [(key, of_1000("single"))] * 9)
    answers = finished(three, crowd, "single", 1)
    assert Counter(each.code for each in answers) == {"": 1, "concurrency_limit_exceeded": 8}
    refused = next(each for each in answers if each.code)
    assert refused.headers["retry-after"] == "1"


def test_a_user_s_own_limit_goes_before_its_tier_s_from_the_next_call_on(
    three: list[RunningGateway],
) -> None:
    first = three[0]
    user, key = first.new_user("narrow")

    def set_limits(limits: Overrides) -> None:
        async def change(stores: Stores) -> None:
            await stores.people(first.settings).set_limits(user, limits)

        first.in_stores(change)

    assert three[1].chat(key, "hi").status == 200
    set_limits(Overrides(rpm=None, models=("gpt-4o",)))
    refused = three[1].chat(key, "hi")
    assert (refused.status, refused.json["error"]["code"]) == (403, "model_not_allowed")
    set_limits(Overrides(rpm=None))
    assert {three[n % 3].chat(key, "hi").status for n in range(6)} == {200}
    set_limits(Overrides(tokens=3))
    refused = three[2].chat(key, "hi")
    assert refused.json["error"]["code"] == "request_exceeds_quota"
    assert refused.json["error"]["quota"]["limit_tokens"] == 3


def test_a_shadow_tier_lets_all_through_and_records_what_it_would_have_refused(
    three: list[RunningGateway],
) -> None:
    first = three[0]
    user, key = first.new_user("shadow")
    answers = [first.chat(key, {**prompt("hi"), "max_tokens": 500}) for _ in range(3)]
    assert {each.status for each in answers} == {200}
    assert {each.headers["x-quota-decision"] for each in answers} == {"shadow-refused"}
    by_model = prompt("hi", max_tokens=1)
    assert first.chat(key, {**by_model, "model": "gpt-4o"}).status == 200
    rows = first.ledger_rows(user, 4)
    assert sum(row["charged_tokens"] for row in rows) > 40  # over its limit, to the token
    shown = first.shown(user)
    assert (shown["used_tokens"], shown["held_tokens"]) == (
        sum(row["charged_tokens"] for row in rows),
        0,
    )
    labels = {"tier": "shadow", "decision": "shadow-refused"}
    reasons = {
        reason: first.metric("decisions_total", reason=reason, **labels)
        for reason in ("insufficient_quota", "model_not_allowed", "rate_limit_exceeded")
    }
    assert sum(reasons.values()) >= 3
    assert first.metric("decisions_total", tier="shadow", decision="refused") == 0


def test_a_cap_of_a_whole_tier_is_kept_over_users_and_gateways(
    three: list[RunningGateway],
) -> None:
    first = three[0]
    keys = [first.new_user("capped")[1] for _ in range(6)]
    until(
        lambda: first.chat(keys[0], prompt("hi", max_tokens=1)).status == 200,
        30,
        "the first round of shares",
    )
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        crowd = Crowd(three, [(key, prompt("@stand-in write=300", max_tokens=300))
                              for key in keys * 3])  # fmt: skip
        codes = Counter(each.code for each in crowd.done())
        if codes["tier_quota_exceeded"]:
            break
    assert codes["tier_quota_exceeded"]
    used = first.metric("tier_used_tokens", tier="capped")
    assert used <= 12_000
    _, of_another = first.new_user("full")
    assert first.chat(of_another, "hi").status == 200


def test_a_shadow_call_survives_a_killed_gateway(make_gateway: MakeGateway) -> None:
    lease = {"ms": 3000, "grace_ms": 500, "heartbeat_ms": 500}
    gateway = make_gateway(plan=PLAN, lease=lease).start()
    user, key = gateway.new_user("shadow", used=100)
    body = prompt("@stand-in write=80 hold=dies hold_after=5", stream=True, max_tokens=2000)
    crowd = Crowd([gateway], [(key, body)])
    gateway.stand_in.await_held("dies")
    until(lambda: crowd.answers[0].text_tokens == 20, 30, "the chunks to reach the client")
    gateway.kill()
    crowd.done()
    gateway.start()
    gateway.stand_in.release("dies")
    rows = gateway.ledger_rows(user, 2)
    assert rows[-1]["outcome"] == "expired"
    shown = gateway.shown(user)
    assert (shown["held_tokens"], shown["open_holds"]) == (0, 0)
    assert shown["used_tokens"] == 100 + rows[-1]["charged_tokens"]
