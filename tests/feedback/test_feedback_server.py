"""The rating page over HTTP, in the test's own process: flows, refusals, escaping."""

from __future__ import annotations

import asyncio
import html
import json
import re
import sys
from pathlib import Path
from urllib.parse import urlencode

import pytest

from modern_rlhf.errors import ConfigError, DataError, OutputError
from modern_rlhf.feedback.guard import MAX_BODY
from modern_rlhf.feedback.server import build_app, open_room, prepare, serve
from modern_rlhf.feedback.store import load_feedback, load_forms
from modern_rlhf.records import ASPECTS

fastapi = pytest.importorskip("fastapi", reason="the extra `feedback` (fastapi) is not installed")
testclient = pytest.importorskip("starlette.testclient", reason="httpx is not installed")

MARKUP = '<img src=x onerror="alert(1)"></code></pre><script>alert(2)</script>&amp;'
SCALES = [f"{aspect}_{side}" for aspect in ASPECTS for side in "LR"]
URL = "http://127.0.0.1:8000"


def full(**changes):
    """The fields of a complete comparison."""
    return {**dict.fromkeys(SCALES, "1"), "comparison_slider": "0", **changes}


@pytest.fixture
def answers(tmp_path):
    rows = [
        {
            "prompt": f"question {n} {MARKUP}",
            "response": f"{m} = {n} {MARKUP}",
            "model": f"model-{m}",
            "question_id": n,
        }
        for n in range(3)
        for m in "ab"
    ]
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


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


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "ratings"


@pytest.fixture
def app(answers, folder):
    return build_app(open_room(answers, folder), host="127.0.0.1", port=8000)


def stored(folder):
    return sorted(path for path in folder.iterdir() if path.suffix == ".json")


def test_a_saved_form_is_the_comparison_form_and_is_read_back(app, folder):
    rater = Rater(app)
    assert "0 of 3 rated" in rater.page
    rater.act("save", **full(correct_L="-2", useful_R="2", comparison_slider="2", comment="ok\r\n"))
    assert "1 of 3 rated" in rater.page and "Saved." in rater.page
    (path,) = stored(folder)
    assert re.fullmatch(r"\d{4}(-\d\d){5}-ann\.json", path.name)
    values = json.loads(path.read_text())
    keys = ["name_input", "datetime", "address", "comparison_slider", *SCALES, "questions_df"]
    assert sorted(values) == sorted([*keys, "comment"])
    side = ["level_0", "index", "ID", "Question", "Answer", "CSV_PATH", "CODE_FORMATTING"]
    assert all(sorted(s) == sorted([*side, "MODEL_TAG"]) for s in values["questions_df"])
    assert (values["correct_L"], values["useful_R"], values["comment"]) == (-2, 2, "ok")
    feedback = load_feedback(folder)
    assert (len(feedback.ratings), len(feedback.pairs)) == (2, 1)
    # left 1 - 2 + 1 = 0, right 1 + 1 + 2 = 4
    assert feedback.pairs[0].margin == 4.0
    assert feedback.pairs[0].chosen == values["questions_df"][1]["Answer"]


def test_what_is_stored_is_what_was_on_screen(app, folder):
    rater = Rater(app)
    sides = [
        html.unescape(re.sub("<[^>]+>", "", text))
        for text in re.findall(r"<pre[^>]*>\n<code>(.*?)</code></pre>", rater.page, re.DOTALL)
    ]
    rater.act("save", **full())
    values = json.loads(stored(folder)[0].read_text())
    assert [side["Answer"] for side in values["questions_df"]] == sides


def test_the_page_is_blind_and_escapes_everything(app):
    rater = Rater(app, name=f"Eve {MARKUP[:60]}")
    for _ in range(3):
        assert "model-" not in rater.page
        assert "<img" not in rater.page and "<script>" not in rater.page
        assert html.escape('onerror="alert(1)"') in rater.page
        rater.act("save", **full(comment=MARKUP))
        rater.act("back")
        assert "<img" not in rater.page
        rater.act("save", **full(comment=MARKUP))


