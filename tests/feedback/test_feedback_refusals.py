"""What the rating page refuses over HTTP: other sites, other hosts, malformed forms, bad names and starts."""

from __future__ import annotations

import asyncio
import re
import sys
from urllib.parse import urlencode

import pytest
from feedback_rater import SCALES, URL, Rater, full, stored, testclient

from modern_rlhf.errors import ConfigError, DataError, OutputError
from modern_rlhf.feedback.guard import MAX_BODY
from modern_rlhf.feedback.server import build_app, open_room, prepare, serve


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
