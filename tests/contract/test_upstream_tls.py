"""TLS to an upstream: whom it trusts, and what the end of a connection means."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from gateway.adapters.upstream.dialing import verified_tls
from gateway.ports.upstream import UpstreamBroke, UpstreamUnreachable
from tests.contract.upstream_calls import (
    OpenTo,
    asked,
    direct,
    only_connection,
    send,
    trouble,
    until,
)
from tests.contract.upstream_server import Reply, Then, bare, chunked, http, serving
from tests.fakes.upstream import chunks

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the keys")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate of its own for 127.0.0.1, in one file."""
    folder = tmp_path_factory.mktemp("tls")
    made = folder / "both.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=upstream"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")),
        ],
        check=True,
        capture_output=True,
    )
    made.write_text((folder / "key.pem").read_text() + (folder / "certificate.pem").read_text())
    return made


@pytest.fixture
def server_tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


@pytest.fixture
def is_trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))


async def test_a_trusted_upstream_is_spoken_to_in_http_1(
    server_tls: ssl.SSLContext, is_trusted: None
) -> None:
    async with (
        serving(http(b"1"), http(b"2")).running(server_tls) as server,
        direct(server.url) as upstream,
    ):
        assert (await asked(upstream))[1] == b"1"
        assert (await asked(upstream))[1] == b"2"
        tls = server.writers[0].get_extra_info("ssl_object")
        assert tls.selected_alpn_protocol() == "http/1.1"
    assert server.connections == 1


async def test_a_large_exchange_comes_through(server_tls: ssl.SSLContext, is_trusted: None) -> None:
    large = bytes(range(256)) * 2**13
    async with (
        serving(http(large), http()).running(server_tls) as server,
        direct(server.url) as upstream,
    ):
        answer = await send(upstream, large)
        await until(lambda: only_connection(upstream)._is_paused)
        assert b"".join([data async for data in chunks(answer)]) == large
        assert (await asked(upstream))[1] == b"{}"
    assert server.requests[0][1] == large
    assert server.connections == 1


async def test_an_upstream_that_nobody_vouches_for_sees_nothing_of_a_request(
    server_tls: ssl.SSLContext, open_to: OpenTo
) -> None:
    async with serving().running(server_tls) as server:
        assert isinstance(await trouble(open_to, server.url), UpstreamUnreachable)
    assert server.requests == []


async def test_a_certificate_of_another_name_is_refused(
    server_tls: ssl.SSLContext, is_trusted: None, open_to: OpenTo
) -> None:
    async with serving().running(server_tls) as server:
        error = await trouble(open_to, server.url.replace("127.0.0.1", "localhost"))
    assert isinstance(error, UpstreamUnreachable)
    assert server.requests == []


def test_certificates_and_names_are_verified() -> None:
    context = verified_tls()
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname


async def test_a_body_without_a_length_has_to_be_ended_in_the_words_of_tls(
    server_tls: ssl.SSLContext, is_trusted: None
) -> None:
    raw = bare() + b"all of it"
    replies = (Reply(raw, "close"), Reply(raw, "abort"))
    async with (
        serving(*replies).running(server_tls) as server,
        direct(server.url) as upstream,
    ):
        assert (await asked(upstream))[1] == b"all of it"
        with pytest.raises(UpstreamBroke):
            await asked(upstream)


@pytest.mark.parametrize("then", ["close", "abort"])
async def test_a_stream_that_ends_early_broke(
    server_tls: ssl.SSLContext, is_trusted: None, then: Then
) -> None:
    half = Reply(chunked(b"data: 1\n\n"), then)
    async with (
        serving(half).running(server_tls) as server,
        direct(server.url) as upstream,
    ):
        answer = await send(upstream)
        with pytest.raises(UpstreamBroke):
            await answer.read()
        await until(lambda: not upstream.wheel.watched)


# --- addresses ---------------------------------------------------------------------------------


async def test_ipv6_is_spoken(open_to: OpenTo) -> None:
    if not has_ipv6():
        pytest.skip("this machine has no ::1")
    async with (
        serving(http()).running(host="::1") as server,
        open_to(server.url) as upstream,
    ):
        await asked(upstream)
    assert f"\r\nHost: {server.url.split('/')[2]}\r\n".encode() in server.requests[0][0]


async def test_a_name_leads_to_whichever_of_its_addresses_answers(open_to: OpenTo) -> None:
    async with (
        serving(http()).running() as server,
        open_to(server.url.replace("127.0.0.1", "localhost")) as upstream,
    ):
        assert (await asked(upstream))[1] == b"{}"


def has_ipv6() -> bool:
    with socket.socket(socket.AF_INET6) as tried:
        try:
            tried.bind(("::1", 0))
        except OSError:
            return False
    return True