def test_everything_rated_ends_in_thanks_and_can_be_taken_back(app, folder):
    rater = Rater(app)
    for _ in range(3):
        rater.act("save", **full())
    assert "nothing left for you to rate" in rater.page and "3 of 3 rated" in rater.page
    rater.act("undo")
    assert "2 of 3 rated" in rater.page
    assert len(stored(folder)) == 2
    assert len(list(folder.glob("*.json.withdrawn"))) == 1  # nothing is deleted
    rater.act("save", **full(comparison_slider="1"))
    assert "3 of 3 rated" in rater.page
    assert len(load_forms(folder)) == 3


def test_skipping_stores_nothing_and_moves_on(app, folder):
    rater = Rater(app)
    first = re.search(r"question \d", rater.page)[0]
    rater.act("skip")
    assert re.search(r"question \d", rater.page)[0] != first
    assert stored(folder) == []
    rater.act("back")
    assert re.search(r"question \d", rater.page)[0] == first


def test_going_back_shows_the_answers_and_saving_replaces_them(app, folder):
    rater = Rater(app)
    rater.act("save", **full(correct_L="2", comparison_slider="-1", comment="first"))
    rater.act("back")
    assert re.search(r'name="correct_L" value="2" required checked', rater.page)
    assert 'value="-1" aria-describedby' in rater.page and ">first</textarea>" in rater.page
    rater.act("save", **full(correct_L="-2", comment="second"))
    (form,) = [form for _, form in load_forms(folder)]
    assert (form.left_scores["correct"], form.comment) == (-2, "second")


def test_a_form_sent_twice_is_stored_once(app, folder):
    rater = Rater(app)
    token = rater.token
    for _ in range(3):
        response = rater.post("/rate", token=token, action="save", **full())
        assert response.status_code == 200
    assert len(stored(folder)) == 1


def test_a_restart_remembers_what_is_in_the_folder(app, answers, folder):
    rater = Rater(app)
    rater.act("save", **full())
    again = build_app(open_room(answers, folder), host="127.0.0.1", port=8000)
    back = Rater(again)
    assert "1 of 3 rated" in back.page
    for _ in range(2):
        back.act("save", **full())
    assert "nothing left" in back.page
    keys = {form.left.question_id for _, form in load_forms(folder)}
    assert keys == {0, 1, 2} and len(stored(folder)) == 3


