"""What the product itself says of ports, paths, times and variables, for whoever deploys it."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema_rs

from gateway.cli import processes
from gateway.config import load
from gateway.web.ops import ops_app
from tests.fresh.dockerfile import read_stages

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
PROGRAM = "/opt/quota-gateway/bin/quota-gateway"

_CONFIG = ROOT / "config.yaml"
_TEXT = re.sub(r"^\s*#.*$", "", _CONFIG.read_text(), flags=re.MULTILINE)
# Those that config.yaml reads, and the one that names another file in its place.
VARIABLES = {*re.findall(r"\$\{(\w+)", _TEXT), "QUOTA_CONFIG"}
SETTINGS = load(_CONFIG, {})
PROXY, OPS, ADMIN = (
    getattr(SETTINGS.listen, name).port for name in ("proxy", "ops", "admin")
)  # fmt: skip
IMAGE = read_stages((ROOT / "Dockerfile").read_text())[-1]
IMAGE_ENVIRON = dict(env.text.split("=", 1) for env in IMAGE.all("ENV"))
STATE_DIR = IMAGE_ENVIRON["QUOTA_STATE_DIR"]


def ops_paths() -> set[str]:
    """The paths that the ops port answers."""

    async def none() -> Any: ...

    routes = ops_app(none, none, none).router.resources()
    return {route.canonical for route in routes}


def command_of(words: list[str]) -> argparse.Namespace:
    """A running command as the program itself reads it; SystemExit for what it does not know."""
    parser = argparse.ArgumentParser()
    processes.add_commands(parser.add_subparsers(required=True))
    return parser.parse_args(words)


def loads_with(environ: Mapping[str, str]) -> Any:
    """The settings that a gateway of the image has in this environment."""
    return load(_CONFIG, IMAGE_ENVIRON | dict(environ))


def schema_errors(name: str, document: object, kind: str | None = None) -> list[str]:
    """What a schema in `schemas/` says against the document: where, and what."""
    schema = json.loads((Path(__file__).parent / "schemas" / f"{name}.json").read_text())
    if kind is not None:
        defs = schema["$defs"]
        schema = {"$defs": defs, "$ref": f"#/$defs/{schema['kinds'][kind]}"}
    found = jsonschema_rs.validator_for(schema).iter_errors(document)
    return [f"{'.'.join(map(str, each.instance_path))}: {each.message}" for each in found]


def texts(document: object) -> Iterator[str]:
    """Every text in a YAML document, keys included."""
    if isinstance(document, str):
        yield document
    elif isinstance(document, Mapping):
        for key, value in document.items():
            yield from texts(key)
            yield from texts(value)
    elif isinstance(document, list):
        for value in document:
            yield from texts(value)


def is_pinned(image: str) -> bool:
    """A tag that names one release, with a patch level, or a digest."""
    tag = image.rpartition("/")[2].partition(":")[2]
    return "@sha256:" in image or re.fullmatch(r"v?\d+\.\d+(\.\d+)?(-\w+)?", tag) is not None
