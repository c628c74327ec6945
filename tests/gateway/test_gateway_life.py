"""Start, end and sudden death: nothing is lost, nothing is charged twice, nothing keeps running."""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import NoReturn
from urllib.parse import urlsplit

import openai
import pytest
import redis
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

from gateway.adapters.embedded import postgres_url, redis_url
from gateway.adapters.redis_store.scripts import load_scripts, lua_folder
from tests.gateway.loopback import Reply, ask
from tests.gateway.running_gateway import MODEL, MakeGateway, RunningGateway, processes_of, prompt
from tests.gateway.waiting_for import until

_UNSEEN_TOKENS_MAX = 512  # what a stream may have grown by since its last heartbeat
QUICK_LEASE = {"ms": 2000, "grace_ms": 500, "heartbeat_ms": 200}


@contextmanager
def streaming(
    gateway: RunningGateway, key: str, words: str
) -> Iterator[Iterator[ChatCompletionChunk]]:
    with ExitStack() as stack:
        client = openai.OpenAI(base_url=f"{gateway.proxy}/v1", api_key=key, max_retries=0)
        completions = stack.enter_context(client).chat.completions
        messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": words}]
        stream = completions.create(model=MODEL, messages=messages, stream=True)
        yield iter(stack.enter_context(stream))


def read_texts(stream: Iterator[ChatCompletionChunk], chunks: int) -> int:
    """Read so many chunks with text; the tokens they carried."""
    found = 0
    while found < chunks:
        found += bool(next(stream).choices[0].delta.content)
    return 4 * found


def is_gone(gateway: RunningGateway, pid: int) -> bool:
    return pid not in processes_of(gateway.place)


def answers(gateway: RunningGateway, key: str) -> Reply | None:
    try:
        reply = gateway.chat(key, "Hello")
    except OSError:
        return None
    return reply if reply.status == 200 else None


def test_sigterm_finishes_what_runs_books_it_and_ends_well(make_gateway: MakeGateway) -> None:
    gateway = make_gateway().start()
    user, key = gateway.new_user()
    words = "@stand-in write=80 hold=term hold_after=2"
    connection = http.client.HTTPConnection(urlsplit(gateway.proxy).netloc, timeout=20)

    def on_kept_connection() -> tuple[int, bytes]:
        connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {key}"})
        response = connection.getresponse()
        return response.status, response.read()

    with closing(connection), streaming(gateway, key, words) as stream:
        assert on_kept_connection()[0] == 200
        read_texts(stream, 2)
        gateway.stand_in.await_held("term")
        os.kill(gateway.pid, signal.SIGTERM)

        def refused() -> bytes:
            status, body = on_kept_connection()
            return body if status == 503 else b""

        assert b"shutting_down" in until(refused, 10, "new calls to be refused")
        gateway.stand_in.release("term")
        rest = list(stream)
    assert rest[-1].choices[0].finish_reason == "stop"
    gateway.stop()
    exported = gateway.command("ledger", "export", "--format", "ndjson", "--user", user)
    row = json.loads(exported.stdout)
    assert (row["outcome"], row["quality"], row["output_tokens"]) == ("done", "measured", 80)
    gateway.nothing_runs()


