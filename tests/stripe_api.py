"""A server on loopback that behaves as Stripe's API for Checkout, and events signed by its scheme.

Requests are answered after https://docs.stripe.com/api/checkout/sessions/create and
https://docs.stripe.com/api/idempotent_requests: form-encoded, bearer key, the same idempotency key
with the same parameters gets the same answer, with others an error.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl

import stripe

SECRET_KEY = "sk_test_a1b2c3d4e5f6g7h8i9j0"
WEBHOOK_SECRET = "whsec_a1b2c3d4e5f6g7h8i9j0"

Json = dict[str, Any]


class StripeApi:
    """Serves from the moment it is made. `fail_next` answers are errors of the server (500)."""

    def __init__(self) -> None:
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"] or 0))
                status, said = api.answer(self.path, dict(self.headers), body.decode())
                raw = json.dumps(said).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_: object) -> None:
                """Nothing is printed."""

        self.sessions: dict[str, Json] = {}
        self.asked: list[dict[str, str]] = []
        self.keys: list[str] = []
        self.fail_next = 0
        self._answers: dict[str, tuple[dict[str, str], Json]] = {}
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str, headers: dict[str, str], body: str) -> tuple[int, Json]:
        """What Stripe would say."""
        with self.lock:
            if headers.get("Authorization") != f"Bearer {SECRET_KEY}":
                return 401, _error("Invalid API Key provided", "invalid_request_error")
            if path != "/v1/checkout/sessions":
                return 404, _error(f"Unrecognized request URL (POST: {path})", "not_found")
            asked, key = dict(parse_qsl(body)), headers.get("Idempotency-Key", "")
            self.asked.append(asked)
            self.keys.append(key)
            if self.fail_next:
                self.fail_next -= 1
                return 500, _error("An unknown error occurred", "api_error")
            before = self._answers.get(key)
            if before is not None and before[0] != asked:
                return 400, _error("Keys for idempotent requests ...", "idempotency_error")
            if before is None:
                before = self._answers[key] = (asked, self._session(asked))
            return 200, before[1]

    def _session(self, asked: dict[str, str]) -> Json:
        session_id = f"cs_test_{uuid.uuid4().hex}"
        unit = int(asked["line_items[0][price_data][unit_amount]"])
        self.sessions[session_id] = session = {
            "id": session_id,
            "object": "checkout.session",
            "url": f"https://checkout.stripe.test/c/pay/{session_id}",
            "status": "open",
            "payment_status": "unpaid",
            "amount_total": unit * int(asked["line_items[0][quantity]"]),
            "currency": asked["line_items[0][price_data][currency]"],
            "client_reference_id": asked["client_reference_id"],
            "metadata": _metadata(asked, "metadata"),
            "payment_intent": None,
            "livemode": False,
        }
        return session


def _metadata(asked: dict[str, str], name: str) -> dict[str, str]:
    return {
        key.removeprefix(f"{name}[").removesuffix("]"): value
        for key, value in asked.items()
        if key.startswith(f"{name}[")
    }


def _error(message: str, kind: str) -> Json:
    return {"error": {"message": message, "type": kind}}


def sells_through(api: StripeApi) -> Json:
    """The configuration of a gateway that sells packs through this server."""
    return {
        "payments": {
            "stripe": {
                "secret_key": SECRET_KEY,
                "webhook_secret": WEBHOOK_SECRET,
                "success_url": "https://app.test/paid?session={CHECKOUT_SESSION_ID}",
                "cancel_url": "https://app.test/plans",
                "api_base": api.url,
            }
        },
        "refusal": {
            "upgrade_url": "https://app.test/plans",
            "topup_url": "https://app.test/packs",
        },
    }


# --- events --------------------------------------------------------------------------------


def event(kind: str, about: Json, event_id: str | None = None) -> bytes:
    """An event as Stripe writes one."""
    said = {
        "id": event_id or f"evt_{uuid.uuid4().hex}",
        "object": "event",
        "api_version": "2026-10-28.basil",
        "created": int(time.time()),
        "data": {"object": about},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "type": kind,
    }
    return json.dumps(said, indent=2).encode()


def paid(session: Json, **changes: Any) -> Json:
    """A session whose payer has paid."""
    ref = f"pi_{session['id'].removeprefix('cs_test_')}"
    done = {"status": "complete", "payment_status": "paid", "payment_intent": ref}
    return {**session, **done, **changes}


def charge(session: Json, **changes: Any) -> Json:
    """The charge of a paid session, refunded in full: https://docs.stripe.com/api/charges/object"""
    return {
        "id": f"ch_{uuid.uuid4().hex}",
        "object": "charge",
        "amount": session["amount_total"],
        "amount_refunded": session["amount_total"],
        "refunded": True,
        "currency": session["currency"],
        "payment_intent": session["payment_intent"],
        "metadata": session["metadata"],
        **changes,
    }


def signature(raw: bytes, secret: str = WEBHOOK_SECRET, age_s: int = 0) -> str:
    """The header `Stripe-Signature`, made by Stripe's own library."""
    header: str = stripe.WebhookSignature.generate_signature_header(
        raw.decode(), secret, timestamp=int(time.time()) - age_s
    )
    return header
