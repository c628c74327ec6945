"""The status page as a person meets it, and its pictures for the documents.

`python -m tests.gateway.page_pictures` starts a gateway with a month of usage, opens the page in
Chromium and writes docs/status-page-*.png.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import asyncpg

from gateway.app.embedded import ledger_url_of
from gateway.app.stores import Stores
from tests.gateway.browser import PHONE, Tab, browser, tab_of
from tests.gateway.quota_calls import report
from tests.gateway.running_gateway import (
    ROOT,
    RunningGateway,
    merged,
    prompt,
    running_gateway,
)
from tests.gateway.standin_process import StandInProcess
from tests.stripe_api import StripeApi, sells_through

CHECK = "Check my token status"
INSIDE = "document.querySelector('quota-status').shadowRoot"
_PACK = {"tokens": 320_000, "price_gbp": "2.00", "valid_days": 365}
# What was used on the days of a month, in hundreds of tokens.
_DAYS = (180, 240, 120, 0, 20, 480, 620, 360, 300, 180, 0, 40, 520, 660, 820, 560, 240, 60, 0, 700)
SHOW_MAILS = "Show which mails I get"
MAILS = "document.querySelector('quota-mails').shadowRoot"
SWITCHES = {
    "crossing": "When part of your monthly tokens is used",
    "exhausted": "When your monthly tokens are used up",
    "pack_low": "When few of the tokens you bought are left",
    "pack_ends": "Before tokens you bought end",
    "payment_credited": "When tokens you bought are there",
}
_MAILS_HEIGHT = 480
ROWS = sum(map(bool, _DAYS)) + 3
"""Entries of such a user: these, a pack, a call, a call that broke off."""


def shop_settings(api: StripeApi) -> dict[str, Any]:
    """A gateway that sells packs to 'lite' too, which may also be upgraded."""
    plan = {"period": {"zone": "Europe/London"}, "tiers": {"lite": {"packs": _PACK}}}
    return merged(sells_through(api), {"plan": plan})


def sign_in(tab: Tab, gateway: RunningGateway, credential: str) -> None:
    """Open the page and sign in, by keyboard alone."""
    tab.open(f"{gateway.proxy}/quota/")
    tab.press("Tab")
    assert tab.focused() == ("textbox", "Your key or token")
    tab.type(credential)
    tab.press("Enter")
    tab.until(lambda: tab.focused() == ("button", CHECK), "the button to have the focus")


def said(tab: Tab) -> str:
    """What the element says of itself."""
    return str(tab.evaluate(f"{INSIDE}.querySelector('[role=status]').textContent"))


def check(tab: Tab) -> None:
    """Press the button that has the focus, and see the figures."""
    tab.press("Enter")
    tab.until(lambda: said(tab).startswith("Figures of "), "the figures")


def heard_of_mails(tab: Tab) -> str:
    """What the element for mails says of itself."""
    return str(tab.evaluate(f"{MAILS}.querySelector('[role=status]').textContent"))


def show_mails(tab: Tab) -> None:
    """Press its button, and see the switches."""
    tab.click("button", SHOW_MAILS)
    tab.until(lambda: heard_of_mails(tab).startswith("Each switch"), "the switches")


def with_address(gateway: RunningGateway, user: str, address: str) -> None:
    """Let mails of this user go there."""

    async def write(stores: Stores) -> None:
        await stores.directory.set_email(user, address)

    gateway.in_stores(write)


def user_of_a_month(gateway: RunningGateway) -> tuple[str, str]:
    """(id, key) of one on the tier 'lite' with a pack, and with charges of every quality."""
    user, key = gateway.new_user("lite")

    async def credit(stores: Stores) -> None:
        await stores.topups(gateway.settings).credit(user, f"inv-{uuid.uuid4().hex}", "tests")

    gateway.in_stores(credit)
    for day, hundreds in enumerate(_DAYS):
        fields: dict[str, Any] = {"prompt_tokens": hundreds * 80, "output_tokens": hundreds * 20}
        if day % 4 == 2:
            fields = {"total_tokens": hundreds * 100}
        if hundreds:
            assert report(gateway, key, tag=("quiz", "summary")[day % 2], **fields).status == 200
    assert gateway.chat(key, "Hello").status == 200
    broken = prompt("@stand-in write=400 cut_after=20", stream=True)
    gateway.chat(key, json.dumps(broken).encode())
    gateway.ledger_rows(user, ROWS)
    return user, key


def spread_over_the_month(gateway: RunningGateway, user: str) -> None:
    """As if its entries had come day by day: entries never change, so their guard is set aside."""

    async def run() -> None:
        connection = await asyncpg.connect(ledger_url_of(gateway.settings))
        try:
            await connection.execute("SET session_replication_role = replica")
            await connection.execute(
                "WITH numbered AS (SELECT event_id, row_number() OVER (ORDER BY at DESC) AS back"
                " FROM ledger WHERE user_id = $1 AND kind = 'usage') UPDATE ledger"
                " SET at = greatest(at - make_interval(hours => 28 * (back - 1)::int),"
                " date_trunc('month', at)) FROM numbered"
                " WHERE ledger.event_id = numbered.event_id",
                user,
            )
        finally:
            await connection.close()

    asyncio.run(run())


def main() -> None:
    """All of them, of one run."""
    stand_in, api = StandInProcess(), StripeApi()
    try:
        with (
            running_gateway(stand_in, shop_settings(api)) as gateway,
            browser() as pipe,
            tab_of(pipe) as tab,
        ):
            take(tab, gateway)
    finally:
        api.stop()
        stand_in.stop()


def take(tab: Tab, gateway: RunningGateway) -> None:
    user, key = user_of_a_month(gateway)
    spread_over_the_month(gateway, user)
    with_address(gateway, user, "ada@example.org")
    sign_in(tab, gateway, key)
    check(tab)
    show_mails(tab)
    tab.click("switch", SWITCHES["pack_low"])
    tab.until(lambda: heard_of_mails(tab).startswith("Saved."), "the switch to be saved")
    tab.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    top = "document.querySelector('quota-mails').getBoundingClientRect().top - 16"
    for device, width, height in (("desktop", 800, 1250), ("phone", PHONE[0], 1550)):
        for scheme in ("light", "dark"):
            tab.looks((width, height), scheme)
            place = ROOT / "docs" / f"status-page-{device}-{scheme}.png"
            tab.picture(place, height)
            mails = place.with_name(f"status-page-mails-{device}-{scheme}.png")
            tab.picture(mails, _MAILS_HEIGHT, tab.evaluate(top))


if __name__ == "__main__":
    main()
