"""The upstream for calls without streaming: nginx with a canned answer, in the clear and under TLS.

Under `/near` it answers the same with a usage of two tokens, so that users who are near their limit
stay there for thousands of calls. The certificate is made for the run; who must trust it is told by
SSL_CERT_FILE, which Python's default TLS context reads.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from bench.answers import HEADERS, OUTPUT_TOKENS, PROMPT_TOKENS, completion
from bench.processes import BenchError, Process, free_port, tool

_START_S = 10.0


class Nginx:
    """One nginx with one worker process."""

    def __init__(self, place: Path) -> None:
        self._place = place / "nginx"
        self._place.mkdir()
        binary = tool("nginx", "nginx-light")
        self.certificate = self._made_certificate()
        plain, tls = free_port(), free_port()
        self.plain, self.tls = f"http://127.0.0.1:{plain}", f"https://127.0.0.1:{tls}"
        (self._place / "nginx.conf").write_text(self._configuration(plain, tls))
        argv = (binary, "-p", str(self._place), "-c", "nginx.conf", "-e", "error.log")
        self._process = Process("nginx", argv, self._place, {})
        self._await(plain)

    def stop(self) -> None:
        """End it."""
        self._process.stop()

    def _configuration(self, plain: int, tls: int) -> str:
        as_root = "user root;" if os.geteuid() == 0 else ""
        folders = "".join(
            f"  {kind}_temp_path {self._place};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        headers = "".join(f"    add_header {name} '{value}';\n" for name, value in HEADERS)
        usual, near = completion(PROMPT_TOKENS, OUTPUT_TOKENS), completion(1, 1)
        return f"""
{as_root}
daemon off;
worker_processes 1;
pid {self._place}/pid;
events {{ worker_connections 16384; }}
http {{
{folders}
  access_log off;
  client_body_buffer_size 64k;
  keepalive_requests 1000000;
  default_type application/json;
  server {{
    listen 127.0.0.1:{plain} backlog=4096;
    listen 127.0.0.1:{tls} ssl backlog=4096;
    ssl_certificate {self.certificate};
    ssl_certificate_key {self._place}/key.pem;
{headers}
    location / {{ return 200 '{usual.decode()}'; }}
    location /near {{ return 200 '{near.decode()}'; }}
  }}
}}
"""

    def _made_certificate(self) -> Path:
        certificate = self._place / "certificate.pem"
        words = (
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-nodes", "-days", "2", "-subj", "/CN=upstream of a benchmark"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(self._place / "key.pem"), "-out", str(certificate)),
        )
        made = subprocess.run((tool("openssl", "openssl"), *words), capture_output=True, text=True)
        if made.returncode:
            raise BenchError(f"openssl made no certificate:\n{made.stderr}")
        return certificate

    def _await(self, port: int) -> None:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and not self._process.ended():
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            time.sleep(0.02)
        raise BenchError(f"nginx did not start:\n{self._process.log()}")
