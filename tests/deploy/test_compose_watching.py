"""compose.yaml with what Prometheus and Grafana are given: their files, targets and variables."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from tests.deploy.facts import DEPLOY, OPS, ops_paths
from tests.deploy.test_compose import GATEWAY, SERVICES, environ_of


def test_what_is_mounted_is_there() -> None:
    for name, service in SERVICES.items():
        for mount in service.get("volumes", ()):
            source = mount.split(":")[0]
            assert not source.startswith(".") or (DEPLOY / source).exists(), f"{name}: {source}"


def test_prometheus_asks_the_gateway_where_it_answers() -> None:
    mounts = dict(mount.split(":")[:2] for mount in SERVICES["prometheus"]["volumes"])
    (config,) = (
        yaml.safe_load((DEPLOY / "prometheus" / Path(word).name).read_text())
        for word in SERVICES["prometheus"]["command"]
        if word.startswith("--config.file=/etc/prometheus/")
    )
    laid_over = {target: DEPLOY / source for source, target in mounts.items()}
    (job,) = config["scrape_configs"]
    (pattern,) = job["file_sd_configs"][0]["files"]
    found = [path for path in laid_over if Path(path).match(f"/etc/prometheus/{pattern}")]
    targets = [yaml.safe_load(laid_over[path].read_text()) for path in found]
    assert targets == [[{"targets": [f"gateway:{OPS}"]}]]
    assert job.get("metrics_path", "/metrics") in ops_paths()
    # A file is laid over another one: in a folder that may not be written none can be made.
    assert all((DEPLOY / "prometheus" / pattern).parent.joinpath(Path(path).name).exists()
               for path in found)  # fmt: skip
    assert set(SERVICES["prometheus"]["networks"]) & set(GATEWAY["networks"])


def test_grafana_has_what_its_data_sources_ask_for() -> None:
    environ = environ_of("grafana")
    sources = (DEPLOY / "grafana" / "provisioning" / "datasources").glob("*.yaml")
    asked = set(re.findall(r"\$\{?(QUOTA_\w+)", "".join(each.read_text() for each in sources)))
    assert asked == {name for name in environ if name.startswith("QUOTA_")}
    place = urlsplit(environ["QUOTA_PROMETHEUS_URL"])
    networks = set(SERVICES["grafana"]["networks"])
    assert networks & set(SERVICES[str(place.hostname)]["networks"])
    assert networks & set(SERVICES[environ["QUOTA_LEDGER_HOST"]]["networks"])
    assert environ["QUOTA_LEDGER_DATABASE"] == environ_of("postgres")["POSTGRES_DB"]
    assert environ["QUOTA_LEDGER_PASSWORD"] == environ_of("reader")["READER_PASSWORD"]
    folders = (DEPLOY / "grafana" / "provisioning" / "dashboards").glob("*.yaml")
    paths = [
        provider["options"]["path"]
        for each in folders
        for provider in yaml.safe_load(each.read_text())["providers"]
    ]
    targets = [mount.split(":")[1] for mount in SERVICES["grafana"]["volumes"]]
    assert paths
    assert set(paths) <= set(targets)
