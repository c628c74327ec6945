"""A page in Chromium: its files are served from an origin of their own, its results come back here.

Nothing is clicked and nothing awaited by time: the page posts what it has seen when it is done.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any
from urllib.parse import urlencode

FOLDER = Path(__file__).parents[1] / "node"
_WAIT_S = 60.0
# Without the last of these, Chromium looks for its maker's servers at every start.
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def chromium() -> str:
    """The program. Tests ask `require` first."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    assert found is not None
    return found


class _Files(SimpleHTTPRequestHandler):
    """The folder, with the one type that Python does not know, and a place for results."""

    def __init__(self, *given: Any, results: Queue[Any]) -> None:
        self._results = results
        super().__init__(*given, directory=str(FOLDER))

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self._results.put(json.loads(self.rfile.read(length)))
        self.send_response(204)
        self.end_headers()

    def guess_type(self, path: Any) -> str:
        return "text/javascript" if str(path).endswith(".mjs") else super().guess_type(path)

    def log_message(self, format: str, *given: Any) -> None: ...


class PageServer:
    """One origin, and what its pages have told."""

    def __init__(self, port: int, results: Queue[Any]) -> None:
        self.origin = f"http://127.0.0.1:{port}"
        self._results = results

    def told_by(self, page: str, **parameters: str) -> Any:
        """Open the page in a Chromium of its own; what it posts."""
        with tempfile.TemporaryDirectory(
            prefix="qg-chromium-", ignore_cleanup_errors=True
        ) as profile:
            url = f"{self.origin}/{page}?{urlencode(parameters)}"
            process = subprocess.Popen(
                [
                    chromium(),
                    *FLAGS,
                    f"--user-data-dir={profile}",
                    "--remote-debugging-port=0",
                    url,
                ],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                return self._results.get(timeout=_WAIT_S)
            finally:
                os.killpg(process.pid, signal.SIGKILL)  # it is several processes
                process.wait()


@contextmanager
def serving_pages() -> Iterator[PageServer]:
    """Serve the folder on a free port of this machine."""
    results: Queue[Any] = Queue()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Files, results=results))
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield PageServer(server.server_address[1], results)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
