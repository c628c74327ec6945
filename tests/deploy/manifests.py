"""The Kubernetes manifests as they stand, and with the sidecar's patch laid over the example."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.facts import DEPLOY

FOLDER = DEPLOY / "kubernetes"
Document = dict[str, Any]


def documents(path: Path) -> list[Document]:
    return [each for each in yaml.safe_load_all(path.read_text()) if each]


def kustomizations() -> dict[str, Document]:
    """By folder."""
    found = sorted(FOLDER.glob("*/kustomization.yaml"))
    return {path.parent.name: documents(path)[0] for path in found}


def patched(base: Any, patch: Any) -> Any:
    """A strategic merge, as far as it is needed here: lists of named things are merged by name."""
    if isinstance(base, dict) and isinstance(patch, dict):
        return {
            key: patched(base.get(key), patch[key]) if key in patch else base[key]
            for key in [*base, *(key for key in patch if key not in base)]
        }
    if isinstance(base, list) and isinstance(patch, list):
        theirs = {each["name"]: each for each in base}
        ours = {each["name"]: each for each in patch}
        return list(patched(theirs, ours).values())
    return patch


def built(folder: str) -> list[Document]:
    """What a folder makes of its resources, those of other folders included."""
    found: list[Document] = []
    kustomization = kustomizations()[folder]
    for name in kustomization["resources"]:
        path = FOLDER / folder / name
        found += built(path.resolve().name) if path.is_dir() else documents(path)
    for name in kustomization.get("components", ()):
        component = (FOLDER / folder / name).resolve().name
        found += built(component)
        for patch in kustomizations()[component]["patches"]:
            key, _, value = patch["target"]["labelSelector"].partition("=")
            (ours,) = documents(FOLDER / component / patch["path"])
            spec = {key: part for key, part in ours.items() if key != "metadata"}
            found = [
                patched(each, spec)
                if each["kind"] == patch["target"]["kind"]
                and each["metadata"].get("labels", {}).get(key) == value
                else each
                for each in found
            ]
    return found


def deployments(folder: str) -> dict[str, Document]:
    """The Deployments of a folder by their names."""
    return {
        each["metadata"]["name"]: each for each in built(folder) if each["kind"] == "Deployment"
    }


def pod_of(deployment: Document) -> Document:
    return dict(deployment["spec"]["template"]["spec"])


def containers(pod: Document) -> Iterator[Document]:
    """All of a pod, first those that begin first."""
    yield from pod.get("initContainers", ())
    yield from pod["containers"]
