"""Signatures of webhooks: those of Standard Webhooks, over id, time and raw body."""

from __future__ import annotations

import base64

import pytest

from gateway.core.webhook_signature import signed_headers, signing_key

# The vector of the libraries of Standard Webhooks, which do the same in every language:
# https://github.com/standard-webhooks/standard-webhooks (libraries/*, "sign function works").
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_message_is_signed_as_every_library_expects() -> None:
    headers = signed_headers(signing_key(SECRET), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, BODY)
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": SIGNATURE,
    }


@pytest.mark.parametrize("changed", ["id", "time", "body", "key"])
def test_whatever_is_changed_changes_the_signature(changed: str) -> None:
    key = signing_key(SECRET)
    headers = signed_headers(
        b"k" * 24 if changed == "key" else key,
        "other" if changed == "id" else "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1 if changed == "time" else 1614265330,
        b"{}" if changed == "body" else BODY,
    )
    assert headers["webhook-signature"] != SIGNATURE


@pytest.mark.parametrize(
    ("secret", "said"),
    [
        ("", "does not begin with whsec_"),
        ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "does not begin with whsec_"),
        ("whsec_", "has not 24 to 64 bytes"),
        ("whsec_%%%", "is no base64"),
        ("whsec_" + base64.b64encode(b"k" * 23).decode(), "has not 24 to 64 bytes"),
        ("whsec_" + base64.b64encode(b"k" * 65).decode(), "has not 24 to 64 bytes"),
    ],
)
def test_a_secret_that_could_be_guessed_is_none(secret: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        signing_key(secret)
