"""Agreement against an independent computation, rater lines, and the summary."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from itertools import permutations

import pytest

from modern_rlhf.errors import DataError
from modern_rlhf.feedback.agreement import (
    agreement,
    krippendorff_alpha,
    model_lines,
    rater_lines,
    summary,
)
from modern_rlhf.feedback.forms import ComparisonForm, Side
from modern_rlhf.records import ASPECTS

LEVELS = (-2.0, -1.0, 0.0, 1.0, 2.0)


def naive_alpha(units, levels):
    """Krippendorff 2011 with coincidences counted pair by pair, ordinal distance by the marginals."""
    pairs = Counter()
    for unit in units:
        values = list(unit.values())
        for a, b in permutations(range(len(values)), 2):
            pairs[values[a], values[b]] += 1 / (len(values) - 1)
    n_of = {v: sum(pairs[v, w] for w in levels) for v in levels}
    n = sum(n_of.values())

    def distance(v, w):
        between = [u for u in levels if min(v, w) <= u <= max(v, w)]
        return (sum(n_of[u] for u in between) - (n_of[v] + n_of[w]) / 2) ** 2

    observed = sum(pairs[v, w] * distance(v, w) for v in levels for w in levels)
    expected = sum(n_of[v] * n_of[w] * distance(v, w) for v in levels for w in levels) / (n - 1)
    return 1 - observed / expected


UNITS = [
    {"a": 2.0, "b": 1.0},
    {"a": -2.0, "b": -2.0, "c": -1.0},
    {"a": 0.0, "c": 2.0},
    {"b": 1.0, "c": 1.0},
    {"c": -1.0},
]


def test_alpha_agrees_with_a_naive_loop():
    pytest.importorskip("krippendorff", reason="the package krippendorff is not installed")
    found = krippendorff_alpha(UNITS, LEVELS)
    assert found.units == 4
    assert found.value == pytest.approx(naive_alpha(UNITS[:4], LEVELS), abs=1e-12)


def test_alpha_is_one_for_perfect_agreement_and_none_without_shared_units():
    pytest.importorskip("krippendorff", reason="the package krippendorff is not installed")
    assert krippendorff_alpha([{"a": 1.0, "b": 1.0}, {"a": -1.0, "b": -1.0}], LEVELS).value == 1.0
    alone = krippendorff_alpha([{"a": 1.0}, {"b": 2.0}], LEVELS)
    assert alone.value is None and alone.reason == "nothing was rated by two raters"
    same = krippendorff_alpha([{"a": 1.0, "b": 1.0}], LEVELS)
    assert same.value is None and "all shared ratings are the same" in same.reason


def test_without_the_package_the_reason_says_how_to_get_it(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "krippendorff", None)
    assert "pip install krippendorff" in krippendorff_alpha(UNITS, LEVELS).text()


def a_form(rater, left, right, *, slider=0, swap=False, question=1, answers=("a", "b")):
    sides = [Side("q", answer, question) for answer in answers]
    scores = [dict.fromkeys(("consistent", "correct", "useful"), v) for v in (left, right)]
    if swap:
        sides, scores, slider = sides[::-1], scores[::-1], -slider
    return ComparisonForm(
        rater, "2024-01-01 00:00:00", sides[0], sides[1], slider, scores[0], scores[1]
    )


def test_agreement_does_not_depend_on_the_side_an_answer_stood_on():
    pytest.importorskip("krippendorff", reason="the package krippendorff is not installed")
    values = [(2, -1), (1, 2), (-2, 0), (0, -2)]
    forms = []
    for question, (left, right) in enumerate(values):
        forms.append(a_form("ann", left, right, question=question))
        forms.append(a_form("bob", left, right, question=question, swap=True))
    found = agreement(forms)
    assert {name: alpha.value for name, alpha in found.items()} == dict.fromkeys(found, 1.0)
    assert found["preference"].units == 4 and found["correct"].units == 8


def test_untouched_forms_are_no_agreement():
    forms = [a_form(rater, 0, 0) for rater in ("ann", "bob")]
    assert agreement(forms)["preference"].units == 0


def test_rater_lines_by_hand():
    forms = [
        a_form("ann", 2, 0),  # prefers left; means (2 + 0) / 2 = 1
        a_form("ann", 0, 0, question=2),  # untouched
        a_form("ann", 1, 1, question=3),  # tie; means over four answers (2 + 0 + 1 + 1) / 4 = 1
        a_form("bob", -1, 1),  # prefers right; mean 0
    ]
    ann, bob = rater_lines(forms)
    assert (ann.forms, ann.untouched, ann.ties, ann.left) == (3, 1, 1, 1.0)
    assert ann.means == {"consistent": 1.0, "correct": 1.0, "useful": 1.0}
    assert ann.bias == 1.0 and bob.bias == -1.0
    assert (bob.forms, bob.left) == (1, 0.0)


def test_the_summary_names_raters_ties_and_untouched_forms(form, save):
    folder = save(
        a=form(),
        b=form(name_input="bob\x1b[31m"),
        c=form(zeros=True, comparison_slider=0),
        d=form(name_input="eve", useful_L=-1, comparison_slider=0, synthetic=True),
        e=[{"id": 1, "prompt": "p", "response": "r", "rating": 4, "comment": "", "rater": "zoe"}],
    )
    text = summary(folder)
    assert "4 forms: 1 untouched, 1 ties, 2 prefer the left answer, 0 the right one" in text
    assert "1 of them by a simulated rater" in text
    assert "1 ratings from 1 to 5, mean 4.00:" in text
    assert re.search(r"^zoe +1 +4\.00 +-$", text, re.MULTILINE)
    assert "\x1b" not in text  # a rater's name cannot command the terminal
    assert "skipped 1 untouched forms" in text


def test_the_summary_of_ratings_from_1_to_5_by_hand(save):
    pytest.importorskip("krippendorff", reason="the package krippendorff is not installed")
    rows = [
        {"prompt": "p", "response": response, "rating": value, "rater": rater}
        for rater, values in (("ann\x1b[2J", (5, 1, 3)), ("bob", (5, 1)))
        for response, value in zip("abc", values, strict=False)
    ]
    text = summary(save(a=rows))
    # ann's mean is (5 + 1 + 3) / 3 = 3, bob's (5 + 1) / 2 = 3
    assert "5 ratings from 1 to 5, mean 3.00:" in text
    assert re.search(r"^ann\?\[2J +3 +3\.00 +\+0\.00\nbob +2 +3\.00 +\+0\.00$", text, re.MULTILINE)
    assert "alpha       1.00 (2 units rated by two or more)" in text
    assert "\x1b" not in text


def test_the_summary_of_untouched_forms_says_so(form, save):
    text = summary(save(a=form(zeros=True, comparison_slider=0)))
    assert "1 forms: 1 untouched, 0 ties, 0 prefer the left answer, 0 the right one" in text


def test_the_summary_of_ties_alone(form, save):
    folder = save(a=form(zeros=True, useful_L=1, useful_R=1, comparison_slider=0))
    assert "1 forms: 0 untouched, 1 ties, 0 prefer the left" in summary(folder)


def test_nothing_rated_is_one_line(tmp_path, save):
    with pytest.raises(DataError, match="holds no .json file"):
        summary(tmp_path)
    with pytest.raises(DataError, match="none of 1 rows is usable"):
        summary(save(a={"other": 1}))


def test_model_lines_by_hand():
    answers = {"left": Side("q", "a", 1, "A"), "right": Side("q", "b", 1, "B")}
    forms = [
        a_form("ann", 2, 0),  # A wins
        a_form("ann", 2, 1, swap=True),  # A wins on the right
        a_form("bob", 0, 1),  # B wins
        a_form("bob", 1, 1),  # tie
        a_form("eve", 0, 0),  # untouched
        a_form("eve", 0, 0, slider=1),  # B wins, no scale was moved
    ]
    named = {"a": answers["left"], "b": answers["right"]}
    forms = [replace(f, left=named[f.left.answer], right=named[f.right.answer]) for f in forms]
    forms.append(replace(forms[0], right=replace(forms[0].right, model_tag="A")))
    a, b = model_lines(forms)
    assert (a.model, a.won, a.lost, a.ties) == ("A", 2, 2, 1)  # not against itself
    assert (b.model, b.won, b.lost, b.ties) == ("B", 2, 2, 1)
    assert (a.answers, b.answers) == (7, 5)
    # A's scales in the five rated forms: 2, 2, 0, 1, and 2 and 0 against itself; B's 0, 1, 1, 1
    assert a.means == dict.fromkeys(ASPECTS, 7 / 6) and b.means == dict.fromkeys(ASPECTS, 3 / 4)


def test_the_summary_tells_models_apart_by_their_ends(form, save):
    values = form()
    for side, end in zip(values["questions_df"], "xy", strict=True):
        side["MODEL_TAG"] = f"/a/long/path/to/the/models/of/a/run/{end}"
    lines = summary(save(a=values)).splitlines()
    rows = [line for line in lines if line.startswith("/a/long")]
    assert [row.split()[0][-2:] for row in rows] == ["/x", "/y"]
    assert rows[0].split()[-3:] == ["1", "0", "0"]


def test_the_summary_of_the_real_forms(real_forms):
    text = summary(real_forms)
    forms = [json.loads(path.read_text()) for path in real_forms.glob("*.json")]
    busiest, count = Counter(f["name_input"] for f in forms).most_common(1)[0]
    assert f"{busiest}     {count}" in text
    assert "207 forms: 12 untouched, 58 ties, 66 prefer the left answer, 71 the right one" in text
