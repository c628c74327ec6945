"""A header that names the user counts from a proven front, and is nothing from anybody else."""

from __future__ import annotations

import http.client
import json
import uuid
from urllib.parse import urlsplit

import pytest

from tests.fakes.issuer import SECRET, said, signed
from tests.gateway.identity_settings import FRONT
from tests.gateway.loopback import Reply
from tests.gateway.running_gateway import RunningGateway, prompt

STRANGER = "127.0.0.2"  # another address of this machine, which is not on the list
UNKNOWN = (401, "invalid_api_key")
PROOF = ("X-Front-Secret", SECRET)


def call(gateway: RunningGateway, *headers: tuple[str, str | bytes], peer: str = FRONT) -> Reply:
    """One chat completion from that address with just these headers, as often as they stand."""
    place = urlsplit(gateway.proxy).netloc
    connection = http.client.HTTPConnection(place, timeout=30, source_address=(peer, 0))
    body = json.dumps(prompt("Hello")).encode()
    try:
        connection.putrequest("POST", "/v1/chat/completions")
        for name, value in (*headers, ("Content-Length", str(len(body)))):
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        named = {name.lower(): value for name, value in answer.getheaders()}
        return Reply(answer.status, named, answer.read())
    finally:
        connection.close()


def bearer(key: str) -> tuple[str, str]:
    return "Authorization", f"Bearer {key}"


@pytest.fixture
def name() -> str:
    """Of a user nobody else knows."""
    return f"user-{uuid.uuid4().hex[:12]}"


def test_a_proven_front_says_who_calls(signed_in: RunningGateway, name: str) -> None:
    reply = call(
        signed_in,
        ("x-user-ID", name),  # names of headers have no case
        ("X-User-Tier", "lite"),
        ("X-User-Email", "ada@example.test"),
        ("x-front-secret", SECRET),
        bearer("what-the-sdk-sends"),
    )
    assert reply.status == 200
    assert reply.headers["x-quota-limit-tokens"] == "1000000"
    last = signed_in.stand_in.last()
    assert last["headers"]["x-quota-user"] == name
    assert SECRET not in json.dumps(last)
    assert not [each for each in last["headers"] if each.startswith(("x-user", "x-front"))]
    (row,) = signed_in.ledger_rows(name)
    assert (row["user_id"], row["tier"]) == (name, "lite")


def test_the_front_goes_before_what_the_caller_shows(signed_in: RunningGateway, name: str) -> None:
    _, key = signed_in.new_user("full")
    for shown in (key, signed(said())):
        assert call(signed_in, PROOF, ("X-User-Id", name), bearer(shown)).status == 200
        assert signed_in.stand_in.last()["headers"]["x-quota-user"] == name


def test_a_front_that_names_nobody_leaves_it_to_the_key(signed_in: RunningGateway) -> None:
    user_id, key = signed_in.new_user()
    assert call(signed_in, PROOF, bearer(key)).status == 200
    assert signed_in.stand_in.last()["headers"]["x-quota-user"] == user_id
    assert call(signed_in, PROOF).code == UNKNOWN


@pytest.mark.parametrize(
    "proof",
    [
        (),
        (("X-Front-Secret", ""),),
        (("X-Front-Secret", SECRET[:-1]),),
        (("X-Front-Secret", SECRET + "x"),),
        (("X-Front-Secret", SECRET.upper()),),
        (("X-Front-Secret", f"{SECRET}, {SECRET}"),),
        (("X_Front_Secret", SECRET),),
        (PROOF, PROOF),
        (PROOF, ("x-front-secret", "other")),
        (("X-Front-Secret", SECRET.encode() + b"\xff"),),
        (("X-Front-Secret", "é".encode()),),
        (("X-Front-Secret", SECRET * 300),),
        (bearer(SECRET),),
    ],
    ids=range(13),
)
def test_without_the_secret_it_is_nothing(
    signed_in: RunningGateway, name: str, proof: tuple[tuple[str, str], ...]
) -> None:
    refused = call(signed_in, bearer("qg_unknown"))
    assert refused.code == UNKNOWN
    reply = call(signed_in, ("X-User-Id", name), *proof)
    assert (reply.status, reply.body) == (refused.status, refused.body)