def test_what_was_open_at_a_sudden_death_is_booked_once_within_its_bounds(
    make_gateway: MakeGateway,
) -> None:
    gateway = make_gateway(lease=QUICK_LEASE)
    gateway.stand_in.reset()
    gateway.start()
    user, key = gateway.new_user("lite", 1000)
    settled = int(gateway.chat(key, "Before").headers["x-quota-charged-tokens"])
    calls = ("@stand-in write=4000 hold=dies hold_after=3", "@stand-in write=4000 hold=dies")
    with ThreadPoolExecutor(1) as pool, streaming(gateway, key, calls[0]) as first:
        whole = pool.submit(gateway.chat, key, calls[1])
        with streaming(gateway, key, calls[0].replace("=3", "=50")) as second:
            delivered = [read_texts(first, 3), read_texts(second, 50)]
            gateway.stand_in.await_held("dies", 3)
            assert gateway.shown(user)["open_holds"] == 3
            gateway.kill()
            for stream in (first, second):
                with pytest.raises(openai.APIConnectionError):
                    list(stream)
        assert isinstance(whole.exception(), OSError | http.client.HTTPException)

    gateway.start()
    rows = gateway.ledger_rows(user, 5)[2:]
    streams = [row for row in rows if row["stream"]]
    for row, tokens in zip(streams, delivered, strict=True):
        assert (row["outcome"], row["quality"]) == ("expired", "estimated")
        assert row["charged_tokens"] == row["prompt_tokens"] + row["output_tokens"]
        assert tokens <= row["output_tokens"] <= tokens + _UNSEEN_TOKENS_MAX
    (unanswered,) = [row for row in rows if not row["stream"]]
    assert (unanswered["outcome"], unanswered["charged_tokens"]) == ("unknown_upstream", 0)
    shown = gateway.shown(user)
    assert (shown["open_holds"], shown["held_tokens"]) == (0, 0)
    assert shown["used_tokens"] == 1000 + settled + sum(row["charged_tokens"] for row in rows)
    assert gateway.metric("hold_endings_total", kind="expired") == 3
    verdict = gateway.cli("ledger", "verify", "--upstream", gateway.stand_in.url)
    (line,) = [line for line in verdict["lines"] if line["user"] == user]
    assert verdict["agrees"]
    assert (line["redis_off"], line["upstream_off"], line["unmeasured_calls"]) == (0, 0, 3)
    assert gateway.chat(key, "After").status == 200


def test_a_child_that_dies_is_replaced_where_it_was(make_gateway: MakeGateway) -> None:
    gateway = make_gateway().start()
    user, key = gateway.new_user()
    assert gateway.chat(key, "Hello").status == 200
    for kind in ("proxy-1", "jobs"):
        before = gateway.child(kind)
        os.kill(before, signal.SIGKILL)
        until(partial(is_gone, gateway, before), 10, f"{kind} to end")
    until(lambda: answers(gateway, key), 30, "calls to be answered again")
    until(lambda: ask(f"{gateway.ops}/readyz").status == 200, 30, "all to be ready again")
    assert gateway.shown(user)["used_tokens"] > 0
    served = gateway.stand_in.served(user)
    gateway.ledger_rows(user, served["requests"])
    log = gateway.stderr.read_text()
    assert "the proxy-1 process ended with code -9 and is started again" in log
    assert "the jobs process ended with code -9 and is started again" in log


def test_redis_has_every_script_before_the_first_call(make_gateway: MakeGateway) -> None:
    gateway = make_gateway().start()
    shas = [script.sha for script in load_scripts(lua_folder()).values()]
    with redis.Redis.from_url(redis_url(gateway.state_dir)) as client:
        assert client.script_exists(*shas) == [True] * len(shas)


def test_a_second_gateway_on_the_same_state_says_who_has_it(gateway: RunningGateway) -> None:
    second = gateway.command("serve")
    assert second.returncode == 1
    assert f"is in use by the process {gateway.pid}" in second.stderr
    assert "state_dir" in second.stderr
    assert "Traceback" not in second.stderr
    assert ask(f"{gateway.ops}/readyz").status == 200


@pytest.mark.parametrize("server", ["proxy", "ops", "admin"])
def test_a_port_in_use_is_one_clear_line_and_leaves_nothing_running(
    gateway: RunningGateway, make_gateway: MakeGateway, server: str
) -> None:
    taken = urlsplit(getattr(gateway, server)).netloc
    late = make_gateway(
        listen={server: taken},
        redis={"url": redis_url(gateway.state_dir)},
        ledger={"url": postgres_url(gateway.state_dir)},
        identity={"keys": {"pepper": "not-the-pepper-of-the-other"}},
    )
    said = late.command("serve")
    assert said.returncode == 1
    assert f"quota-gateway: cannot listen on {taken}: " in said.stderr
    assert "in use" in said.stderr
    assert "Traceback" not in said.stderr
    late.nothing_runs()


