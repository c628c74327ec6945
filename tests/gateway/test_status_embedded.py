"""The button in an application of another origin, and the React example of the documents."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.gateway.browser import Tab
from tests.gateway.node_sdk import FOLDER, install
from tests.gateway.page_pictures import (
    CHECK,
    INSIDE,
    SWITCHES,
    heard_of_mails,
    said,
    show_mails,
)
from tests.gateway.page_server import PageServer
from tests.gateway.running_gateway import MODEL, RunningGateway

BUY = "Buy 320,000 tokens for £2.00"
PLANS = "https://app.test/plans"
NOT_ON_THE_LIST = "blocked by CORS policy"
MAKE_MAILS = "document.body.appendChild(document.createElement('quota-mails'))"
_RUN_S = 120


@pytest.fixture(scope="module")
def bundle() -> Path:
    """The example and what it stands on, as one file."""
    install()
    made = FOLDER / "build" / "dashboard.js"
    subprocess.run(
        [
            *("node_modules/.bin/esbuild", "dashboard.tsx", f"--outfile={made}", "--bundle"),
            *("--format=esm", "--jsx=automatic", "--log-level=warning"),
            '--define:process.env.NODE_ENV="production"',
        ],
        cwd=FOLDER,
        env={**os.environ, "NODE_PATH": str(FOLDER / "node_modules")},  # the example is elsewhere
        check=True,
        timeout=_RUN_S,
    )
    return made


def open_dashboard(tab: Tab, pages: PageServer, gateway: RunningGateway, key: str) -> None:
    asked = urlencode({"gateway": gateway.proxy, "key": key, "model": MODEL})
    tab.open(f"{pages.origin}/dashboard.html?{asked}")


def test_a_refusal_shows_the_way_on_and_the_button_shows_the_figures(
    shop: RunningGateway, pages: PageServer, tab: Tab, bundle: Path
) -> None:
    assert bundle.exists()
    user, key = shop.new_user("free", 99_990)
    open_dashboard(tab, pages, shop, key)
    tab.click("button", CHECK)
    tab.until(lambda: said(tab).endswith(": 10 tokens left."), "the figures")
    hrefs = tab.evaluate(f"[...{INSIDE}.querySelectorAll('a')].map((each) => each.href)")
    assert hrefs == [PLANS]
    assert tab.troubles == []

    tab.evaluate(f"import('{shop.proxy}/quota/mails.js').then(() => 0)")
    tab.evaluate(f"{MAKE_MAILS}.credential = {key!r}; 0")
    show_mails(tab)
    tab.click("switch", SWITCHES["exhausted"])
    tab.until(lambda: heard_of_mails(tab).startswith("Saved."), "the switch to be saved")
    assert tab.troubles == []

    tab.click("button", "Ask")
    tab.until(lambda: "Upgrade to lite" in tab.heard("link"), "the way on")
    told = tab.evaluate("document.querySelector('[role=alert]').textContent")
    assert told.startswith("You have used 99,990 of your 100,000 tokens this month")
    tab.click("button", "Not now")
    shop.cli("user", "set-tier", user, "lite")
    tab.click("button", "Ask")
    answered = "document.querySelector('#app p').textContent"
    tab.until(lambda: str(tab.evaluate(answered)).startswith("Hello!"), "an answer")

    shop.cli("user", "set-used", user, "1000000", "--reason", "spent")
    tab.click("button", "Ask")
    tab.until(lambda: BUY in tab.heard("link"), "both ways on")
    links = "[...document.querySelectorAll('[role=alert] a')].map((a) => [a.textContent, a.href])"
    packs = "https://app.test/packs"
    assert tab.evaluate(links) == [["Upgrade to full", PLANS], [BUY, packs]]
    # What Chromium itself writes down about an answer of 429.
    assert [each for each in tab.troubles if "429" not in each] == []


def test_the_application_is_told_that_its_user_is_not_signed_in(
    shop: RunningGateway, pages: PageServer, tab: Tab, bundle: Path
) -> None:
    assert bundle.exists()
    open_dashboard(tab, pages, shop, "qg_of_nobody")
    tab.evaluate("addEventListener('quota-sign-in', (event) => { window.told = event.detail })")
    tab.click("button", CHECK)
    tab.until(lambda: tab.evaluate("window.told?.words"), "the event")
    assert said(tab) == tab.evaluate("window.told.words")
    assert said(tab).startswith("This key or token does not count here.")


def test_a_page_that_is_not_listed_gets_no_element(
    gateway: RunningGateway, pages: PageServer, tab: Tab
) -> None:
    open_dashboard(tab, pages, gateway, gateway.new_user()[1])
    tab.until(lambda: any(NOT_ON_THE_LIST in each for each in tab.troubles), "the refusal")
    assert tab.evaluate("customElements.get('quota-status')") is None
