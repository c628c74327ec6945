"""Builds and runs the Dockerfile without a container engine, on a bare Debian root.

`build TREE STAGES BASE`: each stage is a copy of BASE in STAGES, and each of its instructions is
done there by chroot. `run TREE STAGES` starts the last one as its user, with its environment, a
read-only root, a tmpfs on /tmp, a volume and no network but its own loopback, and asks the
HEALTHCHECK. It needs root and a mount namespace that the caller throws away. What it cannot
show: the base image itself and the engine's own doings.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.fresh.dockerfile import Stage, read_stages

READY_S = 30  # as the HEALTHCHECK gives it, and half as much again for a busy machine


def environ(stage: Stage) -> dict[str, str]:
    path = "/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin"
    return {"PATH": path} | dict(env.text.split("=", 1) for env in stage.all("ENV"))


def network_words() -> dict[str, str]:
    """What pip is told of mirrors and certificates by the environment, for the build only."""
    wanted = ("PIP_", "SSL_CERT", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
    own = {key: value for key, value in os.environ.items() if key.upper().startswith(wanted)}
    own.pop("PIP_FIND_LINKS", None)  # names a folder of this machine
    return own


def build(tree: Path, stages: Path, base: Path) -> None:
    for stage in read_stages((tree / "Dockerfile").read_text()):
        root = stages / stage.name
        root.mkdir()
        subprocess.run(["cp", "--archive", "--one-file-system", f"{base}/.", root], check=True)
        folder = "/"
        for step in stage.instructions:
            if step.word == "WORKDIR":
                folder = step.text
                (root / folder[1:]).mkdir(parents=True, exist_ok=True)
            elif step.word == "COPY":
                copy(step.text, tree, stages, root / folder[1:])
            elif step.word == "RUN":
                print(f"[{stage.name}] {step.text[:90]}", flush=True)
                words = ["chroot", str(root), "/bin/sh", "-c", f"cd {folder} && {step.text}"]
                subprocess.run(words, check=True, env=environ(stage) | network_words())


def copy(text: str, tree: Path, stages: Path, folder: Path) -> None:
    """COPY as Docker does it: a folder's content goes into the target, a file beside others."""
    root = folder
    while not (root / "etc").is_dir():
        root = root.parent
    *sources, target = text.split()
    start = tree
    if sources[0].startswith("--from="):
        start = stages / sources.pop(0).removeprefix("--from=")
    to = root / target[1:] if target.startswith("/") else folder / target
    for source in sources:
        path = start / source.lstrip("/")
        if path.is_dir():
            shutil.copytree(path, to, symlinks=True, dirs_exist_ok=True)
        else:
            single = to / path.name if target.endswith("/") else to
            single.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, single)


def run(tree: Path, stages: Path) -> None:
    """Start the image, see it healthy, stop it; any failure is an exception."""
    stage = read_stages((tree / "Dockerfile").read_text())[-1]
    root = stages / stage.name
    volume = root / stage.last("VOLUME").text[1:]
    mounts: list[list[str | Path]] = [
        ["mount", "--bind", root, root],
        ["mount", "--bind", volume, volume],
        ["mount", "-t", "proc", "proc", root / "proc"],
        ["mount", "-t", "tmpfs", "tmpfs", root / "tmp"],
        ["mount", "-o", "remount,ro,bind", root],
    ]
    for words in mounts:
        subprocess.run(words, check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    command = stage.last("ENTRYPOINT").exec_form() + stage.last("CMD").exec_form()
    program = subprocess.Popen(inside(stage, root, command), env=environ(stage))
    try:
        check = inside(stage, root, stage.last("HEALTHCHECK").exec_form())
        wait_until_healthy(program, check, environ(stage))
        program.send_signal(signal.Signals[stage.last("STOPSIGNAL").text])
        code = program.wait(timeout=READY_S)
        assert code == 0, f"exit code {code} after the stop signal"
    finally:
        program.kill()
    print("[run] healthy with a read-only root, stopped by its signal")


def inside(stage: Stage, root: Path, command: list[str]) -> list[str]:
    user, folder = stage.last("USER").text, stage.last("WORKDIR").text
    words = ["sh", "-c", 'cd "$0" && exec "$@"', folder, *command]
    return ["chroot", f"--userspec={user}", str(root), *words]


def wait_until_healthy(
    program: subprocess.Popen[bytes], check: list[str], env: dict[str, str]
) -> None:
    deadline = time.monotonic() + READY_S
    while subprocess.run(check, env=env, stderr=subprocess.DEVNULL).returncode:
        assert program.poll() is None, f"ended with {program.returncode} before it was healthy"
        assert time.monotonic() < deadline, f"not healthy after {READY_S} s"
        time.sleep(0.1)


if __name__ == "__main__":
    step, *places = sys.argv[1:]
    if step == "build":
        build(*map(Path, places))
    else:
        run(*map(Path, places))
