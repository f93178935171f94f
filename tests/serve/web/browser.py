"""Headless Chromium, driven over the WebDriver protocol by Debian's chromedriver."""

import base64
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

FLAGS = (
    "--headless",
    "--no-sandbox",  # continuous integration runs as root
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    # it would otherwise look for its maker's hosts
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""The key under which WebDriver puts an element's name"""
ENTER, ESCAPE, TAB = "\ue007", "\ue00c", "\ue004"
SHIFT, RELEASED = "\ue008", "\ue000"
PATIENCE_S = 30.0


def why_no_browser() -> str | None:
    """Why there are no tests in a browser, or None."""
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"no {' and no '.join(missing)} on this machine" if missing else None


class Browser:
    """One window."""

    def __init__(self, http: httpx.Client, session: str) -> None:
        self._http = http
        self._session = session

    def ask(self, method: str, path: str, **body: Any) -> Any:
        """A command of WebDriver; its value."""
        content = {"json": body} if method == "POST" else {}
        answer = self._http.request(method, f"/session/{self._session}{path}", **content).json()
        value = answer["value"]
        assert not (isinstance(value, dict) and "error" in value), value
        return value

    def open(self, url: str) -> None:
        self.ask("POST", "/url", url=url)

    def run(self, script: str, *arguments: Any) -> Any:
        """The value that a function's body returns."""
        return self.ask("POST", "/execute/sync", script=script, args=list(arguments))

    def type(self, selector: str, text: str) -> None:
        self.ask("POST", f"/element/{self.find(selector)}/value", text=text)

    def press(self, keys: str) -> None:
        """Keys to whatever has the focus."""
        strokes = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self.ask("POST", "/actions", actions=[{"type": "key", "id": "k", "actions": strokes}])

    def click(self, selector: str) -> None:
        self.ask("POST", f"/element/{self.find(selector)}/click")

    def find(self, selector: str) -> str:
        return self.ask("POST", "/element", using="css selector", value=selector)[ELEMENT]

    def texts(self, selector: str) -> list[str]:
        """What is seen of each element that is shown."""
        every = "[...document.querySelectorAll(arguments[0])]"
        return self.run(
            f"return {every}.filter(e => e.checkVisibility()).map(e => e.innerText)", selector
        )

    def text(self, selector: str) -> str:
        found = self.texts(selector)
        assert len(found) == 1, (selector, found)
        return found[0]

    def is_shown(self, selector: str) -> bool:
        script = "return !!document.querySelector(arguments[0])?.checkVisibility()"
        return self.run(script, selector)

    def wait(self, script: str, *arguments: Any) -> Any:
        """Until an expression is true; its value."""
        deadline = time.monotonic() + PATIENCE_S
        while not (value := self.run(f"return {script}", *arguments)):
            seen = self.run("return document.body.innerText")
            assert time.monotonic() < deadline, f"never true: {script}; the page says: {seen}"
            time.sleep(0.03)
        return value

    def resize(self, width: int, height: int, is_dark: bool = False) -> None:
        """The size of the page, and which colours its user prefers."""
        for name, values in (
            (
                "Emulation.setDeviceMetricsOverride",
                {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
            ),
            (
                "Emulation.setEmulatedMedia",
                {
                    "features": [
                        {
                            "name": "prefers-color-scheme",
                            "value": "dark" if is_dark else "light",
                        }
                    ]
                },
            ),
        ):
            self.ask("POST", "/goog/cdp/execute", cmd=name, params=values)

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.ask("GET", "/screenshot")))

    def log(self) -> list[str]:
        """Errors and warnings of the console since the last time, policy violations among them."""
        return [entry["message"] for entry in self.ask("POST", "/se/log", type="browser")]


@contextmanager
def browsing(profile: Path) -> Iterator[Browser]:
    """A browser with an empty profile."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    driver = subprocess.Popen(
        ["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
        try:
            _wait_for(http, driver)
            options = {"args": [*FLAGS, f"--user-data-dir={profile}"]}
            wishes = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            answer = http.post("/session", json={"capabilities": {"alwaysMatch": wishes}}).json()
            assert "sessionId" in answer["value"], answer
            session = answer["value"]["sessionId"]
            yield Browser(http, session)
            http.delete(f"/session/{session}")
        finally:
            driver.terminate()
            driver.wait(20)


def _wait_for(http: httpx.Client, driver: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        assert driver.poll() is None and time.monotonic() < deadline, "chromedriver did not start"
        try:
            http.get("/status")
            return
        except httpx.TransportError:
            time.sleep(0.05)