@pytest.mark.parametrize("missing", [*SCALES, "comparison_slider"])
def test_an_incomplete_form_is_refused_and_shown_again(app, folder, missing):
    rater = Rater(app)
    fields = full(comment="kept")
    del fields[missing]
    response = rater.act("save", **fields)
    assert response.status_code == 422 and 'role="alert"' in rater.page
    assert "<title>Problem - Rate answers</title>" in rater.page
    assert ">kept</textarea>" in rater.page  # nothing typed is lost
    assert stored(folder) == []
    assert rater.act("save", **full()).status_code == 200 and len(stored(folder)) == 1


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"correct_L": "3"}, 422),
        ({"correct_L": "1.5"}, 422),
        ({"correct_L": " 1"}, 422),
        ({"comparison_slider": "-3"}, 422),
        ({"comment": "x" * 4001}, 422),
        ({"comment": "a\0b"}, 400),
        ({"comment": "x" * MAX_BODY}, 413),
        ({f"extra{n}": "" for n in range(40)}, 400),
        ({"action": "explode"}, 400),
        ({"token": "forged"}, 409),
        ({"token": ""}, 409),
    ],
)
def test_malformed_submissions_get_a_4xx_and_change_nothing(app, folder, changes, status):
    rater = Rater(app)
    fields = {"token": rater.token, "action": "save", **full(), **changes}
    response = rater.post("/rate", **fields)
    assert response.status_code == status
    assert list(folder.iterdir()) == []
    rater.get("/rate")
    assert "0 of 3 rated" in rater.page


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (b"{}", "application/json", 415),
        (b"a=1", "text/plain", 415),
        (b"a=1", "multipart/form-data", 415),
        (b"a=%ff", "application/x-www-form-urlencoded", 400),
        (b"caf\xe9=1", "application/x-www-form-urlencoded", 400),
        (b"token=a&token=b", "application/x-www-form-urlencoded", 400),
        (b"no equals sign", "application/x-www-form-urlencoded", 400),
        (b"", "application/x-www-form-urlencoded", 409),
    ],
)
def test_malformed_bodies_are_refused(app, folder, content, content_type, status):
    rater = Rater(app)
    response = rater.client.post("/rate", content=content, headers={"Content-Type": content_type})
    assert response.status_code == status
    assert 'role="alert"' in response.text
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:8001"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "evil.example"},
        {"Host": "evil.example:8000"},
        {"Host": ""},
        {"Host": "127.0.0.1:8000@evil.example"},
        {"Host": "127.0.0.1.evil.example:8000"},
        {"Referer": "https://evil.example/127.0.0.1:8000"},
        {"Origin": "http://[", "Referer": f"{URL}/rate"},
        {"Origin": ""},
    ],
)
def test_cross_site_submissions_are_refused(app, folder, headers):
    rater = Rater(app)
    response = rater.post("/rate", headers=headers, token=rater.token, action="save", **full())
    assert response.status_code == 403
    assert stored(folder) == []


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1:9000", "[::1]:8000", "LocalHost"])
def test_a_local_page_may_be_reached_through_a_tunnel(answers, folder, host):
    app = build_app(open_room(answers, folder), host="127.0.0.1", port=8000)
    client = testclient.TestClient(app, base_url=f"http://{host}")
    body = {"name": "ann"}
    assert client.post("/start", data=body, headers={"Origin": f"http://{host}"}).status_code == 200
    other = client.post("/start", data=body, headers={"Origin": "http://localhost:3000"})
    assert other.status_code == 403


def test_own_pages_are_accepted(app, folder):
    rater = Rater(app)
    headers = {"Origin": URL, "Sec-Fetch-Site": "same-origin"}
    rater.post("/rate", headers=headers, token=rater.token, action="save", **full())
    assert len(stored(folder)) == 1


def test_another_raters_token_is_worth_nothing(app, folder):
    ann, bob = Rater(app, "ann"), Rater(app, "bob")
    response = bob.post("/rate", token=ann.token, action="save", **full())
    assert response.status_code == 409 and stored(folder) == []


def test_a_form_sent_again_with_other_answers_is_refused_and_said(app, folder):
    """Two windows of one browser: what was typed in the second must not vanish in silence."""
    rater = Rater(app)
    token = rater.token
    rater.act("save", **full(useful_L="2"))
    shown = rater.shown
    response = rater.post("/rate", token=token, action="save", **full(useful_L="-2"))
    assert response.status_code == 409 and "perhaps in another window" in rater.page
    assert rater.shown == shown  # the next pair, to go on with
    assert [form.left_scores["useful"] for _, form in load_forms(folder)] == [2]


def test_one_rater_in_two_browsers_is_one_sitting(app, folder):
    first, second = Rater(app, "Ann"), Rater(app, " Ann ")
    assert first.token == second.token
    first.act("save", **full())
    second.get("/rate")
    second.act("save", **full())
    first.get("/rate")
    assert "2 of 3 rated" in first.page
    assert len({form.left.question_id for _, form in load_forms(folder)}) == 2


def test_a_name_is_the_same_however_its_accents_are_written(app, folder):
    first = Rater(app, "Ren\u00e9")
    first.act("save", **full())
    second = Rater(app, "Rene\u0301")
    assert "1 of 3 rated" in second.page
    second.act("save", **full())
    assert {form.rater for _, form in load_forms(folder)} == {"Ren\u00e9"}


def restarted(answers, folder, rater, **options):
    """The same browser before a server that was started again."""
    app = build_app(open_room(answers, folder, **options), host="127.0.0.1", port=8000)
    rater.client = testclient.TestClient(
        app, base_url=URL, follow_redirects=True, cookies=dict(rater.client.cookies)
    )
    return rater


