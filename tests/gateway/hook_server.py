"""A server that takes webhooks, in a thread: it may go away and come back on the same port."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Message = tuple[dict[str, str], bytes]


class HookServer:
    """`got` is what came, by path; `answers` are the statuses of paths that are not answered 200.
    Not started at first."""

    def __init__(self) -> None:
        self.got: dict[str, list[Message]] = {}
        self.answers: dict[str, int] = {}
        self._server = self._made(0)
        self.port = int(self._server.server_address[1])
        self._server.server_close()

    def url(self, path: str) -> str:
        """Where messages of this path go."""
        return f"http://127.0.0.1:{self.port}{path}"

    def start(self) -> None:
        self._server = self._made(self.port)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _made(self, port: int) -> ThreadingHTTPServer:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            """Keeps what comes."""

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                outer.got.setdefault(self.path, []).append((headers, body))
                self.send_response(outer.answers.get(self.path, 200))
                self.send_header("location", "/redirected")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None: ...

        return ThreadingHTTPServer(("127.0.0.1", port), Handler)
