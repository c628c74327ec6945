"""The Kubernetes manifests: by the schema of their kinds, and against image and configuration.

No cluster is needed. Where kubectl is installed, it builds them too, and must come to the same.
"""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import pytest
import yaml

from tests.deploy.facts import (
    IMAGE,
    OPS,
    PROXY,
    SETTINGS,
    STATE_DIR,
    VARIABLES,
    command_of,
    is_pinned,
    loads_with,
    ops_paths,
    schema_errors,
)
from tests.deploy.manifests import (
    FOLDER,
    Document,
    built,
    containers,
    deployments,
    kustomizations,
    pod_of,
)

APPLIED = ("shared", "application", "example-sidecar")
GATEWAYS = {"shared": "quota-gateway", "example-sidecar": "application"}
HOOK_S = 5


def gateway_of(folder: str) -> tuple[Document, Document]:
    """The gateway's container, and its pod."""
    pod = pod_of(deployments(folder)[GATEWAYS[folder]])
    (found,) = (each for each in containers(pod) if each["name"] == "gateway")
    return found, pod


def ours() -> list[tuple[Document, Document]]:
    """Every container of our image with its pod."""
    return [
        (container, pod_of(deployment))
        for folder in APPLIED
        for deployment in deployments(folder).values()
        for container in containers(pod_of(deployment))
        if container["image"].startswith("quota-gateway:")
    ]


def test_every_file_is_used_and_every_name_of_one_is_there() -> None:
    used = set()
    for folder, each in kustomizations().items():
        patches = [patch["path"] for patch in each.get("patches", ())]
        for name in [*each.get("resources", ()), *each.get("components", ()), *patches]:
            path = (FOLDER / folder / name).resolve()
            assert path.exists(), f"{folder} names {name}"
            used.add(path / "kustomization.yaml" if path.is_dir() else path)
    applied = {FOLDER / folder / "kustomization.yaml" for folder in APPLIED}
    assert used | applied == set(FOLDER.rglob("*.yaml"))


@pytest.mark.parametrize("folder", APPLIED)
def test_it_is_what_kubernetes_takes(folder: str) -> None:
    for each in built(folder):
        kind = f"{each['apiVersion']} {each['kind']}"
        assert schema_errors("kubernetes", each, kind) == [], each["metadata"]["name"]


