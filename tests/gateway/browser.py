"""Chromium as a person uses it: keys, clicks on what has a name, and what is seen and heard.

Driven over its DevTools pipe (https://chromedevtools.github.io/devtools-protocol/), so that nothing
listens and nothing is installed for it. What goes wrong in a page is kept in `troubles`, what it
asks for in `requests`. Names resolve to nothing but this machine.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.gateway.page_server import FLAGS, chromium
from tests.gateway.waiting_for import until

Json = dict[str, Any]

_WAIT_S = 30.0
_FOR_READING, _FOR_WRITING = 3, 4  # the descriptors that Chromium takes
_ALONE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
_KEYS = {"Tab": (9, ""), "Enter": (13, "\r"), "Space": (32, " ")}
PHONE, DESKTOP = (390, 844), (1200, 900)


class Pipe:
    """Messages of JSON, each ended by a zero byte; events come between answers."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading, self._writing = reading, writing
        self._rest, self._last_id = b"", 0
        self._answers: dict[int, Json] = {}
        self.on_event: Callable[[Json], None] = lambda _: None

    def call(self, method: str, session: str | None = None, **params: Any) -> Json:
        """One command and its result."""
        self._last_id = own = self._last_id + 1
        said = {"id": own, "method": method, "params": params}
        if session:
            said["sessionId"] = session
        os.write(self._writing, json.dumps(said).encode() + b"\0")
        answer = until(partial(self._answer, own), _WAIT_S, f"the answer to {method}")
        assert "error" not in answer, (method, answer)
        return dict(answer["result"])

    def take_in(self, wait_s: float) -> None:
        """What has come, or comes within this time."""
        if not select.select([self._reading], [], [], wait_s)[0]:
            return
        *whole, self._rest = (self._rest + os.read(self._reading, 1 << 20)).split(b"\0")
        for each in map(json.loads, whole):
            if "id" in each:
                self._answers[each["id"]] = each
            else:
                self.on_event(each)

    def _answer(self, own: int) -> Json | None:
        self.take_in(0.1)
        return self._answers.pop(own, None)


