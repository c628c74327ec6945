"""The switches of mails on the status page, in Chromium: moved, saved, said, and what can fail."""

from __future__ import annotations

from typing import Any

from tests.gateway.browser import Tab
from tests.gateway.loopback import ask
from tests.gateway.page_pictures import (
    CHECK,
    MAILS,
    SHOW_MAILS,
    SWITCHES,
    heard_of_mails,
    show_mails,
    sign_in,
    with_address,
)
from tests.gateway.running_gateway import RunningGateway

NO_CONDITION = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}


def wishes(gateway: RunningGateway, key: str) -> dict[str, bool]:
    """What the gateway knows."""
    headers = {"Authorization": f"Bearer {key}"}
    said: Any = ask(f"{gateway.proxy}/quota/v1/preferences", headers=headers).json
    return {each["kind"]: each["enabled"] for each in said["preferences"]}


def shown(tab: Tab) -> list[bool]:
    """Whether each switch is on, in their order."""
    found: list[bool] = tab.evaluate(
        f"[...{MAILS}.querySelectorAll('input')].map((each) => each.checked)"
    )
    return found


def until_said(tab: Tab, words: str) -> None:
    tab.until(lambda: heard_of_mails(tab).startswith(words), words)


def test_each_kind_is_turned_off_and_on_by_key_and_pointer_and_saved_at_once(
    gateway: RunningGateway, tab: Tab
) -> None:
    user, key = gateway.new_user()
    with_address(gateway, user, "ada@example.org")
    sign_in(tab, gateway, key)
    tab.press("Tab")
    assert tab.focused() == ("button", SHOW_MAILS)
    asked = len(tab.requests)
    tab.press("Enter")
    until_said(tab, "Each switch is saved as you move it.")
    assert tab.heard("switch") == list(SWITCHES.values())
    assert tab.evaluate(f"{MAILS}.querySelector('p:not([role])').textContent") == (
        "Mails go to ada@example.org."
    )
    tab.press("Tab")
    assert tab.focused() == ("switch", SWITCHES["crossing"])
    tab.press("Space")
    until_said(tab, "Saved. You get no more mails when part of your monthly tokens is used.")
    everything = dict.fromkeys(SWITCHES, True)
    assert wishes(gateway, key) == everything | {"crossing": False}
    assert tab.focused() == ("switch", SWITCHES["crossing"]), "the focus stays"
    for words in ("no more mails", "mails"):
        tab.click("switch", SWITCHES["exhausted"])
        until_said(tab, f"Saved. You get {words} when your monthly tokens are used up.")
    assert wishes(gateway, key) == everything | {"crossing": False}
    assert tab.requests[asked:] == [f"{gateway.proxy}/quota/v1/preferences"] * 4
    assert tab.troubles == []
    sign_in(tab, gateway, key)
    show_mails(tab)
    assert shown(tab) == [False, True, True, True, True]


def test_what_is_not_saved_goes_back_and_is_said_with_what_to_do(
    gateway: RunningGateway, tab: Tab
) -> None:
    user, key = gateway.new_user()
    sign_in(tab, gateway, key)
    show_mails(tab)
    told = tab.evaluate(f"{MAILS}.querySelector('p:not([role])').textContent")
    assert told.startswith("No e-mail address is known of you, so no mail can reach you.")
    tab.call("Network.emulateNetworkConditions", offline=True, **NO_CONDITION)
    tab.click("switch", SWITCHES["pack_low"])
    until_said(tab, "This is not saved. The gateway does not answer.")
    assert shown(tab) == [True] * 5
    tab.call("Network.emulateNetworkConditions", offline=False, **NO_CONDITION)
    # Moved thrice before the first is saved: the last one stays.
    tab.evaluate(f"[1, 2, 3].forEach(() => {MAILS}.querySelectorAll('input')[2].click())")
    tab.until(lambda: wishes(gateway, key)["pack_low"] is False, "the last move")
    assert shown(tab) == [True, True, False, True, True]
    (known,) = gateway.cli("key", "list", user)
    gateway.cli("key", "revoke", known["key_id"])
    tab.click("switch", SWITCHES["crossing"])
    tab.until(lambda: tab.focused() == ("textbox", "Your key or token"), "the form to be back")
    refused = str(tab.evaluate("document.querySelector('#refusal').textContent"))
    assert "This key or token does not count here." in refused
    assert tab.evaluate(f"{MAILS}.querySelectorAll('input').length") == 0
    assert CHECK not in tab.heard("button")
