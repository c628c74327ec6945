"""Three gateways on the same stores: together they grant what one would, and no more."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from gateway.adapters.embedded import postgres_url, redis_url
from gateway.adapters.tokenizer.bpe import BpeTokenizer
from gateway.app.stores import Stores
from gateway.core.hold import BYTES_A_TOKEN, UNSEEN_TOKENS_MAX
from gateway.core.prompt.chat import count_chat_prompt
from tests.gateway.many_clients import Crowd
from tests.gateway.running_gateway import MakeGateway, RunningGateway, prompt
from tests.gateway.waiting_for import until

PEPPER = "the-pepper-of-three"
ALLOWANCE = 100_000
# Leases outlast nothing here but a gateway's death: 500 streams start within one on a slow machine.
LEASE = {"ms": 8000, "grace_ms": 1000, "heartbeat_ms": 1000}


@pytest.fixture
def three(make_gateway: MakeGateway) -> list[RunningGateway]:
    """The first has the stores and the jobs, the others only proxies. They end before it does."""
    keys = {"keys": {"pepper": PEPPER}}
    first = make_gateway(identity=keys, lease=LEASE).start()
    others = [
        make_gateway(
            identity=keys,
            lease=LEASE,
            redis={"url": redis_url(first.state_dir)},
            ledger={"url": postgres_url(first.state_dir)},
        ).start("--jobs", "none")
        for _ in range(2)
    ]
    return [first, *others]


def prompt_tokens(body: dict[str, object]) -> int:
    tokenizer = BpeTokenizer()
    return count_chat_prompt(body, lambda text: tokenizer.count(text, "o200k_base"))


def test_with_room_for_37_calls_37_of_200_reach_the_upstream_and_no_other(
    three: list[RunningGateway],
) -> None:
    first, stand_in = three[0], three[0].stand_in
    # Each call holds 1,000 tokens and will be settled to 500.
    held = prompt(f"{'A long question. ' * 10}\n@stand-in hold=full usage=100/400")
    held["max_tokens"] = 1000 - prompt_tokens(held)
    least = prompt_tokens(held) + 16  # the lowest cap worth a call
    left_over = least - 1
    user, key = first.new_user("free", ALLOWANCE - 37 * 1000 - left_over)

    crowd = Crowd(three, [(key, held)] * 200)
    stand_in.await_held("full", 37)
    until(lambda: crowd.refused() == 163, 30, "163 refusals while 37 calls are held")
    assert stand_in.served(user)["requests"] == 37
    stand_in.release("full")
    answers = crowd.done()
    assert Counter((answer.status, answer.code) for answer in answers) == {
        (200, ""): 37,
        (429, "quota_in_flight"): 163,
    }
    assert stand_in.served(user)["requests"] == 37
    refused = next(answer for answer in answers if answer.status == 429)
    assert refused.headers["retry-after"] == "2"

    # 18,500 tokens and the rest of before are free now: 37 calls of half the size, and one more
    # whose cap is lowered to what remains.
    half = prompt("@stand-in hold=half usage=10/10")
    half["max_tokens"] = 500 - prompt_tokens(half)
    assert prompt_tokens(half) + 16 <= left_over
    until(lambda: first.shown(user)["open_holds"] == 0, 20, "all 37 calls to be settled")
    crowd = Crowd(three, [(key, half)] * 200)
    stand_in.await_held("half", 38)
    until(lambda: crowd.refused() == 162, 30, "162 refusals while 38 calls are held")
    stand_in.release("half")
    assert Counter(answer.status for answer in crowd.done()) == {200: 38, 429: 162}
    assert stand_in.served(user)["requests"] == 75

    rows = first.ledger_rows(user, 76)  # and the adjustment of the set-up
    assert sum(row["charged_tokens"] for row in rows) == ALLOWANCE - 18_500 - left_over + 38 * 20
    assert {row["overdraft_tokens"] for row in rows} == {0}


def test_500_streams_of_gateways_that_were_killed_are_each_booked_once_within_bounds(
    three: list[RunningGateway],
) -> None:
    first, stand_in = three[0], three[0].stand_in
    users = [first.new_user("full") for _ in range(5)]
    body = prompt("@stand-in write=80 hold=open hold_after=5", stream=True, max_tokens=2000)
    crowd = Crowd(three, [(users[place % 5][1], body) for place in range(500)])
    stand_in.await_held("open", 500)
    until(
        lambda: all(answer.text_tokens == 20 for answer in crowd.answers),
        60,
        "five chunks to reach each of 500 clients",
    )
    for gateway in three[1:]:
        gateway.kill()
    first.kill()  # and with it the stores and the jobs
    answers = crowd.done()
    assert all(answer.text_tokens == 20 for answer in answers)

    first.start()  # one sweeper
    stand_in.release("open")

    async def open_holds(stores: Stores) -> int:
        return sum([await stores.leases.count(shard) for shard in range(stores.leases.shards)])

    until(lambda: first.in_stores(open_holds) == 0, 60, "every hold to have ended")
    for user, _ in users:
        rows = first.ledger_rows(user, 100)
        assert len({row["event_id"] for row in rows}) == 100
        assert {(row["outcome"], row["quality"]) for row in rows} == {("expired", "estimated")}
        delivered = prompt_tokens(body) + 20
        # A prompt that was held by its bytes is booked as a quarter of them.
        most = max(prompt_tokens(body), len(json.dumps(body)) // BYTES_A_TOKEN + 1) + 20
        for row in rows:
            assert delivered <= row["charged_tokens"] <= most + UNSEEN_TOKENS_MAX
        shown = first.shown(user)
        assert (shown["held_tokens"], shown["open_holds"]) == (0, 0)
        assert shown["used_tokens"] == sum(row["charged_tokens"] for row in rows)
