"""A server on loopback that answers as OpenAI's administration API does, with recorded pages.

The pages are files beside this one, in the shape of the library `openai` (checked by a test). What
was asked is kept; `status` other than 200 makes it refuse, as OpenAI words it.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

PAGES = Path(__file__).parent / "organisation"
ADMIN_KEY = "sk-admin-a1b2c3d4e5f6g7h8i9j0"


class OrganisationApi:
    """Serves from the moment it is made."""

    def __init__(self) -> None:
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, raw = api.answer(self.path, self.headers["Authorization"] or "")
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_: object) -> None:
                """Nothing is printed."""

        self.status, self.raw = 200, b""
        self.asked: list[tuple[str, dict[str, list[str]]]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, target: str, authorization: str) -> tuple[int, bytes]:
        where = urlsplit(target)
        query = parse_qs(where.query)
        name = where.path.removeprefix("/v1/organization/").replace("/", "_")
        self.asked.append((name, query))
        if authorization != f"Bearer {ADMIN_KEY}" or self.status != 200:
            status = self.status if self.status != 200 else 401
            message = f"You have insufficient permissions: {authorization} at https://x.test/a?b=c"
            return status, json.dumps({"error": {"message": message, "type": "server"}}).encode()
        if self.raw:
            return 200, self.raw
        first = (PAGES / f"{name}.json").read_bytes()
        if "page" not in query:
            return 200, first
        assert query["page"] == [json.loads(first)["next_page"]]
        return 200, (PAGES / f"{name}_2.json").read_bytes()
