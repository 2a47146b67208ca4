"""Reading the three shapes of feedback, and what one form means."""

from __future__ import annotations

import json

import pytest

from modern_rlhf.errors import DataError
from modern_rlhf.feedback.forms import parse_form
from modern_rlhf.feedback.store import is_feedback, load_feedback, load_forms


def test_one_form_yields_two_ratings_a_pair_and_labels(form, save):
    feedback = load_feedback(save(a=form()))
    left, right = feedback.ratings
    assert (left.response, right.response) == ("x.sort()", "sorted(x)")
    assert left.scores == {"consistent": 2.0, "correct": 2.0, "useful": 2.0}
    assert right.scores == {"consistent": 1.0, "correct": 2.0, "useful": 0.0}
    assert (left.rater, left.group_id, left.source) == ("ann", "42", "a.json")
    (pair,) = feedback.pairs
    # 2 + 2 + 2 - (1 + 2 + 0) = 3
    assert (pair.chosen, pair.rejected, pair.margin) == ("x.sort()", "sorted(x)", 3.0)
    assert (pair.rater, pair.group_id, pair.prompt) == ("ann", "42", "sort `x`")
    assert [(a.completion, a.label) for a in feedback.labelled] == [
        ("x.sort()", True),
        ("sorted(x)", True),
    ]


def test_the_right_side_can_win_and_a_negative_score_is_undesirable(form, save):
    changed = form(consistent_L=-2, correct_L=-2, useful_L=-2, comparison_slider=2)
    feedback = load_feedback(save(a=changed))
    assert (feedback.pairs[0].chosen, feedback.pairs[0].margin) == ("sorted(x)", 9.0)
    assert [a.label for a in feedback.labelled] == [False, True]


@pytest.mark.parametrize(("slider", "chosen"), [(-2, "x.sort()"), (1, "sorted(x)")])
def test_a_tie_is_broken_by_the_slider_whose_negative_side_is_left(form, save, slider, chosen):
    feedback = load_feedback(save(a=form(useful_L=-1, comparison_slider=slider)))
    (pair,) = feedback.pairs
    assert (pair.chosen, pair.margin) == (chosen, float(abs(slider)))
    assert "1 ties broken by the slider" in feedback.report.line()


def test_the_scores_win_over_a_slider_that_contradicts_them(form, save):
    feedback = load_feedback(save(a=form(comparison_slider=2)))
    assert feedback.pairs[0].chosen == "x.sort()"
    assert "1 sliders contradict the scores" in feedback.report.line()


def test_a_full_tie_gives_ratings_but_no_pair(form, save):
    feedback = load_feedback(save(a=form(useful_L=-1, comparison_slider=0)))
    assert (len(feedback.ratings), feedback.pairs) == (2, [])
    assert feedback.report.rows_kept == 1
    assert "1 ties give no pair" in feedback.report.line()


def test_an_untouched_form_is_dropped_and_counted(form, save):
    folder = save(a=form(), b=form(zeros=True, comparison_slider=0))
    report = load_feedback(folder).report
    assert (report.rows_read, report.rows_kept) == (2, 1)
    assert report.skipped == {"untouched forms": 1}


def test_a_form_with_only_the_slider_moved_gives_a_pair_without_ratings(form, save):
    feedback = load_feedback(save(a=form(zeros=True, comparison_slider=-2)))
    assert feedback.ratings == [] and feedback.labelled == []
    assert (feedback.pairs[0].chosen, feedback.pairs[0].margin) == ("x.sort()", 2.0)
    assert "1 forms with only the slider moved" in feedback.report.line()


def test_each_rating_keeps_its_own_sides_question(form, save):
    values = form()
    values["questions_df"][1]["Question"] = '"""sort `x`"""'
    feedback = load_feedback(save(a=values))
    assert [r.prompt for r in feedback.ratings] == ["sort `x`", '"""sort `x`"""']
    assert feedback.pairs[0].prompt == "sort `x`"
    assert "1 forms with different question texts" in feedback.report.line()


def test_equal_answers_make_no_pair(form, save):
    values = form()
    values["questions_df"][1]["Answer"] = "\nx.sort() "
    feedback = load_feedback(save(a=values))
    assert feedback.pairs == [] and len(feedback.ratings) == 2
    assert "1 pairs of equal answers left out" in feedback.report.line()


def test_synthetic_forms_stay_marked(form, save):
    feedback = load_feedback(save(a=form(synthetic=True)))
    assert feedback.pairs[0].synthetic and all(r.synthetic for r in feedback.ratings)
    assert not load_feedback(save(a=form())).pairs[0].synthetic


def test_rating_lists_and_single_ratings_map_by_subtracting_three(save):
    def rating(value, **more):
        return {"id": 1, "prompt": "p", "response": "r", "rating": value, "comment": "", **more}

    folder = save(many=[rating(5), rating(3), rating(1.5)], one=rating(2, rater="bob"))
    feedback = load_feedback(folder)
    assert [r.scores for r in feedback.ratings] == [
        {"overall": 2.0},
        {"overall": 0.0},
        {"overall": -1.5},
        {"overall": -1.0},
    ]
    assert [a.label for a in feedback.labelled] == [True, False, False]  # a 3 is neither
    assert feedback.ratings[3].rater == "bob"
    assert not any(r.synthetic for r in feedback.ratings)


def test_question_id_0_is_a_question(form, save):
    question = form()["questions_df"][0]["Question"]
    named = [{**side, "ID": 0} for side in form()["questions_df"]]
    rows = [{"question_id": 0, "prompt": question, "response": "y", "rating": 4}]
    feedback = load_feedback(save(a=form(questions_df=named), b=rows))
    assert [rating.group_id for rating in feedback.ratings] == ["0", "0", "0"]
    rows = [{"prompt": question, "response": "y", "rating": 4}]
    assert load_feedback(save(c=rows)).ratings[-1].group_id == ""