def test_a_misspelt_key_is_noticed() -> None:
    (deployment,) = deployments("shared").keys() - {"quota-gateway-jobs"}
    document = deployments("shared")[deployment]
    pod_of(document)["containers"][0]["readynessProbe"] = {}
    assert schema_errors("kubernetes", document, "apps/v1 Deployment")


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize("folder", APPLIED)
def test_kubectl_builds_the_same(folder: str) -> None:
    done = subprocess.run(
        ["kubectl", "kustomize", str(FOLDER / folder)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    namespace = kustomizations()[folder].get("namespace")

    def key(each: Document) -> tuple[str, str]:
        if namespace and each["metadata"].get("namespace") == namespace:
            del each["metadata"]["namespace"]
        return each["kind"], each["metadata"]["name"]

    theirs = {key(each): each for each in yaml.safe_load_all(done.stdout)}
    assert theirs == {key(each): each for each in built(folder)}


def test_upstreams_key_is_given_to_gateways_alone() -> None:
    for folder in APPLIED:
        for deployment in deployments(folder).values():
            for container in containers(pod_of(deployment)):
                has = "OPENAI_API_KEY" in str(container)
                assert has == (container["name"] == "gateway"), container["name"]
                assert "envFrom" not in container
            assert "quota-gateway-openai" not in str(pod_of(deployment)["volumes"])


def test_containers_start_with_what_they_are_given() -> None:
    names = (FOLDER / "base" / "kustomization.yaml").read_text()
    for container, _ in ours():
        assert command_of(container["args"])
        assert is_pinned(container["image"])
        environ = {each["name"]: each for each in container.get("env", ())}
        assert environ.keys() <= VARIABLES
        for name, each in environ.items():
            reference = each.get("valueFrom", {}).get("secretKeyRef")
            if reference is not None:
                assert reference["key"] == name
                assert f"generic {reference['name']} " in names
                assert name in names
        values = {name: each.get("value", f"x-{name}-0123456789") for name, each in environ.items()}
        stores = {"REDIS_URL": "redis://r:6379/0", "DATABASE_URL": "postgresql://u@p/d"}
        settings = loads_with(values | stores)
        assert settings.listen.ops.host == "0.0.0.0"  # the kubelet asks at the pod's address
        assert settings.listen.admin.host == "127.0.0.1"


def test_a_sidecar_answers_its_own_pod_only_and_shared_gateways_all() -> None:
    for folder, host in (("shared", "0.0.0.0"), ("example-sidecar", "127.0.0.1")):
        environ = {each["name"]: each.get("value", "") for each in gateway_of(folder)[0]["env"]}
        stores = {"REDIS_URL": "redis://r:6379/0", "DATABASE_URL": "postgresql://u@p/d"}
        settings = loads_with(environ | stores | {"QUOTA_PEPPER": "0123456789abcdef"})
        assert settings.listen.proxy.host == host
        assert settings.listen.proxy.port == PROXY
    pod = gateway_of("example-sidecar")[1]
    (application,) = pod["containers"]
    assert {"name": "OPENAI_BASE_URL", "value": f"http://127.0.0.1:{PROXY}/v1"} in application[
        "env"
    ]


def test_the_sidecar_begins_first_and_both_gateways_are_otherwise_the_same() -> None:
    sidecar, pod = gateway_of("example-sidecar")
    assert pod["initContainers"] == [sidecar]
    assert sidecar["restartPolicy"] == "Always"
    shared, _ = gateway_of("shared")
    apart = {"restartPolicy", "lifecycle", "env", "ports", "resources"}
    assert {k: v for k, v in sidecar.items() if k not in apart} == {
        k: v for k, v in shared.items() if k not in apart
    }
    assert [each for each in sidecar["env"] if "valueFrom" in each] == shared["env"]


def test_probes_ask_paths_that_there_are_at_the_ops_port() -> None:
    exposed = {int(port) for port in IMAGE.last("EXPOSE").text.split()}
    for container, _ in ours():
        ports = {each["name"]: each["containerPort"] for each in container.get("ports", ())}
        assert set(ports.values()) <= exposed
        running = container["args"][0] != "migrate"
        probes = {name: each for name, each in container.items() if name.endswith("Probe")}
        assert running == (probes.keys() == {"startupProbe", "readinessProbe", "livenessProbe"})
        for probe in probes.values():
            assert probe["httpGet"].keys() == {"path", "port"}
            assert probe["httpGet"]["path"] in ops_paths()
            assert ports[probe["httpGet"]["port"]] == OPS


def test_nobody_is_killed_or_taken_out_because_a_store_is_away() -> None:
    """`/readyz` says no in all gateways at once then, and would leave a Service without any."""
    for folder in GATEWAYS:
        gateway, _ = gateway_of(folder)
        paths = {name: gateway[f"{name}Probe"]["httpGet"]["path"] for name in (
            "startup", "readiness", "liveness")}  # fmt: skip
        assert paths == {"startup": "/readyz", "readiness": "/healthz", "liveness": "/healthz"}


def test_pods_may_take_as_long_to_end_as_they_may_need() -> None:
    shutdown_s = SETTINGS.file.shutdown_s
    jobs = pod_of(deployments("shared")["quota-gateway-jobs"])
    assert jobs["terminationGracePeriodSeconds"] > shutdown_s
    gateway, pod = gateway_of("shared")
    assert gateway["lifecycle"]["preStop"] == {"sleep": {"seconds": HOOK_S}}
    assert pod["terminationGracePeriodSeconds"] > HOOK_S + shutdown_s
    # A sidecar is told to end when the application has ended, which has 30 s by default.
    _, pod = gateway_of("example-sidecar")
    assert pod["containers"][0]["lifecycle"]["preStop"] == {"sleep": {"seconds": HOOK_S}}
    assert pod["terminationGracePeriodSeconds"] > HOOK_S + 30 + shutdown_s


def test_containers_can_change_nothing_but_their_state() -> None:
    user = int(IMAGE.last("USER").text.partition(":")[0])
    for container, pod in ours():
        confined = container["securityContext"]
        assert confined["runAsNonRoot"] is True
        assert confined["runAsUser"] == user
        assert confined["allowPrivilegeEscalation"] is False
        assert confined["readOnlyRootFilesystem"] is True
        assert confined["capabilities"] == {"drop": ["ALL"]}
        assert confined["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]
        kinds = {each["name"]: each for each in pod["volumes"]}
        mounts = {each["mountPath"]: kinds[each["name"]] for each in container["volumeMounts"]}
        assert {path for path, kind in mounts.items() if "emptyDir" in kind} == {STATE_DIR, "/tmp"}
        assert mounts[IMAGE.last("WORKDIR").text]["configMap"]["optional"] is True
        assert pod["automountServiceAccountToken"] is False


def selected(selector: Document, pods: list[Document]) -> list[str]:
    wanted = selector.get("matchLabels", {}).items()
    return [
        each["metadata"]["name"]
        for each in pods
        if wanted <= each["spec"]["template"]["metadata"]["labels"].items()
    ]


@pytest.mark.parametrize("folder", ["shared", "example-sidecar"])
def test_selectors_select_what_they_are_meant_for(folder: str) -> None:
    pods = list(deployments(folder).values())
    for each in pods:
        assert selected(each["spec"]["selector"], pods) == [each["metadata"]["name"]]
    for each in built(folder):
        kind, name = each["kind"], each["metadata"]["name"]
        if kind == "Service":
            assert selected({"matchLabels": each["spec"]["selector"]}, pods) == [name]
            (container,) = pod_of(deployments(folder)[name])["containers"]
            names = {port["name"] for port in container["ports"]}
            assert {port["targetPort"] for port in each["spec"]["ports"]} <= names
        elif kind == "PodDisruptionBudget":
            assert selected(each["spec"]["selector"], pods) == [name]
        elif kind == "NetworkPolicy":
            found = selected(each["spec"]["podSelector"], pods)
            assert found == ["application" if name.endswith("sidecar") else name]


def policy(folder: str, name: str) -> Document:
    (found,) = (
        each["spec"]
        for each in built(folder)
        if each["kind"] == "NetworkPolicy" and each["metadata"]["name"] == name
    )
    return dict(found)


def outside(spec: Document) -> set[int]:
    """The ports at which a policy lets pods reach addresses that are not private."""
    open_to: set[int] = set()
    for rule in spec["egress"]:
        blocks = [each.get("ipBlock", {}).get("cidr") for each in rule.get("to", ())]
        if not blocks or "0.0.0.0/0" in blocks:
            open_to |= {port["port"] for port in rule["ports"]}
    return open_to


def test_an_application_of_shared_gateways_cannot_reach_openai_and_gateways_can() -> None:
    application = policy("application", "openai-through-quota-gateway")
    assert application["policyTypes"] == ["Egress"]
    assert outside(application) == set()
    assert 443 not in {port["port"] for rule in application["egress"] for port in rule["ports"]}
    assert outside(policy("shared", "quota-gateway")) == {443}
    assert outside(policy("shared", "quota-gateway-jobs")) == {443, 465, 587}
    # Both sides name each other: a gateway takes calls from those whom the policy leads to it.
    (calls, _) = policy("shared", "quota-gateway")["ingress"]
    assert calls["from"][0]["podSelector"] == application["podSelector"]
    (way, _) = application["egress"]
    pods = list(deployments("shared").values())
    assert selected(way["to"][0]["podSelector"], pods) == ["quota-gateway"]
    assert [each["port"] for each in calls["ports"]] == [each["port"] for each in way["ports"]]
    space = kustomizations()["shared"]["namespace"]
    labels = way["to"][0]["namespaceSelector"]["matchLabels"]
    assert labels == {"kubernetes.io/metadata.name": space}
    (made,) = (each for each in built("shared") if each["kind"] == "Namespace")
    assert made["metadata"]["name"] == space


def test_no_policy_opens_the_admin_port_and_only_prometheus_reaches_the_ops_port() -> None:
    for folder in APPLIED:
        for each in built(folder):
            if each["kind"] != "NetworkPolicy":
                continue
            for rule in each["spec"].get("ingress", ()):
                ports = [port["port"] for port in rule["ports"]]
                assert set(ports) <= {PROXY, OPS}
                monitoring = {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}
                by_prometheus = rule["from"] == [{"namespaceSelector": monitoring}]
                assert (ports == [OPS]) == by_prometheus


def test_prometheus_is_told_where_to_ask() -> None:
    found: list[Any] = []
    for folder in APPLIED:
        for deployment in deployments(folder).values():
            annotations = deployment["spec"]["template"]["metadata"]["annotations"]
            found.append(annotations)
    assert found
    assert all(each["prometheus.io/port"] == str(OPS) for each in found)
