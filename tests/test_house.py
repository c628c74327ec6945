"""What stands around the code: locks, licences, the Makefile, CI, the Dockerfile.

The Dockerfile is only read here; `make fresh` builds and runs it without a container engine.
"""

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest

from tests.fresh.dockerfile import Stage, read_stages

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

RUN = [*PROJECT["project"]["dependencies"]]
TEST = [*PROJECT["project"]["optional-dependencies"]["test"]]
BUILD = [*PROJECT["dependency-groups"]["build"]]
TOOLS = [*PROJECT["dependency-groups"]["tools"]]

# One is enough of the first; none may be there of the second. MPL-2.0 asks only that changes to
# its own files be published, and we change none (certifi, below tiktoken, is the one that has it).
PERMISSIVE = re.compile(r"MIT|BSD|Apache|PSF|Python Software|ISC|CNRI|MPL-2\.0")
BINDING = re.compile(r"\b[AL]?GPL|General Public|SSPL|BUSL|Commons Clause|Proprietary", re.I)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lock: str) -> dict[str, str]:
    """Package and version of each entry of `requirements/<lock>.lock`."""
    text = (ROOT / "requirements" / f"{lock}.lock").read_text()
    return dict(re.findall(r"^([a-z0-9][\w.-]*)==([^\s;]+)", text, flags=re.MULTILINE))


@pytest.mark.parametrize(
    ("lock", "wanted"), [("run", RUN), ("test", RUN + TEST), ("build", BUILD), ("tools", TOOLS)]
)
def test_each_dependency_is_locked_at_its_version(lock: str, wanted: list[str]) -> None:
    locked = pins(lock)
    for requirement in wanted:
        name, _, version = requirement.partition("==")
        assert locked.get(normal(name)) == version, f"{requirement}: run `make lock`"


@pytest.mark.parametrize("lock", ["run", "test", "build", "tools"])
def test_each_locked_package_has_hashes_and_a_lock_holds_nothing_else(lock: str) -> None:
    text = (ROOT / "requirements" / f"{lock}.lock").read_text()
    entries = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    for entry in entries.splitlines():
        assert re.fullmatch(r"[a-z0-9][\w.-]*==\S+( ; [^#]+?)?(\s+--hash=sha256:\w{64})+", entry)


def test_the_locks_agree_on_every_version() -> None:
    run, test, build = pins("run"), pins("test"), pins("build")
    assert run.items() <= test.items()
    assert all(test.get(name, version) == version for name, version in build.items())
    assert PROJECT["build-system"]["requires"] == BUILD


def test_a_lock_serves_more_than_the_machine_that_made_it() -> None:
    """aiohttp has wheels for dozens of platforms; async-timeout is for Pythons before 3.11.3."""
    text = (ROOT / "requirements" / "run.lock").read_text()
    aiohttp = text[text.index("\naiohttp==") : text.index("\naiosignal==")]
    assert aiohttp.count("--hash=") > 50
    assert "async-timeout==" in text


def test_each_direct_dependency_has_its_reason_written_down() -> None:
    document = (ROOT / "docs" / "dependencies.md").read_text()
    for requirement in RUN + TEST + BUILD + TOOLS:
        name = requirement.partition("==")[0]
        assert f"| `{name}` |" in document, f"docs/dependencies.md has no row for {name}"


def licence(name: str) -> str:
    """What the installed package says of its licence, in whichever field it says it."""
    about = importlib.metadata.metadata(name)
    said = [*(about.get_all("License-Expression") or []), *(about.get_all("License") or [])]
    marks = [mark for mark in about.get_all("Classifier") or [] if mark.startswith("License")]
    return " ".join([*(word[:200] for word in said), *marks])


def test_every_licence_of_the_run_set_is_permissive() -> None:
    installed = {
        normal(found.metadata["Name"]) for found in importlib.metadata.distributions()
    } & pins("run").keys()
    assert {normal(requirement.partition("==")[0]) for requirement in RUN} <= installed
    for name in sorted(installed):
        assert PERMISSIVE.search(licence(name)), f"{name}: {licence(name)}"
        assert not BINDING.search(licence(name)), f"{name}: {licence(name)}"


def test_ci_runs_the_commands_that_a_developer_runs() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert script.endswith("make check\nmake test\n")
    assert "bash .ci/run" in (ROOT / ".github" / "workflows" / "ci.yml").read_text()


def test_every_make_target_says_what_it_does() -> None:
    makefile = (ROOT / "Makefile").read_text()
    declared = re.search(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE)
    assert declared
    explained = re.findall(r"^([a-z-]+):  ## \w", makefile, flags=re.MULTILINE)
    assert declared.group(1).split() == explained


# --- the Dockerfile ------------------------------------------------------------------------

STAGES = read_stages((ROOT / "Dockerfile").read_text())
LAST = STAGES[-1]


def sources_of(stage: Stage) -> list[str]:
    """What a stage copies from the tree."""
    words = [copy.text.split() for copy in stage.all("COPY")]
    return [source for copy in words if "--from=" not in copy[0] for source in copy[:-1]]


def test_the_image_copies_what_is_there_and_what_the_builder_is_given() -> None:
    given = {
        line[1:].rstrip("/")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    for stage in STAGES:
        for source in sources_of(stage):
            assert (ROOT / source).exists(), source
            assert source.split("/")[0] in given, f"{source} is kept out by .dockerignore"


def test_the_image_carries_the_scripts_and_the_configuration() -> None:
    carried = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    built = [source for stage in STAGES for source in sources_of(stage)]
    for source in carried:
        assert source in {path.rstrip("/") for path in built}


def test_every_download_of_the_image_is_checked_against_its_hash() -> None:
    steps = [run.text for stage in STAGES for run in stage.all("RUN")]
    installs = [part for step in steps for part in step.split("&&") if " install " in part]
    assert installs
    for install in installs:
        assert "--require-hashes" in install or "--no-deps" in install, install


def test_the_image_is_a_plain_user_that_can_be_stopped_and_watched() -> None:
    user, _, group = LAST.last("USER").text.partition(":")
    assert int(user) > 0
    assert int(group) > 0
    assert LAST.last("STOPSIGNAL").text == "SIGTERM"
    assert LAST.last("ENTRYPOINT").exec_form() == ["/opt/quota-gateway/bin/quota-gateway"]
    assert LAST.last("CMD").exec_form()
    assert "/healthz" in LAST.last("HEALTHCHECK").exec_form()[-1]


def test_the_image_writes_only_into_its_volume() -> None:
    settings = dict(env.text.split("=", 1) for env in LAST.all("ENV"))
    assert settings["QUOTA_STATE_DIR"] == LAST.last("VOLUME").text
    assert settings["PYTHONDONTWRITEBYTECODE"] == "1"


def test_the_image_opens_only_addresses_that_the_configuration_reads() -> None:
    configuration = (ROOT / "config.yaml").read_text()
    settings = [env.text.partition("=")[0] for env in LAST.all("ENV")]
    for name in (name for name in settings if name.startswith("QUOTA_")):
        assert "${" + name in configuration
    assert "QUOTA_ADMIN_LISTEN" not in settings


def test_an_unknown_instruction_is_not_passed_over() -> None:
    with pytest.raises(ValueError, match="ADD"):
        read_stages("FROM a\nADD b c\n")
