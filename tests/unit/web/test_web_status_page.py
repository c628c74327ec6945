"""The files of the status page: headers, tags, and what a page with a key in it must not do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from gateway.core.refusal import Case, Refused
from gateway.web.front import Visit
from gateway.web.response import Whole
from gateway.web.status_page import FOLDER, INDEX, TYPES, StatusPage
from tests.fakes.http_request import read_as

SCRIPTS = sorted(FOLDER.glob("*.js"))
FILES = {path.name for path in FOLDER.iterdir()}
LINES_MAX, LINE_CHARACTERS = 300, 100


async def asked(
    path: str = "/quota/", method: str = "GET", frames: tuple[str, ...] = (), **headers: str
) -> Whole:
    named = CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})
    request = read_as(make_mocked_request(method, path, named))
    answer = await StatusPage(frames).handle(request, Visit("rid-1", 0.0, None))
    assert isinstance(answer, Whole)
    return answer


async def headers_of(path: str = "/quota/", frames: tuple[str, ...] = ()) -> dict[str, str]:
    return dict((await asked(path, frames=frames)).headers)


async def test_the_page_and_each_of_its_files_are_answered_under_a_strict_policy() -> None:
    for name in FILES:
        path = "/quota/" + ("" if name == INDEX else name)
        answer = await asked(path)
        headers = dict(answer.headers)
        assert (answer.status, answer.body) == (200, (FOLDER / name).read_bytes()), name
        assert headers == {
            "Content-Type": TYPES[Path(name).suffix],
            "Server": "quota-gateway",
            "Cache-Control": "no-cache",
            "ETag": headers["ETag"],
            "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
            "connect-src 'self'; img-src 'self'; form-action 'none'; base-uri 'none'; "
            "frame-ancestors 'none'",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "x-request-id": "rid-1",
        }


async def test_who_leaves_out_the_last_slash_is_led_to_the_page() -> None:
    answer = await asked("/quota")
    assert (answer.status, dict(answer.headers)["Location"]) == (308, "quota/")
    with pytest.raises(Refused, match="The status page is /quota/"):
        await asked("/quotas")


async def test_who_may_frame_the_page_is_what_the_operator_says() -> None:
    listed = ("https://b.example.org", "https://a.example.org")
    policy = (await headers_of(frames=listed))["Content-Security-Policy"]
    assert policy.endswith("; frame-ancestors https://a.example.org https://b.example.org")


async def test_a_file_that_the_client_has_is_not_sent_again() -> None:
    tag = (await headers_of())["ETag"]
    assert re.fullmatch(r'"[0-9a-f]{32}"', tag)
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        answer = await asked(If_None_Match=known)
        assert (answer.status, answer.body, dict(answer.headers)["ETag"]) == (304, b"", tag)
    for other in ('"other"', tag.strip('"'), (await headers_of("/quota/page.js"))["ETag"]):
        assert (await asked(If_None_Match=other)).status == 200, other


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/quota/index.html"),
        ("GET", "/quota/../config.yaml"),
        ("GET", "/quota/%2e%2e/page.js"),
        ("GET", "/quota//page.js"),
        ("GET", "/quota/page.js/"),
        ("POST", "/quota/"),
        ("OPTIONS", "/quota/page.js"),
    ],
)
async def test_nothing_else_is_there(method: str, path: str) -> None:
    with pytest.raises(Refused) as refused:
        await asked(path, method)
    assert refused.value.case is Case.ROUTE_NOT_AVAILABLE
    assert refused.value.message.endswith("The status page is /quota/.")


async def test_parameters_do_not_matter_and_a_head_is_answered() -> None:
    assert (await asked("/quota/?from=mail", "HEAD")).status == 200


def test_the_page_names_no_file_that_is_not_there_and_no_other_host() -> None:
    for path in FOLDER.iterdir():
        text = path.read_text()
        named = re.findall(r'(?:src|href)="([^"]*)"|from "\./([^"]*)"', text)
        if path.suffix == ".html":
            assert named
        in_a_comment = f"https://gateway.example.org/quota/{path.name}"
        assert {a or b for a, b in named} - {in_a_comment} <= FILES, path.name
        addresses = set(re.findall(r"https?://[\w.]+", text))
        assert addresses <= {"http://www.w3.org", "https://gateway.example.org"}, path.name


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_no_script_writes_html_keeps_anything_or_does_anything_by_itself(path: Path) -> None:
    found = re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\b|Function\("
        r"|localStorage|sessionStorage|indexedDB|\.cookie|history\.(?:push|replace)State"
        r"|setInterval|setTimeout|requestAnimationFrame|WebSocket|EventSource|sendBeacon",
        path.read_text(),
    )
    assert found is None, f"{path.name} has {found}"


def test_the_files_keep_to_the_measure_of_all_code() -> None:
    for path in FOLDER.iterdir():
        lines = path.read_text().splitlines()
        assert len(lines) <= LINES_MAX, path.name
        if path.suffix != ".svg":
            assert max(map(len, lines)) <= LINE_CHARACTERS, path.name