def test_after_a_restart_a_rater_goes_on_where_they_were(app, answers, folder):
    rater = Rater(app)
    rater.act("save", **full(comment="first"))
    shown = rater.shown
    restarted(answers, folder, rater).get("/rate")  # without giving the name again
    assert "1 of 3 rated" in rater.page and rater.shown == shown
    rater.act("back")
    assert ">first</textarea>" in rater.page and rater.page.count(" checked>") == 6 + 1
    rater.act("save", **full(comment="again"))
    assert [form.comment for _, form in load_forms(folder)] == ["again"]
    rater.act("undo")
    assert stored(folder) == [] and "0 of 3 rated" in rater.page


def test_what_was_typed_while_the_server_was_away_is_kept(app, answers, folder):
    rater = Rater(app)
    shown = rater.shown
    token = rater.token
    restarted(answers, folder, rater)
    fields = full(useful_R="-2", comment="typed before", shown=shown)
    assert rater.post("/rate", token=token, action="save", **fields).status_code == 409
    assert stored(folder) == [] and "nothing was changed" in rater.page
    assert rater.shown == shown and ">typed before</textarea>" in rater.page
    assert re.search(r'name="useful_R" value="-2" required checked', rater.page)
    rater.act("save", **fields)
    (path,) = stored(folder)
    assert json.loads(path.read_text())["useful_R"] == -2


def test_what_was_typed_is_dropped_where_the_sides_changed(app, answers, folder):
    rater = Rater(app)
    key, _, order = rater.shown.partition("-")
    restarted(answers, folder, rater)
    fields = full(comment="of other sides", shown=f"{key}-{order[::-1]}")
    rater.post("/rate", token="of the old server", action="save", **fields)
    assert rater.shown == f"{key}-{order}" and "of other sides" not in rater.page


def test_answers_may_change_between_restarts(app, answers, folder):
    rater = Rater(app)
    for _ in range(3):
        rater.act("save", **full())
    rows = [json.loads(line) for line in Path(answers).read_text().splitlines()]
    rows = [row for row in rows if row["question_id"] != 1]  # a question went, another came first
    rows = [{"prompt": "new", "response": text} for text in "xy"] + rows
    Path(answers).write_text("".join(json.dumps(row) + "\n" for row in rows))
    restarted(answers, folder, rater).get("/rate")
    assert "2 of 3 rated" in rater.page
    rater.act("save", **full())
    assert "nothing left" in rater.page and len(stored(folder)) == 4


def test_a_single_rating_is_gone_back_to_after_a_restart(answers, folder):
    app = build_app(open_room(answers, folder, mode="single"), host="127.0.0.1", port=8000)
    rater = Rater(app)
    rater.act("save", rating="4", comment="fine")
    restarted(answers, folder, rater, mode="single").get("/rate")
    rater.act("back")
    assert 'value="4" required checked' in rater.page and ">fine</textarea>" in rater.page
    rater.act("skip")
    rater.act("undo")
    assert "0 of 6 rated" in rater.page and 'value="4" required checked' in rater.page
    assert stored(folder) == []


def test_a_sitting_that_was_put_away_loses_nothing(app, folder, monkeypatch):
    """Memory is bounded, whoever sends however many names."""
    from modern_rlhf.feedback import sessions

    monkeypatch.setattr(sessions, "MAX_SESSIONS", 1)
    ann = Rater(app, "ann")
    ann.act("save", **full(comment="hers"))
    shown = ann.shown
    Rater(app, "bob")
    ann.get("/rate")
    assert ann.shown == shown and "1 of 3 rated" in ann.page
    ann.act("undo")
    assert ">hers</textarea>" in ann.page and stored(folder) == []


def test_two_servers_on_one_machine_keep_their_raters_apart(answers, tmp_path):
    names = set()
    for port in (8000, 8001):
        app = build_app(open_room(answers, tmp_path / str(port)), host="127.0.0.1", port=port)
        client = testclient.TestClient(app, base_url=f"http://127.0.0.1:{port}")
        client.post("/start", data={"name": "ann"})
        names |= set(client.cookies)
    assert len(names) == 2  # browsers send the cookies of all ports to each of them


