"""deploy/compose.yaml against the schema of its language, the image, the configuration and itself.

No container engine is needed, and none is asked: what is shown is that the parts fit together.
"""

from __future__ import annotations

import http.server
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import pytest
import redis
import yaml

from tests.deploy.facts import (
    ADMIN,
    DEPLOY,
    IMAGE,
    OPS,
    PROGRAM,
    PROXY,
    ROOT,
    SETTINGS,
    STATE_DIR,
    VARIABLES,
    command_of,
    is_pinned,
    loads_with,
    ops_paths,
    schema_errors,
    texts,
)
from tests.gateway.waiting_for import until

TEXT = (DEPLOY / "compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
GATEWAY = SERVICES["gateway"]
EXAMPLE = dict(
    line.split("=", 1)
    for line in (DEPLOY / "example.env").read_text().splitlines()
    if line and not line.startswith("#")
)
# ${NAME}, ${NAME:-default} and ${NAME:?why}, with what stands behind the name.
_REFERENCE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")
MUST_BE_SET = {name for name, mark, _ in _REFERENCE.findall(TEXT) if mark == "?"}
FILLED = EXAMPLE | {name: f"{name.lower()}-0123456789abcdef" for name in MUST_BE_SET}


def filled(text: str) -> str:
    """A value as Compose would write it, once deploy/.env is filled in."""
    return _REFERENCE.sub(lambda found: FILLED[found.group(1)] or found.group(3), text)


def environ_of(service: str) -> dict[str, str]:
    return {name: filled(value) for name, value in SERVICES[service].get("environment", {}).items()}


def pairs(words: list[str]) -> dict[str, str]:
    """`--name value` and `--name=value` as pairs."""
    joined = re.sub(r"(--[\w.-]+) (?!--)", r"\1=", " ".join(words))
    return dict(word.split("=", 1) for word in joined.split() if word.startswith("--"))


def seconds(time: str) -> int:
    assert time.endswith("s")
    return int(time[:-1])


def test_it_is_a_compose_file() -> None:
    assert schema_errors("compose-spec", COMPOSE) == []
    misspelt = COMPOSE | {"services": {"a": {"image": "a", "enviroment": {}}}}
    assert schema_errors("compose-spec", misspelt)


def test_the_example_names_every_variable_and_holds_no_secret() -> None:
    assert {name for name, *_ in _REFERENCE.findall(TEXT)} == EXAMPLE.keys()
    assert {name for name, value in EXAMPLE.items() if not value} == MUST_BE_SET
    ignored = (ROOT / ".gitignore").read_text().split()
    assert "deploy/.env" in ignored
    for name, mark, default in _REFERENCE.findall(TEXT):
        assert mark == "?" or default == EXAMPLE[name], f"{name}: the example says something else"


def test_every_name_in_it_is_of_something_that_is_there() -> None:
    networks, volumes = set(COMPOSE["networks"]), set(COMPOSE["volumes"])
    for name, service in SERVICES.items():
        assert set(service["networks"]) <= networks, name
        assert set(service.get("depends_on", ())) <= SERVICES.keys(), name
        for mount in service.get("volumes", ()):
            source, target = mount.split(":")[:2]
            assert target.startswith("/")
            if not source.startswith("."):
                assert source in volumes, f"{name} mounts {source}"
    assert networks == {each for service in SERVICES.values() for each in service["networks"]}


def test_who_waits_for_a_healthy_service_waits_for_one_that_can_be() -> None:
    for service in SERVICES.values():
        waits = service.get("depends_on", {})
        for name in waits if isinstance(waits, dict) else ():
            condition = waits[name]["condition"]
            assert condition != "service_healthy" or "test" in SERVICES[name]["healthcheck"]
            ends = SERVICES[name].get("restart") == "no"
            assert ends == (condition == "service_completed_successfully"), name


def test_images_are_pinned_and_ours_is_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for service in SERVICES.values():
        assert is_pinned(service["image"]), service["image"]
        if service["image"].startswith("quota-gateway"):
            assert service["image"] == f"quota-gateway:{version}"
    build = GATEWAY["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).resolve() == ROOT / "Dockerfile"


def test_the_gateway_starts_with_what_it_is_given_on_stores_that_it_can_reach() -> None:
    environ = environ_of("gateway")
    assert environ.keys() <= VARIABLES
    settings = loads_with(environ)
    for url, port in ((environ["REDIS_URL"], 6379), (environ["DATABASE_URL"], 5432)):
        place = urlsplit(url)
        assert place.port == port
        assert set(GATEWAY["networks"]) & set(SERVICES[str(place.hostname)]["networks"])
    owner = environ_of("postgres")
    place = urlsplit(environ["DATABASE_URL"])
    given = owner["POSTGRES_USER"], owner["POSTGRES_PASSWORD"], f"/{owner['POSTGRES_DB']}"
    assert (place.username, place.password, place.path) == given
    assert settings.state_dir == Path(STATE_DIR)
    assert any(mount.endswith(f":{STATE_DIR}") for mount in GATEWAY["volumes"])
    assert "../config.yaml:/etc/quota-gateway/config.yaml:ro" in GATEWAY["volumes"]


def test_the_upstreams_key_and_the_pepper_are_given_to_the_gateway_alone() -> None:
    for name, service in SERVICES.items():
        said = " ".join(texts(service))
        for secret in ("OPENAI_API_KEY", "QUOTA_PEPPER"):
            assert (secret in said) == (name == "gateway"), f"{name} and {secret}"
        assert ("{LEDGER_PASSWORD" in said) == (name in ("gateway", "postgres", "reader")), name


def test_what_is_published_is_on_loopback_and_the_admin_port_is_not_published() -> None:
    inside: dict[str, set[int]] = {}
    for name, service in SERVICES.items():
        for port in service.get("ports", ()):
            host, _, container = port.split(":")
            assert host == "127.0.0.1", f"{name} publishes {port}"
            inside.setdefault(name, set()).add(int(container))
    exposed = {int(port) for port in IMAGE.last("EXPOSE").text.split()}
    assert inside["gateway"] == exposed == {PROXY, OPS}
    assert ADMIN not in set().union(*inside.values())
    settings = loads_with(environ_of("gateway"))
    assert settings.listen.admin.host == "127.0.0.1"
    assert {settings.listen.proxy.host, settings.listen.ops.host} == {"0.0.0.0"}
    assert inside.keys() == {"gateway", "prometheus", "grafana"}


def test_redis_is_within_reach_of_the_gateway_alone_and_postgres_of_those_who_read_it() -> None:
    def beside(service: str) -> set[str]:
        mine = set(SERVICES[service]["networks"])
        assert all(COMPOSE["networks"][network].get("internal") for network in mine)
        return {name for name, each in SERVICES.items() if mine & set(each["networks"])}

    assert beside("redis") == {"redis", "gateway"}
    assert beside("postgres") == {"postgres", "gateway", "reader", "grafana"}


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_gateway_is_healthy_when_it_is_ready(status: int, healthy: bool) -> None:
    """The check is run as it stands, against a server that says so."""
    form, program, option, code = GATEWAY["healthcheck"]["test"]
    assert (form, program, option) == ("CMD", f"{Path(PROGRAM).parent}/python", "-c")
    asked = []

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        there = code.replace(f"127.0.0.1:{OPS}/", f"127.0.0.1:{server.server_port}/")
        assert there != code
        done = subprocess.run(
            [sys.executable, "-c", there], env={"NO_PROXY": "*"}, capture_output=True, timeout=30
        )
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert (done.returncode == 0) == healthy, done.stderr
    assert asked == ["/readyz"]
    assert set(asked) <= ops_paths()


def test_the_gateway_may_take_as_long_to_end_as_it_may_need() -> None:
    assert seconds(GATEWAY["stop_grace_period"]) > SETTINGS.file.shutdown_s
    assert int(GATEWAY["ulimits"]["nofile"]) >= 2 * SETTINGS.file.clients.connections_max


def test_containers_of_ours_can_change_nothing_but_their_state() -> None:
    for name in ("gateway", "stand-in"):
        service = SERVICES[name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
    for service in SERVICES.values():
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_redis_starts_with_its_words_and_forgets_and_evicts_nothing(
    tmp_path: Path, redis_server: object, missing: Callable[[str], NoReturn]
) -> None:
    program, *words = SERVICES["redis"]["command"]
    assert program == "redis-server"
    place = tmp_path / "s"
    ours = ["--port", "0", "--unixsocket", str(place), "--dir", str(tmp_path)]
    try:
        process = subprocess.Popen([program, *words, *ours], stdout=subprocess.PIPE, text=True)
    except FileNotFoundError:
        missing("redis-server is not installed")
    try:
        until(lambda: place.exists() or process.poll() is not None, 20, "redis-server")
        assert process.poll() is None, process.communicate()[0]
        with redis.Redis(unix_socket_path=str(place)) as client:
            kept: Any = client.config_get("maxmemory-policy", "appendonly", "appendfsync")
        assert kept == {
            "maxmemory-policy": "noeviction",
            "appendonly": "yes",
            "appendfsync": "everysec",
        }
    finally:
        process.terminate()
        process.communicate(timeout=20)


def test_the_stand_in_listens_where_the_example_says() -> None:
    chosen = command_of(SERVICES["stand-in"]["command"])
    port = chosen.listen.rpartition(":")[2]
    place = f"http://stand-in:{port}/v1"
    assert place in TEXT.partition("name:")[0]
    assert place in (DEPLOY / "example.env").read_text()
    assert set(SERVICES["stand-in"]["networks"]) & set(GATEWAY["networks"])
    assert loads_with(environ_of("gateway") | {"QUOTA_OPENAI_BASE_URL": place})
