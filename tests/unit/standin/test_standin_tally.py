"""What /stand-in tells of the calls that were served."""

from __future__ import annotations

import json

from tests.unit.standin.standin_client import Client, body, prompt_of


async def test_requests_and_tokens_are_counted_by_user(client: Client) -> None:
    order = "hi\n@stand-in write=5"
    await client.chat(body(order), x_quota_user="ann")
    await client.chunks(body(order), x_quota_user="ann")
    await client.chat({**body(), "user": "bob"})
    await client.chat({**body(), "safety_identifier": "cid", "user": "bob"})
    await client.chat(body())
    one = {"requests": 1, "prompt_tokens": prompt_of("hi"), "completion_tokens": 12}
    assert await client.ask("served?calls=0") == {
        "requests": 5,
        "prompt_tokens": 2 * prompt_of(order) + 3 * prompt_of("hi"),
        "completion_tokens": 2 * 5 + 3 * 12,
        "users": {
            "ann": {
                "requests": 2,
                "prompt_tokens": 2 * prompt_of(order),
                "completion_tokens": 10,
            },
            "bob": one,
            "cid": one,
            "anonymous": one,
        },
    }


async def test_a_call_is_found_by_the_id_its_client_gave(client: Client) -> None:
    await client.chat(body(), x_client_request_id="rid-1", x_quota_user="ann")
    assert await client.call("rid-1") == {
        "user": "ann",
        "prompt_tokens": prompt_of("hi"),
        "completion_tokens": 12,
        "status": 200,
        "finished": True,
        "reported": True,
        "seen": 1,
    }


async def test_a_call_without_an_id_is_found_by_the_answers(client: Client) -> None:
    async with client.post(body()) as response:
        own_id = response.headers["x-request-id"]
        await response.read()
    assert (await client.ended(own_id))["finished"]


async def test_an_id_that_comes_twice_is_seen_twice(client: Client) -> None:
    for _ in range(2):
        await client.chat(body(), x_client_request_id="rid-1")
    call = await client.ended("rid-1")
    assert (call["seen"], call["completion_tokens"]) == (2, 24)


async def test_what_usage_reported_counts_true_or_not(client: Client) -> None:
    lie = "hi\n@stand-in usage=900/80"
    await client.chat(body(lie), x_client_request_id="whole")
    asked = body(lie, stream_options={"include_usage": True})
    await client.chunks(asked, x_client_request_id="stream")
    for request_id in ("whole", "stream"):
        call = await client.ended(request_id)
        assert (call["prompt_tokens"], call["completion_tokens"]) == (900, 80)
        assert call["reported"]


async def test_without_a_usable_report_the_wire_counts(client: Client) -> None:
    lie, none, text = (f"hi\n@stand-in usage={word}" for word in ("900/80", "none", "text"))
    await client.chunks(body(lie), x_client_request_id="0")
    await client.chat(body(none), x_client_request_id="1")
    await client.chat(body(text), x_client_request_id="2")
    for number, order in enumerate((lie, none, text)):
        call = await client.ended(str(number))
        assert (call["prompt_tokens"], call["completion_tokens"]) == (prompt_of(order), 12)
        assert call["finished"]
        assert not call["reported"]


async def test_a_refused_call_counts_as_a_request_without_tokens(client: Client) -> None:
    await client.refused(body("@stand-in status=500"), x_client_request_id="failed")
    await client.refused({}, x_client_request_id="bad")
    assert (await client.ended("failed"))["status"] == 500
    assert (await client.ended("bad"))["status"] == 400
    served = await client.ask("served?calls=0")
    assert (served["requests"], served["prompt_tokens"]) == (2, 0)


async def test_a_reset_forgets_everything(client: Client) -> None:
    await client.chat(body(), x_client_request_id="rid-1")
    await client.ask("reset", "POST")
    assert await client.ask("served") == {
        "requests": 0,
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "users": {},
        "calls": {},
    }
    assert await client.ask("last") is None


async def test_the_last_request_is_shown_as_it_came(client: Client) -> None:
    assert await client.ask("last") is None
    sent = body(temperature=0.5)
    await client.chat(sent, Authorization="Bearer sk-secret", X_Quota_User="ann")
    last = await client.ask("last")
    assert (last["method"], last["path"]) == ("POST", "/v1/chat/completions")
    assert last["headers"]["authorization"] == "Bearer sk-secret"
    assert last["headers"]["x-quota-user"] == "ann"
    assert last["body"] == sent


async def test_the_last_request_may_be_one_that_is_not_served(client: Client) -> None:
    async with client.session.post(f"{client.url}/files?a=b", data=b"no json") as response:
        assert response.status == 404
    last = await client.ask("last")
    assert (last["path"], last["body"]) == ("/v1/files?a=b", "no json")


async def test_a_tally_is_plain_json(client: Client) -> None:
    await client.chat(body(), x_quota_user='a "quoted" user')
    async with client.session.get(client.url.replace("/v1", "/stand-in/served")) as response:
        assert response.content_type == "application/json"
        assert 'a "quoted" user' in json.loads(await response.read())["users"]
