"""A few lines of the WebDriver protocol, enough to drive headless Chromium without a package."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

KEYS = {"tab": "\ue004", "enter": "\ue007", "right": "\ue014", "left": "\ue012", "space": " "}
CONTROL = "\ue009"
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


def missing() -> str:
    """Why there is no browser to test with; empty when there is one."""
    names = {
        "chromedriver": ("chromedriver",),
        "chromium": ("chromium", "chromium-browser", "google-chrome"),
    }
    for what, candidates in names.items():
        if not any(shutil.which(name) for name in candidates):
            return f"no {what} on this machine (Debian: apt install chromium chromium-driver)"
    return ""


class Browser:
    """One headless browser window."""

    def __init__(self, width: int = 1200, height: int = 900) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._driver = subprocess.Popen(
            ["chromedriver", f"--port={port}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._base = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 60
        while True:
            try:
                if self._call("GET", "/status")["ready"]:
                    break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        options = {"args": [*arguments, f"--window-size={width},{height}"]}
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
        wanted["capabilities"]["alwaysMatch"]["goog:loggingPrefs"] = {"browser": "ALL"}
        session = self._call("POST", "/session", wanted)["sessionId"]
        self._base += f"/session/{session}"

    def close(self) -> None:
        try:
            self._call("DELETE", "")
        finally:
            self._driver.terminate()
            self._driver.wait(30)

    def open(self, url: str) -> None:
        self._call("POST", "/url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript in the page and return its value."""
        return self._call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def keys(self, *texts: str) -> None:
        """Press keys one after another on whatever has the focus; "ctrl+enter" holds Control."""
        actions = []
        for text in texts:
            held, _, name = text.rpartition("+")
            key = KEYS.get(name, name)
            if held:
                actions.append({"type": "keyDown", "value": CONTROL})
            for char in key:
                actions += [{"type": "keyDown", "value": char}, {"type": "keyUp", "value": char}]
            if held:
                actions.append({"type": "keyUp", "value": CONTROL})
        self._call(
            "POST", "/actions", {"actions": [{"type": "key", "id": "k", "actions": actions}]}
        )

    def click(self, selector: str) -> None:
        found = self._call("POST", "/element", {"using": "css selector", "value": selector})
        self._call("POST", f"/element/{found[_ELEMENT]}/click", {})

    def wait(self, script: str, seconds: float = 60.0) -> Any:
        """Wait until a JavaScript expression is true; survives the page changing under it."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                value = self.run(f"return {script}")
            except RuntimeError:
                value = None
            if value:
                return value
            if time.monotonic() > deadline:
                raise TimeoutError(f"{script} did not become true; the page: {self.text()[:500]}")
            time.sleep(0.05)

    def text(self) -> str:
        return self.run("return document.body.innerText")

    def size(self, width: int, height: int) -> None:
        self._call("POST", "/window/rect", {"width": width, "height": height})

    def screen(self, width: int | None, height: int = 740) -> None:
        """Pretend to be a screen of this size (desktop windows cannot be so narrow); None ends it."""
        command = "setDeviceMetricsOverride" if width else "clearDeviceMetricsOverride"
        size = {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": True}
        body = {"cmd": f"Emulation.{command}", "params": size if width else {}}
        self._call("POST", "/goog/cdp/execute", body)

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._call("GET", "/screenshot")))

    def log(self) -> list[str]:
        """Console messages since the last call: errors of scripts and of the content policy."""
        return [entry["message"] for entry in self._call("POST", "/se/log", {"type": "browser"})]

    def axtree(self) -> list[tuple[str, str]]:
        """(role, name) of everything a screen reader meets, in order."""
        body = {"cmd": "Accessibility.getFullAXTree", "params": {}}
        nodes = self._call("POST", "/goog/cdp/execute", body)["nodes"]
        return [
            (node.get("role", {}).get("value", ""), node.get("name", {}).get("value", ""))
            for node in nodes
            if not node.get("ignored")
        ]

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._base + path, data=data, method=method)
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            value = json.load(error)["value"]
            raise RuntimeError(f"{value['error']}: {value['message'].splitlines()[0]}") from None
