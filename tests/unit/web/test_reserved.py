"""A reserved port: shared by those who may, refused to everybody else."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from gateway.web.reserved import AddressTaken, reserved, url_of

HOST = "127.0.0.1"


def listening(port: int, *, shared: bool) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
    try:
        listener.bind((HOST, port))
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def test_a_second_reservation_is_refused_before_anybody_listens() -> None:
    with reserved(HOST, 0) as port:
        with (
            pytest.raises(AddressTaken, match=f"cannot listen on {HOST}:{port}: .* in use"),
            reserved(HOST, port),
        ):
            pass
        with reserved(HOST, 0) as other:
            assert other != port
    with reserved(HOST, port) as again:
        assert again == port


def test_several_share_it_and_whoever_does_not_share_is_refused() -> None:
    with (
        reserved(HOST, 0) as port,
        closing(listening(port, shared=True)),
        closing(listening(port, shared=True)),
    ):
        with pytest.raises(AddressTaken), reserved(HOST, port):
            pass
        with pytest.raises(OSError, match="in use"):
            listening(port, shared=False)


def test_nothing_connects_to_what_is_only_reserved() -> None:
    with reserved(HOST, 0) as port, pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, port), timeout=5).close()


@pytest.mark.parametrize("shared", [False, True])
def test_a_port_where_somebody_listens_cannot_be_reserved(shared: bool) -> None:
    with closing(listening(0, shared=shared)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(AddressTaken), reserved(HOST, port):
            pass


def test_connections_that_have_just_ended_do_not_hold_the_port() -> None:
    with reserved(HOST, 0) as port, closing(listening(port, shared=True)) as listener:
        client = socket.create_connection((HOST, port), timeout=5)
        served, _ = listener.accept()
        served.close()  # the server first: its end stays in TIME_WAIT
        client.close()
    with reserved(HOST, port):
        pass


def test_a_name_of_several_addresses_has_one_port() -> None:
    with reserved("localhost", 0) as port:
        assert port > 0
        with pytest.raises(AddressTaken), reserved(HOST, port):
            pass


def test_a_host_that_does_not_exist_is_an_address_that_cannot_be_had() -> None:
    with pytest.raises(AddressTaken, match="cannot listen on"), reserved("no.such.invalid", 80):
        pass


def test_an_ipv6_address_stands_in_brackets_in_a_url() -> None:
    assert (url_of("::1", 80), url_of(HOST, 80)) == ("http://[::1]:80", "http://127.0.0.1:80")
