"""What an operator can do when a mail server takes nothing, by what it said or did not say.

One sentence each, with the key of the configuration. It judges errors of the SMTP library, and
whatever they were caused by; it tries nothing.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

import aiosmtplib

_BY_CAUSE: tuple[tuple[type[BaseException], str], ...] = (
    (
        ssl.SSLCertVerificationError,
        "notify.smtp.host must be the name in the server's certificate, and this machine must "
        "trust who signed it (SSL_CERT_FILE names other authorities)",
    ),
    (
        ssl.SSLError,
        "the server does not speak TLS here: tls is for port 465, starttls for 587",
    ),
    (socket.gaierror, "this machine finds no such host: is notify.smtp.host right?"),
    (
        ConnectionRefusedError,
        "nothing listens there: are notify.smtp.host and notify.smtp.port right?",
    ),
    (
        aiosmtplib.SMTPAuthenticationError,
        "the server refuses notify.smtp.user with notify.smtp.password; some want a password made "
        "for applications",
    ),
    (
        aiosmtplib.SMTPSenderRefused,
        "the server takes no mail from notify.smtp.from: is the address or its domain allowed "
        "there?",
    ),
    (
        aiosmtplib.SMTPRecipientsRefused,
        "the server refuses this address; without a user and password many take mail for their "
        "own domains only",
    ),
    (
        TimeoutError,
        "nothing answers: is notify.smtp.port right, and does a firewall let it through?",
    ),
    (
        aiosmtplib.SMTPServerDisconnected,
        "the server hung up: with notify.smtp.tls starttls, is this the port for tls (465)?",
    ),
)
_BY_WORDS = (
    (
        "STARTTLS extension not supported",
        "the server offers no STARTTLS: set notify.smtp.tls to tls with its port (465), or to none "
        "on your own machine",
    ),
    (
        "AUTH extension is not supported",
        "the server takes no password on this connection: set notify.smtp.tls to starttls or tls, "
        "or leave notify.smtp.user out",
    ),
)
_OTHERWISE = "the server's own log says more"


def advice(error: BaseException) -> str:
    """What to do about it."""
    chain = list(_chain(error))
    for each in chain:
        for words, what_to_do in _BY_WORDS:
            if words in str(each):
                return what_to_do
    for kind, what_to_do in _BY_CAUSE:
        if any(isinstance(each, kind) for each in chain):
            return what_to_do
    return _OTHERWISE


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and what it came of."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
