"""The rating page over HTTP, in the test's own process: flows, sittings, escaping."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

from feedback_rater import MARKUP, SCALES, URL, Rater, full, stored, testclient

from modern_rlhf.errors import OutputError
from modern_rlhf.feedback.server import build_app, open_room
from modern_rlhf.feedback.store import load_feedback, load_forms


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
