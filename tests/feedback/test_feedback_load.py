"""Many raters at once, and a server killed in the middle: nothing lost, doubled or halved."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode

import pytest

from modern_rlhf.feedback.answers import form_key
from modern_rlhf.feedback.store import load_feedback, load_forms
from modern_rlhf.records import ASPECTS

pytest.importorskip("fastapi", reason="the extra `feedback` (fastapi) is not installed")
pytest.importorskip("uvicorn", reason="the extra `feedback` (uvicorn) is not installed")

KIND = {"Content-Type": "application/x-www-form-urlencoded"}
SCALES = dict.fromkeys([f"{aspect}_{side}" for aspect in ASPECTS for side in "LR"], "1")


class Server:
    """The rating page in a process of its own, which can be killed and started again."""

    def __init__(self, tmp_path, questions: int) -> None:
        self.folder = tmp_path / "ratings"
        self._answers = tmp_path / "answers.jsonl"
        rows = [
            {"prompt": f"question {n}", "response": f"{m} = {n}", "question_id": n}
            for n in range(questions)
            for m in "ab"
        ]
        self._answers.write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.start()

    def start(self) -> None:
        code = (
            "import sys; from modern_rlhf.feedback.server import serve\n"
            "serve(sys.argv[1], sys.argv[2], port=0, raters_per_item=999,"
            " announce=lambda text: print(text, flush=True))"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, str(self._answers), str(self.folder)],
            stdout=subprocess.PIPE,
            text=True,
        )
        line = self._process.stdout.readline()
        self.port = int(re.search(r":(\d+)/", line)[1])

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._process.stdout.close()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(60)
        self._process.stdout.close()


class Rater:
    """One rater with a connection of its own; every form that was accepted is counted."""

    def __init__(self, server: Server, name: str) -> None:
        self._server, self._name = server, name
        self.accepted = 0

    def enter(self) -> str:
        self._port = self._server.port
        self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=120)
        self._cookie = {}
        cookie = self._send("POST", "/start", {"name": self._name})[1].getheader("set-cookie")
        self._cookie = {"Cookie": cookie.partition(";")[0]}
        return self._send("GET", "/rate")[0]

    def rate_all(self) -> None:
        """Rate until nothing is left; after a crash of the server begin again."""
        page = None
        while True:
            try:
                page = page or self.enter()
                found = re.search(r'name="token" value="([^"]+)"', page)
                if "nothing left for you" in page:
                    return
                fields = {**SCALES, "token": found[1], "action": "save", "comparison_slider": "1"}
                _, answer = self._send("POST", "/rate", fields)
                assert answer.status == 303, answer.status
                self.accepted += 1
                page = self._send("GET", "/rate")[0]
            except (OSError, http.client.HTTPException):
                page = None
                deadline = time.monotonic() + 120
                while self._server.port == self._port and time.monotonic() < deadline:
                    time.sleep(0.05)

    def _send(self, method, path, fields=None):
        body = None if fields is None else urlencode(fields)
        self._connection.request(method, path, body, {**KIND, **self._cookie})
        answer = self._connection.getresponse()
        return answer.read().decode(), answer


def rate(server: Server, raters: int) -> list[Rater]:
    people = [Rater(server, f"rater {n:02}") for n in range(raters)]
    with ThreadPoolExecutor(raters) as pool:
        list(pool.map(Rater.rate_all, people))
    return people


def check(server: Server, raters: int, questions: int) -> None:
    forms = [form for _, form in load_forms(server.folder)]
    counts = Counter((form.rater, form_key(form)) for form in forms)
    assert len(counts) == raters * questions  # none lost
    assert set(counts.values()) == {1}  # none twice
    assert load_feedback(server.folder).report.rows_kept == raters * questions


def test_a_few_raters_at_once(tmp_path):
    server = Server(tmp_path, questions=5)
    try:
        people = rate(server, 4)
    finally:
        server.stop()
    assert [rater.accepted for rater in people] == [5] * 4
    check(server, 4, 5)


@pytest.mark.slow
def test_64_raters_submit_2048_forms(tmp_path):
    server = Server(tmp_path, questions=32)
    try:
        people = rate(server, 64)
    finally:
        server.stop()
    assert sum(rater.accepted for rater in people) == 2048
    check(server, 64, 32)


@pytest.mark.slow
def test_a_server_killed_in_the_middle_loses_and_doubles_nothing(tmp_path):
    server = Server(tmp_path, questions=20)
    done = threading.Event()

    def killer() -> None:
        for fraction in (0.2, 0.5, 0.8):
            while (
                not done.is_set() and len(list(server.folder.glob("[!.]*.json"))) < fraction * 320
            ):
                time.sleep(0.002)
            server.kill()
            for path in server.folder.glob("[!.]*.json"):
                json.loads(path.read_text())  # whole, at the very moment of the kill
            server.start()

    thread = threading.Thread(target=killer)
    thread.start()
    try:
        rate(server, 16)
    finally:
        done.set()
        thread.join(120)
        server.stop()
    check(server, 16, 20)