def test_rater_weights_reach_every_record_and_zero_leaves_out(form, save):
    rated = {"prompt": "p", "response": "r", "rating": 5, "rater": "bob"}
    folder = save(a=form(), b=form(name_input="eve"), c=rated)  # a is ann's
    found = load_feedback(folder, rater_weights={"ann": 0.5, "eve": 0.0})
    assert [(r.rater, r.weight) for r in found.ratings] == [
        ("ann", 0.5),
        ("ann", 0.5),
        ("bob", 1.0),
    ]
    assert [(pair.rater, pair.weight) for pair in found.pairs] == [("ann", 0.5)]
    assert [a.weight for a in found.labelled] == [0.5, 0.5, 1.0]
    assert len(load_feedback(folder).ratings) == 5
    with pytest.raises(DataError, match="'anne', who rated nothing; did you mean 'ann'"):
        load_feedback(folder, rater_weights={"anne": 2.0})


def test_the_three_shapes_may_stand_in_one_folder(form, save):
    rating = {"id": 1, "prompt": "p", "response": "r", "rating": 4, "comment": "fine"}
    folder = save(a=form(), model_synthetic_human_feedback_20240101=[rating], c={**rating})
    feedback = load_feedback(folder)
    assert feedback.report.rows_read == 3
    assert feedback.report.format == "comparison form+1-5 rating"
    assert [r.synthetic for r in feedback.ratings] == [False, False, False, True]


def test_what_is_no_feedback_is_counted_and_an_unrated_answer_too(form, save):
    unrated = {"id": 1, "prompt": "p", "response": "r", "rating": None, "comment": ""}
    folder = save(a=form(), b={"name": "package"}, c=[3, unrated])
    report = load_feedback(folder).report
    assert report.skipped == {"not a feedback record": 2, "answers without a rating": 1}
    assert report.rows_read == report.rows_kept + sum(report.skipped.values())


def test_hidden_and_temporary_files_are_never_read(form, save):
    folder = save(a=form())
    (folder / ".half.json").write_text("{")
    (folder / ".b-123.tmp").write_text("{")
    assert load_feedback(folder).report.rows_read == 1


def test_a_single_file_is_read_too(form, save):
    assert len(load_feedback(save(a=form()) / "a.json").pairs) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"useful_R": 3}, "'useful_R' is 3; expected a whole number from -2 to 2"),
        ({"useful_R": None}, "'useful_R' is None"),
        ({"useful_R": True}, "'useful_R' is True"),
        ({"useful_R": 0.5}, "'useful_R' is 0.5"),
        ({"comparison_slider": "1"}, "'comparison_slider' is '1'"),
        ({"comparison_slider": float("nan")}, "'comparison_slider' is nan"),
        ({"datetime": "yesterday"}, "expected YYYY-MM-DD HH:MM:SS"),
        ({"name_input": 7}, "'name_input' is 7; expected text"),
        ({"questions_df": []}, "'questions_df' must be a list of two objects"),
        ({"questions_df": [1, 2]}, "left side: expected an object"),
        ({"questions_df": [{"ID": 1, "Question": "q"}, {}]}, "left side: 'Answer' is None"),
        ({"questions_df": [{"ID": [], "Question": "q", "Answer": "a"}, {}]}, "'ID' is []"),
    ],
)
def test_a_bad_form_is_an_error_that_names_file_and_field(form, save, changes, message):
    folder = save(good=form(), wrong=form(**changes))
    with pytest.raises(DataError) as caught:
        load_feedback(folder)
    assert "wrong.json" in str(caught.value) and message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ('{"a": 1,\n}', "line 2: broken JSON ("),
        ("[" * 100_000, "broken JSON ("),
        ({"prompt": "p", "response": "r", "rating": 6}, "'rating' is 6; expected a number from 1"),
        ({"prompt": "p", "response": "r", "rating": "4"}, "'rating' is '4'"),
        ({"prompt": "p", "response": None, "rating": 4}, "'response' is None; expected text"),
        ({"prompt": "p", "response": "\ud800", "rating": 4}, "\\ud800 is half of a surrogate pair"),
    ],
)
def test_a_bad_file_is_one_line_that_names_it(form, save, content, message):
    folder = save(good=form(), wrong=content)
    with pytest.raises(DataError) as caught:
        load_feedback(folder)
    text = str(caught.value)
    assert "wrong.json" in text and message in text and "\n" not in text


def test_missing_empty_and_useless_folders(form, save, tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        load_feedback(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no \.json file; expected a comparison form"):
        load_feedback(tmp_path / "empty")
    with pytest.raises(DataError, match="none of 1 rows is usable"):
        load_feedback(save(a=form(zeros=True, comparison_slider=0)))


def test_is_feedback(form, save, tmp_path):
    assert is_feedback(save(a=form()))
    (tmp_path / "conala.json").write_text('[{"intent": "i", "snippet": "s"}]')
    assert not is_feedback(tmp_path / "conala.json")
    (tmp_path / "x.csv").write_text("a\n1\n")
    assert not is_feedback(tmp_path / "x.csv")
    (tmp_path / "none").mkdir()
    assert not is_feedback(tmp_path / "none")


def test_a_form_survives_reading_and_writing_unchanged(form):
    values = form(comment="good", synthetic=True)
    assert parse_form(values, "x").to_json() == values
    assert parse_form(form(), "x").to_json() == form()


def test_every_real_form_survives_reading_and_writing_unchanged(real_forms):
    forms = load_forms(real_forms)
    assert len(forms) == 207
    for path, parsed in forms:
        assert parsed.to_json() == json.loads(path.read_text(encoding="utf-8"))