def test_a_store_that_dies_ends_the_gateway_with_its_name(make_gateway: MakeGateway) -> None:
    gateway = make_gateway().start()
    stores = [pid for pid, said in processes_of(gateway.place).items() if "redis" in said]
    os.kill(stores[0], signal.SIGKILL)
    assert gateway.ended() == 1
    gateway.nothing_runs()
    log = gateway.stderr.read_text()
    told = r"^quota-gateway: the embedded (redis|valkey) .+ ended by itself: see .+/redis/log$"
    assert re.search(told, log, re.MULTILINE)


def test_the_demo_shows_a_line_that_works_as_pasted_and_its_keys_last(
    make_gateway: MakeGateway, missing: Callable[[str], NoReturn]
) -> None:
    gateway = make_gateway()
    gateway.has_ready_made_ledger = False
    seen = []
    for _ in range(2):
        gateway.start("--demo", "--stand-in")
        text = until(gateway.whole_screen, 20, "the whole screen")
        assert {"demo-free", "demo-lite", "demo-full"} <= set(text.split())
        (line,) = [line.strip() for line in text.splitlines() if line.strip().startswith("curl ")]
        pasted = subprocess.run(
            ["sh", "-c", f"{line} -s"], capture_output=True, text=True, timeout=20
        )
        if pasted.returncode == 127:
            missing("curl is not installed")
        head, _, body = pasted.stdout.partition("\n\n")
        assert " 200 OK" in head.splitlines()[0]
        assert json.loads(body)["object"] == "chat.completion"
        remaining = [ln for ln in head.splitlines() if ln.startswith("x-quota-remaining-tokens")]
        seen.append((shlex.split(line)[4], int(remaining[0].split()[1])))
        gateway.stop()
    (key, first), (same_key, second) = seen
    assert key == same_key
    assert 100_000 > first > second


def test_a_revoked_key_is_refused_at_the_very_next_call(gateway: RunningGateway) -> None:
    user, other = gateway.new_user()
    made = gateway.cli("key", "create", user)
    assert gateway.chat(made["key"], "Hello").status == 200
    assert gateway.cli("key", "revoke", made["key_id"])["revoked"] is True
    assert gateway.chat(made["key"], "Hello").code == (401, "invalid_api_key")
    assert gateway.chat(made["key"], prompt("Hello", stream=True)).status == 401
    assert gateway.chat(other, "Hello").status == 200
    assert gateway.stand_in.served(user)["requests"] == 2


def test_a_revoked_key_lists_no_models_any_more(gateway: RunningGateway) -> None:
    user, _ = gateway.new_user()
    made = gateway.cli("key", "create", user)
    bearer = {"Authorization": f"Bearer {made['key']}"}
    listed = ask(f"{gateway.proxy}/v1/models", "GET", None, bearer)
    assert "gpt-4o-mini" in [model["id"] for model in listed.json["data"]]
    gateway.cli("key", "revoke", made["key_id"])
    assert ask(f"{gateway.proxy}/v1/models", "GET", None, bearer).code == (401, "invalid_api_key")


def test_a_new_tier_holds_at_the_very_next_call_and_what_is_used_stays_used(
    gateway: RunningGateway,
) -> None:
    user, key = gateway.new_user("free", 100_000)
    assert gateway.chat(key, "Hello").status == 429
    assert gateway.cli("user", "set-tier", user, "lite")["limit_tokens"] == 1_000_000
    upgraded = gateway.chat(key, "Hello")
    assert upgraded.status == 200
    assert upgraded.headers["x-quota-limit-tokens"] == "1000000"
    used = 100_000 + int(upgraded.headers["x-quota-charged-tokens"])
    assert gateway.cli("user", "set-tier", user, "free")["used_tokens"] == used
    refused = gateway.chat(key, "Hello")
    assert refused.code == (429, "insufficient_quota")
    assert refused.error["quota"]["used_tokens"] == used
    assert refused.headers["x-quota-remaining-tokens"] == "0"
    assert [row["tier"] for row in gateway.ledger_rows(user, 2)] == ["free", "lite"]
