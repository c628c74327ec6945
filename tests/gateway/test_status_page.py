"""The status page in Chromium, against a gateway: what a person does there, sees and hears."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from gateway.app.embedded import redis_url_of
from tests.frozen_redis import frozen
from tests.gateway.browser import DESKTOP, PHONE, Tab
from tests.gateway.loopback import ask
from tests.gateway.node_sdk import FOLDER, install
from tests.gateway.page_pictures import (
    CHECK,
    INSIDE,
    ROWS,
    check,
    said,
    show_mails,
    sign_in,
    user_of_a_month,
)
from tests.gateway.quota_calls import report, status
from tests.gateway.running_gateway import RunningGateway
from tests.stripe_api import StripeApi, event, paid, signature

Json = dict[str, Any]
FORM = "!document.querySelector('#sign-in').hidden"
FIGURES = (
    f"Object.fromEntries([...{INSIDE}.querySelectorAll('dl > div')]"
    ".map((pair) => [...pair.children].map((each) => each.textContent)))"
)
CHECKOUT = "https://checkout.stripe.test/c/pay/"


@pytest.fixture(scope="module")
def of_a_month(shop: RunningGateway) -> tuple[str, str]:
    """(id, key) of somebody with something of everything; nobody changes it."""
    return user_of_a_month(shop)


def text_of(tab: Tab, selector: str) -> list[str]:
    """The texts of all that a selector finds within the element."""
    every = f"[...{INSIDE}.querySelectorAll({selector!r})].map((each) => each.textContent)"
    found: list[str] = tab.evaluate(every)
    return found


def pressed_again(tab: Tab) -> None:
    """Press, and wait until the answer is there; it may be the same."""
    tab.evaluate(f"{INSIDE}.querySelector('[role=status]').textContent = ''")
    tab.click("button", CHECK)
    tab.until(lambda: said(tab) not in ("", "Asking the gateway …"), "an answer")


def moment(instant: str, zone: str) -> str:
    """As the page writes it, without the name of the zone."""
    local = datetime.fromisoformat(instant).astimezone(ZoneInfo(zone))
    return f"{local.day} {local:%B %Y} at {local:%H:%M}"


@contextmanager
def call_in_flight(gateway: RunningGateway, key: str) -> Iterator[None]:
    """A call that is open, and holds."""
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(gateway.chat, key, "@stand-in hold=page write=5")
        gateway.stand_in.await_held("page")
        try:
            yield
        finally:
            gateway.stand_in.release("page")
            running.result()


def test_the_figures_are_those_of_the_api(
    shop: RunningGateway, of_a_month: tuple[str, str], tab: Tab
) -> None:
    user, key = of_a_month
    assert report(shop, key, tag="<img src=x onerror=alert(1)>").status == 200
    shop.ledger_rows(user, ROWS + 1)
    with call_in_flight(shop, key):
        sign_in(tab, shop, key)
        assert not any("/v1/" in url for url in tab.requests), "signing in asks nothing"
        check(tab)
        told = status(shop, key).json
    quota, period = told["quota"], told["period"]
    assert quota["held_tokens"] > 0
    assert quota["pack_tokens"] > 0
    assert tab.evaluate(FIGURES) == {
        "Left": f"{quota['remaining_tokens']:,}",
        "Used": f"{quota['used_tokens']:,} of {quota['limit_tokens']:,}",
        "In flight": f"{quota['held_tokens']:,}",
        "In packs": f"{quota['pack_tokens']:,}",
    }
    assert said(tab).endswith(f": {quota['remaining_tokens']:,} tokens left.")
    words = " ".join(text_of(tab, "p, li"))
    assert f"starts again on {moment(period['reset_at'], period['zone'])}" in words
    assert datetime.fromisoformat(period["reset_local"]).hour == 0
    (pack,) = told["packs"]
    assert f"{pack['left_tokens']:,} tokens left, until" in words
    assert moment(pack["ends_at"], period["zone"]) in words
    assert f"Figures of {moment(told['at'], period['zone'])}" in words
    assert ("it lasts until then." in words) is (told["pace"]["quota_ends_on"] is None)
    history_is_shown(tab, told["history"])
    assert tab.troubles == []


def history_is_shown(tab: Tab, history: Json) -> None:
    """Each day and each charge, as the API has them; names are text, whatever they hold."""
    days = text_of(tab, "details tbody tr")
    assert days == [
        f"{date.fromisoformat(each['day']):%-d %B %Y}{each['tokens']:,}" for each in history["days"]
    ]
    bars = tab.evaluate(f"{INSIDE}.querySelectorAll('.chart rect').length")
    assert bars == len(history["days"])
    rows = f"[...{INSIDE}.querySelectorAll('.wide tbody tr')]"
    shown = tab.evaluate(f"{rows}.map((row) => [...row.cells].map((cell) => cell.textContent))")
    charges = history["charges"]
    assert [(row[2], row[4]) for row in shown] == [
        (f"{each['charged_tokens']:,}", each["quality"]) for each in charges
    ]
    costs = [float(row[3].removeprefix("£").replace(",", "")) for row in shown]
    assert costs == [round(float(each["cost_gbp"]), 6) for each in charges]
    assert {each["quality"] for each in charges} == {"measured", "estimated", "partial"}
    assert shown[0][1] == "gpt-4o-mini, “<img src=x onerror=alert(1)>”"
    assert tab.evaluate(f"{INSIDE}.querySelectorAll('img').length") == 0


def test_the_day_on_which_it_ends_at_this_pace_is_told(shop: RunningGateway, tab: Tab) -> None:
    _, key = shop.new_user("lite")
    assert report(shop, key, total_tokens=999_999).status == 200
    sign_in(tab, shop, key)
    check(tab)
    ends = date.fromisoformat(status(shop, key).json["pace"]["quota_ends_on"])
    (told,) = text_of(tab, "strong")
    assert told.startswith("At this pace, ")
    assert told.endswith(f" tokens a day, it ends on {ends:%-d %B %Y}.")


def test_nothing_is_asked_unless_the_button_is_pressed(shop: RunningGateway, tab: Tab) -> None:
    _, key = shop.new_user()
    sign_in(tab, shop, key)
    check(tab)
    asked, counted = len(tab.requests), shop.metric("decisions_total")
    tab.evaluate("setTimeout(() => { window.rang = true }, 599_000) && 0")
    tab.time_passes(600)
    assert tab.evaluate("window.rang") is True, "ten minutes, by the clock of the page"
    assert report(shop, key).status == 200, "other figures by now"
    assert tab.requests[asked:] == []
    assert tab.evaluate(FIGURES)["Used"] == "0 of 100,000", "they stay as they were"
    assert shop.metric("decisions_total") - counted == 1, "the report"
    pressed_again(tab)
    assert tab.evaluate(FIGURES)["Used"] == "100 of 100,000"
    assert tab.requests[asked:] == [f"{shop.proxy}/quota/v1/status"]
    assert shop.metric("decisions_total") - counted == 2
    assert tab.troubles == []


def test_a_wrong_key_is_refused_politely_and_a_right_one_signs_in(
    shop: RunningGateway, tab: Tab
) -> None:
    for wrong in ("qg_of_nobody", "not even a key é"):
        sign_in(tab, shop, wrong)
        tab.press("Enter")
        tab.until(lambda: tab.evaluate(FORM), "the form to be back")
        refused = str(tab.evaluate("document.querySelector('#refusal').textContent"))
        assert refused.startswith("This key or token does not count here.")
        assert "sign in again" in refused
        assert tab.focused() == ("textbox", "Your key or token")
        assert tab.evaluate("document.activeElement.ariaInvalid") == "true"
        assert tab.evaluate("document.querySelector('#credential').value") == ""
    _, key = shop.new_user()
    tab.type(key)
    tab.press("Enter")
    tab.until(lambda: tab.focused() == ("button", CHECK), "to be signed in")
    check(tab)
    # What Chromium itself writes down about an answer of 401.
    assert [each for each in tab.troubles if "401" not in each] == []


def test_what_cannot_be_told_is_said_with_what_to_do(shop: RunningGateway, tab: Tab) -> None:
    _, key = shop.new_user()
    sign_in(tab, shop, key)
    check(tab)
    with frozen(redis_url_of(shop.settings)):
        pressed_again(tab)
        assert said(tab) == (
            "The gateway cannot answer this at the moment. Nothing is lost, and your quota stays "
            "as it is. Wait a second and press again."
        )
        assert tab.evaluate(FIGURES) == {}, "no figures that nobody vouches for"
        assert tab.evaluate(FORM) is False, "the key is not to blame"
    away = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    tab.call("Network.emulateNetworkConditions", offline=True, **away)
    pressed_again(tab)
    assert said(tab).startswith("The gateway does not answer.")
    tab.call("Network.emulateNetworkConditions", offline=False, **away)

    def answered() -> bool:
        pressed_again(tab)
        return said(tab).startswith("Figures of ")

    tab.until(answered, "Redis to be back")


def test_to_buy_leads_to_the_checkout_and_what_is_paid_is_shown(
    shop: RunningGateway, stripe_api: StripeApi, tab: Tab
) -> None:
    user, key = shop.new_user("lite", 1_000_000)
    sign_in(tab, shop, key)
    check(tab)
    assert "Your quota is used up." in text_of(tab, "strong")
    assert "Upgrade to “full”" in tab.heard("link")
    asked = len(tab.requests)
    tab.click("button", "Buy 320,000 tokens for £2.00")
    tab.until(lambda: tab.requests[-1].startswith(CHECKOUT), "the checkout")
    assert tab.requests[asked:][:1] == [f"{shop.proxy}/quota/v1/topup"]
    session = stripe_api.sessions[tab.requests[-1].removeprefix(CHECKOUT)]
    assert (session["amount_total"], session["client_reference_id"]) == (200, user)
    raw = event("checkout.session.completed", paid(session))
    assert pay(shop, raw) == 200
    sign_in(tab, shop, key)
    check(tab)
    assert tab.evaluate(FIGURES)["In packs"] == "320,000"
    assert "No call was charged in this period." in text_of(tab, "p")


def pay(shop: RunningGateway, raw: bytes) -> int:
    """What Stripe does with an event."""
    headers = {"Stripe-Signature": signature(raw)}
    return ask(f"{shop.proxy}/quota/v1/payments/stripe", "POST", raw, headers).status


def test_each_tier_is_offered_what_it_may_have(
    shop: RunningGateway, gateway: RunningGateway, tab: Tab
) -> None:
    offers = {
        "free": (["Upgrade to “lite”"], []),
        "lite": (["Upgrade to “full”"], ["Buy 320,000 tokens for £2.00"]),
        "full": ([], ["Buy 320,000 tokens for £2.00"]),
    }
    for tier, (links, buttons) in offers.items():
        sign_in(tab, shop, shop.new_user(tier)[1])
        check(tab)
        assert tab.heard("link") == links
        assert [each for each in tab.heard("button") if each.startswith("Buy")] == buttons
        hrefs = tab.evaluate(f"[...{INSIDE}.querySelectorAll('a')].map((each) => each.href)")
        assert hrefs == ["https://app.test/plans"] * len(links)
    assert tab.troubles == []
    # Without addresses and without payments: who can help.
    sign_in(tab, gateway, gateway.new_user("full")[1])
    check(tab)
    tab.click("button", "Buy 320,000 tokens for £2.00")
    sold_elsewhere = "Packs cannot be paid for here. Ask those who run this service."
    tab.until(lambda: said(tab) == sold_elsewhere, "to be told")


def test_the_key_is_kept_in_memory_only(shop: RunningGateway, tab: Tab) -> None:
    _, key = shop.new_user()
    sign_in(tab, shop, key)
    check(tab)
    kept = "[localStorage.length, sessionStorage.length, document.cookie, location.href]"
    assert tab.evaluate(kept) == [0, 0, "", f"{shop.proxy}/quota/"]
    assert not any(key in url for url in tab.requests)
    assert all(url.startswith(f"{shop.proxy}/quota/") for url in tab.requests)
    assert key not in tab.evaluate("document.documentElement.outerHTML")
    tab.click("button", "Sign out")
    tab.until(lambda: tab.evaluate(FORM), "the form")
    assert tab.evaluate(FIGURES) == {}
    for element in ("quota-status", "quota-mails"):
        assert tab.evaluate(f"document.querySelector('{element}').credential") is None
    sign_in(tab, shop, key)
    tab.reload()
    assert tab.evaluate(FORM) is True


def faults(tab: Tab) -> list[str]:
    """What axe-core finds wrong on the page, of whatever weight."""
    tab.evaluate((FOLDER / "node_modules" / "axe-core" / "axe.min.js").read_text() + ";0")
    asked = "axe.run().then(({ violations, passes }) => [violations, passes.length])"
    found, checked = tab.evaluate(asked)
    assert checked > 10, "axe has looked"
    return [f"{each['impact']} {each['id']}: {each['nodes'][0]['html']}" for each in found]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_everybody_can_use_it(
    shop: RunningGateway,
    of_a_month: tuple[str, str],
    tab: Tab,
    size: tuple[int, int],
    scheme: str,
) -> None:
    install()
    tab.looks(size, scheme)
    _, key = of_a_month
    sign_in(tab, shop, "qg_of_nobody")
    assert faults(tab) == []
    tab.press("Enter")
    tab.until(lambda: tab.evaluate(FORM), "to be refused")
    assert faults(tab) == []
    tab.type(key)
    tab.press("Enter")
    tab.until(lambda: tab.focused() == ("button", CHECK), "to be signed in")
    check(tab)
    assert tab.focused() == ("button", CHECK), "the focus stays where the person is"
    tab.evaluate(f"{INSIDE}.querySelector('details').open = true")
    show_mails(tab)
    assert faults(tab) == []
    wide = "document.documentElement.scrollWidth <= innerWidth"
    assert tab.evaluate(wide) is True, "nothing to scroll sideways"
    heard = tab.heard("heading")
    assert heard == ["My token status", "Packs", "This period, day by day", "Last charges", "Mails"]
    pictures = [each for each in tab.heard("image") if each]
    assert pictures[0].startswith(f"{tab.evaluate(FIGURES)['Used'].split()[0]} tokens used, ")
    assert pictures[1].startswith("Tokens on each day from ")