class Tab:
    """One page, which shares nothing with any other. One at a time is listened to."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        pipe.on_event = self._heard
        self.troubles: list[str] = []
        self.requests: list[str] = []
        self._events: list[str] = []
        self._session = ""
        self._context = pipe.call("Target.createBrowserContext")["browserContextId"]
        place = {"url": "about:blank", "browserContextId": self._context}
        target = pipe.call("Target.createTarget", **place)["targetId"]
        attached = pipe.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Audits", "DOM", "Accessibility"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)
        self.looks(DESKTOP)

    def close(self) -> None:
        self._pipe.call("Target.disposeBrowserContext", browserContextId=self._context)

    def call(self, method: str, **params: Any) -> Json:
        return self._pipe.call(method, self._session, **params)

    def _heard(self, event: Json) -> None:
        if event.get("sessionId") != self._session:
            return  # of an earlier tab, or of the browser itself
        method, said = event["method"], event["params"]
        self._events.append(method)
        if method == "Network.requestWillBeSent":
            self.requests.append(said["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            details = said["exceptionDetails"]
            self.troubles.append(str(details.get("exception", details).get("description", details)))
        elif method == "Runtime.consoleAPICalled" and said["type"] in ("error", "warning"):
            self.troubles.append(str(said["args"]))
        elif method == "Log.entryAdded" and said["entry"]["level"] in ("error", "warning"):
            self.troubles.append(f"{said['entry']['text']} ({said['entry'].get('url')})")
        elif method == "Audits.issueAdded":
            self.troubles.append(json.dumps(said["issue"]))

    # --- where it is, and how it looks -----------------------------------------------------

    def open(self, url: str) -> None:
        """Go there, and wait until the page and all that it names has come."""
        self._after("Page.loadEventFired", lambda: self.call("Page.navigate", url=url))

    def reload(self) -> None:
        self._after("Page.loadEventFired", lambda: self.call("Page.reload"))

    def looks(self, size: tuple[int, int], scheme: str = "light") -> None:
        """A screen of this size, on a device set to light or dark."""
        width, height = size
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme_wanted = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[scheme_wanted])

    def picture(self, place: Path, height: int, top: float = 0) -> None:
        """The page from `top` down, so far."""
        width = self.evaluate("document.documentElement.clientWidth")
        part = {"x": 0, "y": top, "width": width, "height": height, "scale": 1}
        shot = self.call(
            "Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=part
        )
        place.write_bytes(base64.b64decode(shot["data"]))

    def time_passes(self, seconds: int) -> None:
        """Every timer of the page that is due within this time has run, in no time."""
        self._after(
            "Emulation.virtualTimeBudgetExpired",
            lambda: self.call(
                "Emulation.setVirtualTimePolicy",
                policy="pauseIfNetworkFetchesPending",
                budget=seconds * 1000,
            ),
        )

    def _after(self, event: str, action: Callable[[], object]) -> None:
        self._events.clear()
        action()
        self.until(lambda: event in self._events, event)

    def until(self, found: Callable[[], Any], what: str) -> Any:
        """The first true answer, taking in meanwhile what the page says."""

        def look() -> Any:
            self._pipe.take_in(0.02)
            return found()

        return until(look, _WAIT_S, what)

    # --- what a person does ----------------------------------------------------------------

    def type(self, text: str) -> None:
        """Into what has the focus."""
        self.call("Input.insertText", text=text)

    def press(self, key: str) -> None:
        code, text = _KEYS[key]
        named = {"key": text or key, "code": key, "windowsVirtualKeyCode": code}
        if key == "Enter":
            named["key"] = key
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **named)
        self.call("Input.dispatchKeyEvent", type="keyUp", **named)

    def click(self, role: str, name: str) -> None:
        """What a screen reader calls so."""
        node = self.until(lambda: self._node(role, name), f"the {role} {name!r}")
        where = {"backendNodeId": node["backendDOMNodeId"]}
        self.call("DOM.scrollIntoViewIfNeeded", **where)
        quad = self.call("DOM.getContentQuads", **where)["quads"][0]
        x, y = (quad[0] + quad[4]) / 2, (quad[1] + quad[5]) / 2
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    # --- what a person perceives -----------------------------------------------------------

    def heard(self, role: str) -> list[str]:
        """The names of all that has this role, in their order."""
        return [_said(node, "name") for node in self._nodes() if _said(node, "role") == role]

    def focused(self) -> tuple[str, str]:
        """Role and name of what has the focus."""
        for node in self._nodes():
            held = {each["name"]: each["value"].get("value") for each in node.get("properties", [])}
            if held.get("focused") and _said(node, "role") != "RootWebArea":
                return _said(node, "role"), _said(node, "name")
        return "", ""

    def evaluate(self, expression: str) -> Any:
        """The value of an expression, or of its promise."""
        done = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def _node(self, role: str, name: str) -> Json | None:
        said = ((_said(node, "role"), _said(node, "name"), node) for node in self._nodes())
        return next((node for *found, node in said if found == [role, name]), None)

    def _nodes(self) -> list[Json]:
        nodes: list[Json] = self.call("Accessibility.getFullAXTree")["nodes"]
        return [node for node in nodes if not node.get("ignored")]


def _said(node: Json, what: str) -> str:
    return str(node.get(what, {}).get("value", ""))


@contextmanager
def tab_of(pipe: Pipe) -> Iterator[Tab]:
    """A tab that is closed at the end."""
    opened = Tab(pipe)
    try:
        yield opened
    finally:
        opened.close()


@contextmanager
def browser() -> Iterator[Pipe]:
    """A Chromium that starts and ends here, with a profile of its own."""
    to_read, its_writing = os.pipe()
    its_reading, to_write = os.pipe()

    def hand_over() -> None:
        # First out of the way: one of ours may be where one of its own must be.
        ours = [fcntl.fcntl(each, fcntl.F_DUPFD, 64) for each in (its_reading, its_writing)]
        os.dup2(ours[0], _FOR_READING)
        os.dup2(ours[1], _FOR_WRITING)

    with tempfile.TemporaryDirectory(prefix="qg-chromium-", ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [chromium(), *FLAGS, _ALONE, f"--user-data-dir={profile}", "--remote-debugging-pipe"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            close_fds=False,  # the two are kept; all others of Python end with exec anyway
            preexec_fn=hand_over,
        )
        os.close(its_reading)
        os.close(its_writing)
        try:
            yield Pipe(to_read, to_write)
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # it is several processes
            process.wait()
            os.close(to_read)
            os.close(to_write)