def test_from_another_address_the_secret_is_not_enough(
    signed_in: RunningGateway, name: str
) -> None:
    shown = (PROOF, ("X-User-Id", name))
    assert call(signed_in, *shown, peer=STRANGER).code == UNKNOWN
    forwarded = (("X-Forwarded-For", FRONT), ("Forwarded", f"for={FRONT}"), ("X-Real-IP", FRONT))
    assert call(signed_in, *shown, *forwarded, peer=STRANGER).code == UNKNOWN
    user_id, key = signed_in.new_user()
    assert call(signed_in, *shown, bearer(key), peer=STRANGER).status == 200
    last = signed_in.stand_in.last()
    assert last["headers"]["x-quota-user"] == user_id  # the key's, and nothing of the header
    assert name not in json.dumps(last)
    people = signed_in.in_stores(lambda stores: stores.directory.users())
    assert name not in {who.user_id for who in people}


WRONG_NAMES = (
    *("", " ", "a b", "a/b", "a,b", "-a", "a" * 129, "a" * 15_000, '"a"', "a;b", "%61"),
    *("é".encode(), b"a\xff", "a\u202eb".encode(), b"a\tb"),
)


@pytest.mark.parametrize("wrong", WRONG_NAMES, ids=range(len(WRONG_NAMES)))
@pytest.mark.parametrize("peer", [FRONT, STRANGER])
def test_a_name_that_is_no_user_s_is_nobody(
    signed_in: RunningGateway, wrong: str | bytes, peer: str
) -> None:
    assert call(signed_in, PROOF, ("X-User-Id", wrong), peer=peer).code == UNKNOWN


SPELLINGS = ("X_User_Id", "X-User_Id", "X_USER_ID", "XUserId", "X-User-Id-", "HTTP_X_USER_ID")


@pytest.mark.parametrize("peer", [FRONT, STRANGER])
def test_no_other_spelling_names_anybody(signed_in: RunningGateway, name: str, peer: str) -> None:
    for spelling in SPELLINGS:
        assert call(signed_in, PROOF, (spelling, name), peer=peer).code == UNKNOWN, spelling
        _, key = signed_in.new_user()
        reply = call(signed_in, PROOF, (spelling, name), bearer(key), peer=peer)
        assert reply.status == 200, spelling
        assert name not in json.dumps(signed_in.stand_in.last())


@pytest.mark.parametrize("peer", [FRONT, STRANGER])
@pytest.mark.parametrize("second", ["X-User-Id", "x-user-id", "X-USER-ID"])
def test_a_doubled_name_is_nobody(
    signed_in: RunningGateway, name: str, peer: str, second: str
) -> None:
    for other in (name, "somebody-else", ""):
        doubled = (("X-User-Id", name), (second, other))
        assert call(signed_in, PROOF, *doubled, peer=peer).code == UNKNOWN


@pytest.mark.parametrize("peer", [FRONT, STRANGER])
@pytest.mark.parametrize("header", ["X-User-Id", "X-Front-Secret", "X_User_Id", "X-User-Tier"])
def test_64_kilobytes_of_it_are_no_request(
    signed_in: RunningGateway, peer: str, header: str
) -> None:
    reply = call(signed_in, (header, "a" * 65_536), peer=peer)
    assert reply.code == (400, "invalid_http")


def test_what_a_front_says_of_a_tier_or_address_and_cannot_mean_is_passed_over(
    signed_in: RunningGateway, name: str
) -> None:
    wrong = (
        (("X-User-Tier", "platinum"),),
        (("X-User-Tier", ""), ("X-User-Email", "")),
        (("X-User-Tier", "lite"), ("X-User-Tier", "full")),
        (("X-User-Tier", b"\xff"), ("X-User-Email", b"\xff@\xff")),
        (("X-User-Email", "a" * 10_000 + "@example.test"),),
        (("X-User-Email", "a@b c"),),
    )
    for said_too in wrong:
        reply = call(signed_in, PROOF, ("X-User-Id", name), *said_too)
        assert reply.status == 200, (said_too, reply)
        assert reply.headers["x-quota-limit-tokens"] == "100000"
    identity = signed_in.in_stores(lambda stores: stores.directory.identity_of_user(name))
    assert identity is not None
    assert identity.email is None


def test_the_front_decides_about_tiers_with_every_call(
    signed_in: RunningGateway, name: str
) -> None:
    said_too = (PROOF, ("X-User-Id", name), ("X-User-Tier", "lite"))
    assert call(signed_in, *said_too).headers["x-quota-limit-tokens"] == "1000000"
    signed_in.cli("user", "set-tier", name, "full")
    without = call(signed_in, PROOF, ("X-User-Id", name))
    assert without.headers["x-quota-limit-tokens"] == "1602000"
    assert call(signed_in, *said_too).headers["x-quota-limit-tokens"] == "1000000"