def test_who_leaves_frees_the_pair_and_meets_what_was_skipped_again(answers, folder):
    app = build_app(open_room(answers, folder, raters_per_item=1), host="127.0.0.1", port=8000)
    ann = Rater(app, "ann")
    shown = ann.shown
    for _ in range(3):
        ann.act("skip")
    assert "nothing left" in ann.page and "You skipped 3" in ann.page
    ann.post("/leave", sent="")
    assert Rater(app, "ann").shown == shown


def test_a_browser_that_goes_away_while_it_sends_is_no_error(app, folder):
    """A traceback for each closed tab would fill the terminal."""
    kind = (b"content-type", b"application/x-www-form-urlencoded")
    host = (b"host", URL.removeprefix("http://").encode())
    scope = {
        "type": "http", "method": "POST", "path": "/start", "raw_path": b"/start", "query_string": b"",
        "headers": [host, kind], "http_version": "1.1", "scheme": "http", "server": ("127.0.0.1", 8000),
    }  # fmt: skip
    sent = []

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 400 and list(folder.iterdir()) == []


def test_without_a_sitting_nothing_is_stored(app, folder):
    client = testclient.TestClient(app, base_url=URL)
    response = client.post("/rate", data={"token": "x", "action": "save", **full()})
    assert response.status_code == 403 and "begin again" in response.text
    shown = client.get("/rate", follow_redirects=False)
    assert (shown.status_code, shown.headers["location"]) == (303, "/")


@pytest.mark.parametrize("name", ["", "   ", "x" * 81, "a\x07b", "a\u202eb"])
def test_names_that_are_none_are_refused(app, name):
    client = testclient.TestClient(app, base_url=URL)
    response = client.post("/start", data={"name": name})
    assert response.status_code == 422 and "Please give a name" in response.text


def test_a_hostile_name_stays_inside_the_folder(app, folder, tmp_path):
    rater = Rater(app, name="../../../evil/\\..\\x:y")
    rater.act("save", **full())
    (path,) = stored(folder)
    assert re.fullmatch(r"\d{4}(-\d\d){5}-evil-x-y\.json", path.name)
    assert {p.name for p in tmp_path.iterdir()} == {"answers.jsonl", "ratings"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/static/../server.py", 404),
        ("GET", "/static/server.py", 404),
        ("GET", "/static/%2e%2e%2fserver.py", 404),
        ("GET", "/docs", 404),
        ("GET", "/openapi.json", 404),
        ("GET", "/start", 405),
        ("PUT", "/rate", 405),
        ("DELETE", "/rate", 405),
    ],
)
def test_other_addresses_and_methods(app, method, path, status):
    response = testclient.TestClient(app, base_url=URL).request(method, path)
    assert response.status_code == status and "<h1>" in response.text


def test_every_response_forbids_outside_content(app):
    rater = Rater(app)
    for path in ("/", "/rate", "/static/page.css", "/static/page.js", "/nothing"):
        response = rater.client.get(path)
        policy = response.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'") and "http" not in policy
        assert response.headers["x-content-type-options"] == "nosniff"
        outside = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?:https?:)?//""", response.text)
        assert outside == []


def test_the_cookie_is_strict_and_hidden_from_scripts(app):
    client = testclient.TestClient(app, base_url=URL)
    response = client.post("/start", data={"name": "ann"}, follow_redirects=False)
    cookie = response.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie


def test_leaving_ends_the_sitting(app):
    rater = Rater(app)
    rater.post("/leave", sent="")
    assert "Your name" in rater.page
    assert rater.get("/rate").url.path == "/"


def test_two_raters_get_the_same_pair_so_that_agreement_can_be_measured(app, folder):
    ann = Rater(app, "ann")
    ann.act("save", **full())
    bob = Rater(app, "bob")
    bob.act("save", **full())
    ids = {form.left.question_id for _, form in load_forms(folder)}
    assert len(ids) == 1


