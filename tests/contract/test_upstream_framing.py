"""Where an answer ends, and that nothing behind its end reaches another call."""

from __future__ import annotations

import pytest

from gateway.adapters.upstream.direct import DirectUpstream
from gateway.ports.upstream import UpstreamBroke
from tests.contract.upstream_calls import OpenTo, asked, direct, idle, until
from tests.contract.upstream_samples import BAD_CHUNKS, BAD_HEADS, GOOD, JUNK
from tests.contract.upstream_server import Reply, http, serving

# What aiohttp's parser of answers takes although it should not (3.14.5), and so the session adapter
# too. Nobody but the configured upstream or its proxy can send it.
TAKEN_BY_AIOHTTP = {
    *("an empty line first", "HTTP/2", "HTTP/0.9", "1xx without end", "a coding we do not know"),
    *("chunks within gzip", "gzip within chunks", "chunks twice", "a name that is nearly chunked"),
    *("a folded line", "a folded length", "a bare line feed", "bare line feeds only"),
    *("nul in the reason", "a control in a value", "less than the size", "a folded trailer"),
    "a bare line feed in an extension",
}


async def test_good_answers_are_read_and_connections_kept_where_they_may_be(
    open_to: OpenTo,
) -> None:
    for name, answer in GOOD.items():
        first = Reply(answer.raw, "close" if answer.ends else "keep")
        async with (
            serving(first, http(b"next")).running() as server,
            open_to(server.url) as upstream,
        ):
            head, body = await asked(upstream)
            assert (head.status, body) == (answer.status, answer.body), name
            assert (await asked(upstream))[1] == b"next", name
            if isinstance(upstream, DirectUpstream):
                assert server.connections == (1 if answer.is_reusable else 2), name


async def test_bad_answers_end_the_call_and_the_connection(open_to: OpenTo) -> None:
    for name, raw in (BAD_HEADS | BAD_CHUNKS).items():
        async with serving(raw, http(b"next")).running() as server, open_to(server.url) as upstream:
            if name in TAKEN_BY_AIOHTTP and not isinstance(upstream, DirectUpstream):
                continue
            with pytest.raises(UpstreamBroke):
                await asked(upstream)
            assert (await asked(upstream))[1] == b"next", name
            if isinstance(upstream, DirectUpstream):
                assert server.connections == 2, name


async def test_what_follows_an_answer_reaches_no_other_call() -> None:
    for name, junk in JUNK.items():
        for first in ("length", "chunks", "no chunk", "100"):
            raw = GOOD[first].raw + junk
            async with (
                serving(raw, http(b"next")).running() as server,
                direct(server.url) as upstream,
            ):
                assert (await asked(upstream))[1] == GOOD[first].body, name
                assert (await asked(upstream))[1] == b"next", name
                assert server.connections == 2, name


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK.keys())
async def test_what_comes_while_nobody_asks_closes_the_connection(junk: bytes) -> None:
    replies = (http(b"1"), http(b"2"))
    async with (
        serving(*replies).running() as server,
        direct(server.url) as upstream,
    ):
        assert (await asked(upstream))[1] == b"1"
        assert idle(upstream) == 1
        server.writers[0].write(junk)
        await until(lambda: idle(upstream) == 0)
        assert (await asked(upstream))[1] == b"2"
    assert server.connections == 2


async def test_a_body_without_a_length_ends_with_its_connection_but_not_by_a_reset() -> None:
    cut = Reply(GOOD["to the end"].raw, "reset")
    async with (
        serving(cut).running() as server,
        direct(server.url) as upstream,
    ):
        with pytest.raises(UpstreamBroke):
            await asked(upstream)
