"""The acceptance story: a quota counts down, refuses, is set back, and admits again.

Told with the commands and the HTTP that a user of this product has, and checked in the ledger.
"""

from __future__ import annotations

import getpass
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from tests.gateway.loopback import Reply
from tests.gateway.running_gateway import RunningGateway

LIMIT, NEARLY = 100_000, 99_500
PROMPT = "How many are left?\n@stand-in write=150"


def next_reset(now: datetime) -> datetime:
    """The first of next month, UTC."""
    year, month = divmod(now.year * 12 + now.month, 12)
    return datetime(year, month + 1, 1, tzinfo=UTC)


def calls_until_refused(gateway: RunningGateway, key: str) -> tuple[list[Reply], Reply]:
    admitted: list[Reply] = []
    while (reply := gateway.chat(key, PROMPT)).status == 200:
        admitted.append(reply)
        assert len(admitted) <= 10, "500 tokens do not last for so many calls"
    return admitted, reply


def check_refusal(refusal: Reply, used: int, prompt_tokens: int) -> None:
    """The refusal of a month that is used up, word for word."""
    now = parsedate_to_datetime(refusal.headers["date"])
    reset = next_reset(now)
    assert refusal.json == {
        "error": {
            "message": (
                f"You have used {used:,} of your 100,000 tokens this month (tier 'free'), and "
                f"this request needs at least {prompt_tokens + 16}. Your quota starts again on "
                f"{reset:%-d %B %Y} at 00:00 UTC. To go on now, upgrade to the tier 'lite'."
            ),
            "type": "insufficient_quota",
            "param": None,
            "code": "insufficient_quota",
            "quota": {
                "limit": "month",
                "tier": "free",
                "limit_tokens": LIMIT,
                "used_tokens": used,
                "held_tokens": 0,
                "pack_tokens": 0,
                "needed_tokens": prompt_tokens + 16,
                "reset_at": f"{reset:%Y-%m-%dT%H:%M:%SZ}",
                "upgrade": {"tier": "lite", "url": None},
                "topup": None,
            },
        }
    }
    headers = refusal.headers
    assert refusal.status == 429
    assert headers["x-should-retry"] == "false"
    assert abs(int(headers["retry-after"]) - (reset - now).total_seconds()) <= 2
    assert headers["x-quota-decision"] == "refused"
    assert headers["x-quota-source"] == "gateway"
    assert headers["x-quota-limit-tokens"] == str(LIMIT)
    assert headers["x-quota-remaining-tokens"] == str(LIMIT - used)
    assert headers["x-quota-held-tokens"] == "0"
    assert headers["x-quota-reset"] == f"{reset:%Y-%m-%dT%H:%M:%SZ}"
    assert headers["x-quota-warning"] == ("100" if used >= LIMIT else "95")


def test_a_free_user_is_refused_at_the_limit_and_admitted_after_a_reset(
    gateway: RunningGateway,
) -> None:
    user = f"story-{uuid.uuid4().hex[:8]}"
    created = gateway.cli("user", "create", user, "--tier", "free")
    assert (created["user"], created["tier"]) == (user, "free")
    key = gateway.cli("key", "create", user)["key"]
    nearly = gateway.cli("user", "set-used", user, str(NEARLY), "--reason", "acceptance: nearly")
    assert (nearly["used_tokens"], nearly["remaining_tokens"]) == (NEARLY, 500)

    admitted, refusal = calls_until_refused(gateway, key)
    assert admitted
    used = NEARLY
    for reply in admitted:
        charged = reply.json["usage"]["total_tokens"]
        used += charged
        assert reply.headers["x-quota-charged-tokens"] == str(charged)
        assert reply.headers["x-quota-remaining-tokens"] == str(LIMIT - used)
        assert reply.headers["x-quota-decision"] == "admitted"
    prompt_tokens = admitted[0].json["usage"]["prompt_tokens"]
    assert LIMIT - used < prompt_tokens + 16
    check_refusal(refusal, used, prompt_tokens)
    served = gateway.stand_in.served(user)
    assert served["requests"] == len(admitted)
    assert served["prompt_tokens"] + served["completion_tokens"] == used - NEARLY

    back = gateway.cli("user", "set-used", user, "0", "--reason", "acceptance: set back")
    assert (back["used_tokens"], back["remaining_tokens"]) == (0, LIMIT)
    again = gateway.chat(key, PROMPT)
    assert again.status == 200
    charged = again.json["usage"]["total_tokens"]
    assert again.headers["x-quota-remaining-tokens"] == str(LIMIT - charged)

    rows = gateway.ledger_rows(user, len(admitted) + 3)
    author = f"cli:{getpass.getuser()}"
    steps = [(r["kind"], r["charged_tokens"], r["reason"], r["author"]) for r in rows]
    assert steps == [
        ("adjustment", NEARLY, "acceptance: nearly", author),
        *(("usage", int(r.headers["x-quota-charged-tokens"]), None, None) for r in admitted),
        ("adjustment", -used, "acceptance: set back", author),
        ("usage", charged, None, None),
    ]
    ids = [row["event_id"] for row in rows if row["kind"] == "usage"]
    assert ids == [reply.headers["x-request-id"] for reply in [*admitted, again]]
    assert gateway.shown(user)["used_tokens"] == charged


def test_a_refusal_names_the_address_of_the_upgrade_where_there_is_one(
    impatient: RunningGateway,
) -> None:
    _, key = impatient.new_user("free", 100_000)
    error = impatient.chat(key, "One more?").error
    assert error["quota"]["upgrade"] == {"tier": "lite", "url": "https://example.test/upgrade"}
    assert "at https://example.test/upgrade." in error["message"]


def test_a_refusal_on_the_highest_tier_names_the_pack_to_buy(gateway: RunningGateway) -> None:
    _, key = gateway.new_user("full", 1_602_000)
    error = gateway.chat(key, "One more?").error
    assert error["quota"]["upgrade"] is None
    assert error["quota"]["topup"] == {"tokens": 320_000, "price_gbp": "2.00", "url": None}
    assert "buy a pack of 320,000 tokens for £2.00" in error["message"]


def test_a_call_that_fits_once_others_end_is_told_to_wait_and_then_admitted(
    gateway: RunningGateway,
) -> None:
    user, key = gateway.new_user("free", 99_900)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(gateway.chat, key, "Go first.\n@stand-in hold=in_flight")
        gateway.stand_in.await_held("in_flight")
        second = gateway.chat(key, "And me?")
        gateway.stand_in.release("in_flight")
        assert first.result().status == 200
    assert second.code == (429, "quota_in_flight")
    assert second.error["type"] == "tokens"
    assert second.headers["retry-after"] == "2"
    assert "x-should-retry" not in second.headers
    assert second.error["quota"]["held_tokens"] == 100
    assert gateway.chat(key, "And me?").status == 200
    assert gateway.stand_in.served(user)["requests"] == 2