def test_single_answers_get_a_rating_from_1_to_5(answers, folder):
    app = build_app(open_room(answers, folder, mode="single"), host="127.0.0.1", port=8000)
    rater = Rater(app)
    assert "0 of 6 rated" in rater.page and "comparison_slider" not in rater.page
    assert rater.act("save", comment="no rating").status_code == 422
    assert rater.act("save", rating="6").status_code == 422
    rater.act("save", rating="4", comment="fine")
    (path,) = stored(folder)
    values = json.loads(path.read_text())
    assert (values["rating"], values["comment"], values["rater"]) == (4, "fine", "ann")
    (rating,) = load_feedback(folder).ratings
    assert rating.scores == {"overall": 1.0} and rating.rater == "ann"
    again = build_app(open_room(answers, folder, mode="single"), host="127.0.0.1", port=8000)
    assert "1 of 6 rated" in Rater(again).page


def test_a_rating_that_cannot_be_stored_is_said_and_can_be_sent_again(app, folder, monkeypatch):
    from modern_rlhf.feedback import sessions

    def full_disk(*args, **kwargs):
        raise OutputError("the rating could not be stored (No space left on device)")

    rater = Rater(app)
    with monkeypatch.context() as patch:
        patch.setattr(sessions, "write_new_json", full_disk)
        response = rater.act("save", **full(comment="kept"))
        assert response.status_code == 507
        assert "No space left" in rater.page and ">kept</textarea>" in rater.page
    rater.act("save", **full())
    assert len(stored(folder)) == 1


def test_a_public_server_answers_to_addresses_and_own_names_only(answers, folder, monkeypatch):
    """A name of an attacker's that resolves to this machine (DNS rebinding) is not one of them."""
    import socket

    monkeypatch.setattr(socket, "gethostname", lambda: "Lab7.example.org")
    app = build_app(open_room(answers, folder), host="0.0.0.0", port=8000)
    names = {
        "192.168.0.7:8000": 200, "[fe80::1]:8000": 200, "localhost:8000": 200, "lab7.local:80": 200,
        "lab7.example.org:8000": 200, "evil.example:8000": 403, "192.168.0.7.evil.example": 403,
    }  # fmt: skip
    for name, status in names.items():
        client = testclient.TestClient(app, base_url=f"http://{name}")
        assert client.get("/").status_code == status, name


def test_a_public_address_takes_changes_from_its_own_pages_only(answers, folder):
    app = build_app(open_room(answers, folder), host="0.0.0.0", port=8000)
    client = testclient.TestClient(app, base_url="http://192.168.0.7:8000")
    body = urlencode({"name": "ann"})
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    wrong = client.post("/start", content=body, headers={**kind, "Origin": "http://evil.example"})
    assert wrong.status_code == 403
    right = client.post(
        "/start", content=body, headers={**kind, "Origin": "http://192.168.0.7:8000"}
    )
    assert right.status_code == 200


def test_bad_starts_are_one_line(answers, tmp_path, monkeypatch):
    with pytest.raises(DataError, match="no such file"):
        serve(str(tmp_path / "nothing.jsonl"), tmp_path)
    with pytest.raises(ConfigError, match="mode 'both'"):
        serve(answers, tmp_path, mode="both")
    with pytest.raises(OutputError, match="cannot be used for ratings"):
        serve(answers, answers)
    with pytest.raises(ConfigError, match="cannot listen on 127.0.0.1:99999"):
        serve(answers, tmp_path / "r", port=99999)
    with pytest.raises(ConfigError, match="the host is empty"):
        serve(answers, tmp_path / "r", host="")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ConfigError, match=r"pip install 'modern-rlhf\[feedback\]'"):
        serve(answers, tmp_path / "r")


def test_a_leading_tilde_is_the_home_folder(answers, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert prepare("~/ratings") == tmp_path / "ratings"
    open_room("~/answers.jsonl", "~/ratings")
    assert {path.name for path in tmp_path.iterdir()} == {"answers.jsonl", "ratings"}


def test_a_port_in_use_is_one_line(answers, tmp_path):
    import socket

    pytest.importorskip("uvicorn", reason="the extra `feedback` (uvicorn) is not installed")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}"):
            serve(answers, tmp_path / "r", port=port)
