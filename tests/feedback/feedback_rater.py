"""A rater's browser without a window, and what it fills in: for the tests of the rating page over HTTP."""

from __future__ import annotations

import re

import pytest

from modern_rlhf.records import ASPECTS

fastapi = pytest.importorskip("fastapi", reason="the extra `feedback` (fastapi) is not installed")
testclient = pytest.importorskip("starlette.testclient", reason="httpx is not installed")

MARKUP = '<img src=x onerror="alert(1)"></code></pre><script>alert(2)</script>&amp;'
SCALES = [f"{aspect}_{side}" for aspect in ASPECTS for side in "LR"]
URL = "http://127.0.0.1:8000"


def full(**changes):
    """The fields of a complete comparison."""
    return {**dict.fromkeys(SCALES, "1"), "comparison_slider": "0", **changes}


class Rater:
    """A browser of one rater."""

    def __init__(self, app, name="ann"):
        self.client = testclient.TestClient(app, base_url=URL, follow_redirects=True)
        self.page = self.post("/start", name=name).text

    def get(self, path):
        response = self.client.get(path)
        self.page = response.text
        return response

    def post(self, path, *, headers=None, **fields):
        response = self.client.post(path, data=fields, headers=headers)
        self.page = response.text
        return response

    @property
    def token(self):
        return re.search(r'name="token" value="([^"]+)"', self.page)[1]

    @property
    def shown(self):
        return re.search(r'name="shown" value="([^"]*)"', self.page)[1]

    def act(self, action, **fields):
        hidden = {"token": self.token, "shown": self.shown}
        return self.post("/rate", action=action, **{**hidden, **fields})


def stored(folder):
    return sorted(path for path in folder.iterdir() if path.suffix == ".json")
