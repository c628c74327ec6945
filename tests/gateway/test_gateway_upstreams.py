"""Several upstreams at once, each in its own dialect: what is held is what they are told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest

from tests.gateway.running_gateway import MODEL, RunningGateway, prompt, running_gateway
from tests.gateway.standin_process import UPSTREAM_KEY, StandInProcess

HELLO = "Hello! Your words arrived, and here is an answer."
AZURE, AZURE_V1, LOCAL = "gpt-on-azure", "gpt-on-azure-v1", "llama-5-8b"


@pytest.fixture(scope="module")
def local_server() -> Iterator[StandInProcess]:
    """A server as llama.cpp and Ollama are: it knows neither stream_options nor the newer cap."""
    process = StandInProcess("--compatible")
    yield process
    process.stop()


@pytest.fixture(scope="module")
def several(
    other_stand_in: StandInProcess, local_server: StandInProcess
) -> Iterator[RunningGateway]:
    resource = "http://" + urlsplit(other_stand_in.url).netloc
    azure = {"api_key": UPSTREAM_KEY, "auth": "api-key"}
    terms = {
        "tokenizer": "o200k_base",
        "context_tokens": 128_000,
        "output_tokens_max": 16_384,
        "output_tokens_default": 4096,
    }
    changes: dict[str, Any] = {
        "upstreams": {
            "azure": {**azure, "base_url": resource, "api_version": "2024-10-21"},
            "azure_v1": {**azure, "base_url": f"{resource}/openai/v1"},
            "local": {
                "base_url": local_server.url,
                "api_key": UPSTREAM_KEY,
                "stream_usage": False,
                "output_cap": "max_tokens",
                "store": False,
            },
        },
        "models": {
            AZURE: {**terms, "upstream": "azure", "upstream_model": "my-deployment"},
            AZURE_V1: {**terms, "upstream": "azure_v1"},
            "llama-*": {**terms, "upstream": "local"},
        },
    }
    with running_gateway(other_stand_in, changes) as running:
        yield running


def client_of(gateway: RunningGateway, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gateway.proxy}/v1", api_key=key, max_retries=0)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("model", "path"),
    [
        (AZURE, "POST /openai/deployments/my-deployment/chat/completions"),
        (AZURE_V1, "POST /openai/v1/chat/completions"),
        (MODEL, "POST /v1/chat/completions"),
    ],
)
def test_azure_in_both_forms_beside_openai(
    several: RunningGateway, model: str, path: str, stream: bool
) -> None:
    user, key = several.new_user("lite")
    before = several.stand_in.paths().get(path, {"requests": 0})["requests"]
    reply = several.chat(key, prompt("Hello", model=model, stream=stream))
    assert reply.status == 200
    assert HELLO.split()[0] in reply.text
    (row,) = several.ledger_rows(user)
    assert (row["model"], row["quality"], row["output_tokens"]) == (model, "measured", 12)
    assert several.stand_in.paths()[path]["requests"] == before + 1
    last = several.stand_in.last()["headers"]
    name = "authorization" if model == MODEL else "api-key"
    assert {"authorization", "api-key"} & set(last) == {name}
    assert last[name].endswith(UPSTREAM_KEY)


@pytest.mark.parametrize("stream", [False, True])
def test_a_server_that_counts_nothing_is_counted_here_and_obeys_its_own_cap(
    several: RunningGateway, local_server: StandInProcess, stream: bool
) -> None:
    user, key = several.new_user("lite")
    asked = prompt("@stand-in write=500", model=LOCAL, stream=stream, max_completion_tokens=40)
    reply = several.chat(key, asked)
    assert reply.status == 200, reply
    sent = local_server.last()["body"]
    assert sent["max_tokens"] == 40
    assert not {"max_completion_tokens", "stream_options", "store"} & set(sent)
    assert sent["model"] == LOCAL
    (row,) = several.ledger_rows(user)
    assert (row["model"], row["output_tokens"]) == ("llama-*", 40)
    assert row["quality"] == ("estimated" if stream else "measured")
    assert row["overdraft_tokens"] == 0
    if stream:
        assert ": PROCESSING" in reply.text, "comments pass"


def test_the_sdk_lists_and_calls_them_all(several: RunningGateway) -> None:
    user, key = several.new_user("lite")
    client = client_of(several, key)
    names = {model.id for model in client.models.list()}
    assert {AZURE, AZURE_V1, MODEL} <= names
    assert not [name for name in names if "*" in name]
    assert client.models.retrieve(LOCAL).owned_by == "local"
    for model in (AZURE, AZURE_V1, MODEL, LOCAL):
        answer = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "Hello"}]
        )
        assert answer.choices[0].message.content == HELLO
    assert len(several.ledger_rows(user, 4)) == 4
