"""The rating page in a real browser: by mouse, by keyboard alone, on a phone, for a screen reader.

`FEEDBACK_SCREENSHOTS=folder` keeps pictures of what was tested.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from feedback_webdriver import Browser, missing

from modern_rlhf.feedback.store import load_feedback, load_forms

pytest.importorskip("fastapi", reason="the extra `feedback` (fastapi) is not installed")
pytest.importorskip("uvicorn", reason="the extra `feedback` (uvicorn) is not installed")
pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "a browser is there")

MARKUP = "<script>document.title = 'hacked'</script><img src=x onerror=\"document.title='hacked'\">"
ANSWERS = [
    {
        "prompt": f"Sort the list `x` in descending order, case {n}. {MARKUP}",
        "response": text,
        "model": f"secret-{m}",
        "question_id": n,
    }
    for n in range(3)
    for m, text in (
        ("a", f"# {MARKUP}\n@cache\ndef order(x):\n    return sorted(x, reverse=True)[:{n}]\n"),
        (
            "b",
            "x.sort(key=lambda value: -value)  # in place\nprint('a rather long line of output', x)",
        ),
    )
]


@pytest.fixture(scope="module")
def browser():
    window = Browser()
    yield window
    window.close()


@contextmanager
def served(folder):
    """`modern-rlhf rate` in a process of its own: (its address, the folder of ratings)."""
    answers, ratings = folder / "answers.jsonl", folder / "ratings"
    answers.write_text("".join(json.dumps(row) + "\n" for row in ANSWERS))
    command = ["rate", "--answers", str(answers), "--folder", str(ratings), "--port", "0"]
    server = subprocess.Popen(
        [sys.executable, "-m", "modern_rlhf", *command], stdout=subprocess.PIPE, text=True
    )
    line = server.stdout.readline()
    yield re.search(r"http://[\d.:]+/", line)[0], ratings
    server.terminate()
    server.wait(60)
    server.stdout.close()


@pytest.fixture
def serving(tmp_path):
    """A server of the test's own, for what is stored."""
    with served(tmp_path) as found:
        yield found


@pytest.fixture(scope="module")
def looked_at(tmp_path_factory):
    """A server that several tests look at, and store nothing."""
    with served(tmp_path_factory.mktemp("looked_at")) as found:
        yield found


def begin(browser: Browser, url: str, name: str = "Ann") -> None:
    browser.run("return 0")
    browser.open(url)
    if "Change name" in browser.text():
        browser.click(".leave button")
    # The field takes the focus by itself, with the first frame that is drawn.
    browser.wait("document.activeElement?.id === 'name'")
    browser.keys(name, "enter")
    browser.wait("document.getElementById('rating')")


def status(browser: Browser, text: str) -> None:
    browser.wait(f"document.querySelector('.status')?.textContent.includes({json.dumps(text)})")


def keep(browser: Browser, name: str) -> None:
    if folder := os.environ.get("FEEDBACK_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        browser.screenshot(Path(folder) / f"{name}.png")


def test_by_mouse(browser, serving):
    url, folder = serving
    browser.size(1200, 1000)
    browser.open(url)
    keep(browser, "name")
    begin(browser, url)
    for side in "LR":
        for aspect, value in (("consistent", 2), ("correct", -1), ("useful", 0)):
            value = value if side == "L" else -value
            browser.click(f"input[name={aspect}_{side}][value='{value}']")
    assert browser.run("return document.querySelector('output').textContent") == "equal"
    keep(browser, "compare")
    browser.click("button[value=save]")
    status(browser, "Saved.")
    ((path, form),) = load_forms(folder)
    assert (form.rater, form.slider) == ("Ann", 0)
    assert form.left_scores == {"consistent": 2, "correct": -1, "useful": 0}
    assert form.right_scores == {"consistent": -2, "correct": 1, "useful": 0}
    assert re.fullmatch(r"\d{4}(-\d\d){5}-Ann\.json", path.name)
    assert "secret" not in browser.run("return document.documentElement.outerHTML")


def test_by_keyboard_alone(browser, serving):
    url, folder = serving
    begin(browser, url)
    browser.keys("5", "4", "3", "1", "2", "3")  # three scales of A, then three of B
    browser.keys("]", "]", "[")
    assert browser.run("return document.querySelector('output').textContent") == "B is better"
    browser.keys("s")
    status(browser, "Saved.")
    ((_, form),) = load_forms(folder)
    assert form.left_scores == {"consistent": 2, "correct": 1, "useful": 0}
    assert form.right_scores == {"consistent": -2, "correct": -1, "useful": 0}
    assert form.slider == 1
    browser.keys("k")
    status(browser, "Skipped.")
    browser.keys("b")
    status(browser, "previous one")
    browser.keys("u")
    status(browser, "taken back")
    assert list(folder.glob("*.json")) == []
    assert browser.run("return document.querySelectorAll(':checked[type=radio]').length") == 6
    browser.keys("ctrl+enter")
    status(browser, "Saved.")
    assert len(load_feedback(folder).ratings) == 2


def test_a_seventh_digit_sets_the_slider_and_an_eighth_nothing(browser, serving):
    url, folder = serving
    begin(browser, url)
    browser.keys(*"5432154", "1")
    assert browser.run("return document.querySelector('output').textContent") == "B is better"
    browser.keys("S")  # Caps Lock is on
    status(browser, "Saved.")
    ((_, form),) = load_forms(folder)
    assert form.left_scores == {"consistent": 2, "correct": 1, "useful": 0}
    assert form.right_scores == {"consistent": -1, "correct": -2, "useful": 2}
    assert form.slider == 1


def test_what_was_typed_outlives_a_reload_and_no_change_of_the_rater(browser, looked_at):
    url, _ = looked_at
    begin(browser, url)
    browser.keys("5", "4", "]")
    browser.click("input[name=useful_R][value='-1']")
    browser.click("textarea")
    browser.keys("half a")
    given = (
        "[[...document.querySelectorAll(':checked[type=radio]')].map(r => r.name + r.value).join(),"
        " document.querySelector('output').textContent, document.querySelector('textarea').value].join('; ')"
    )
    expected = "consistent_L2,correct_L1,useful_R-1; B is better; half a"
    assert browser.run(f"return {given}") == expected
    browser.open(f"{url}rate")
    browser.wait("document.readyState === 'complete'")
    assert browser.run(f"return {given}") == expected
    begin(browser, url, name="Bob")  # who may well get the same pair
    assert browser.run(f"return {given}") == "; equal; "


def test_a_key_held_down_acts_once(browser, looked_at):
    url, folder = looked_at
    begin(browser, url)
    held = "new KeyboardEvent('keydown', {key: 'k', repeat: true, bubbles: true})"
    browser.run(f"document.body.dispatchEvent({held})")
    browser.run(f"document.body.dispatchEvent({held.replace(', repeat: true', '')})")
    status(browser, "Skipped.")
    browser.keys("b")
    status(browser, "previous one")
    assert (
        browser.run("return document.querySelector('button[value=back]')") is None
    )  # one was skipped


def test_with_native_keys_only_and_shortcuts_switched_off(browser, serving):
    url, folder = serving
    begin(browser, url)
    browser.click("summary")
    browser.click("#shortcuts")
    browser.run("document.querySelector('input[name=consistent_L]').focus()")
    browser.keys("s", "k", "5")  # do nothing now
    assert browser.run("return document.querySelectorAll(':checked[type=radio]').length") == 0
    for scale in range(6):  # Space chooses the first level, an arrow key the second, Tab goes on
        browser.keys("space", "right", "tab")
        if scale == 2:
            browser.keys("tab")  # the text of answer B can be scrolled by keyboard, so it is a stop
    browser.keys("left", "tab")  # the slider, from 0 to -1
    browser.keys("a comment with s and k")
    browser.keys("tab", "enter")
    status(browser, "Saved.")
    ((_, form),) = load_forms(folder)
    assert set(form.left_scores.values()) == set(form.right_scores.values()) == {-1}
    assert (form.slider, form.comment) == (-1, "a comment with s and k")
    browser.click("summary")
    assert not browser.run("return document.getElementById('shortcuts').checked")  # remembered
    browser.click("#shortcuts")


def test_letters_typed_into_the_comment_are_letters(browser, looked_at):
    url, folder = looked_at
    begin(browser, url)
    browser.click("textarea")
    browser.keys("sku b 12345 []")
    assert browser.run("return document.querySelector('textarea').value") == "sku b 12345 []"
    assert not list(folder.glob("*.json"))


def test_an_incomplete_form_is_held_back_by_the_browser(browser, looked_at):
    url, folder = looked_at
    begin(browser, url)
    browser.click("button[value=save]")
    assert browser.run("return document.querySelector('form.rating').checkValidity()") is False
    assert browser.run("return document.activeElement.name") == "consistent_L"
    assert not list(folder.glob("*.json"))


def test_markup_in_questions_answers_and_names_stays_text(browser, looked_at):
    url, _ = looked_at
    browser.log()
    begin(browser, url, name="<b>Eve</b>")
    assert browser.run("return document.title") == "Rate answers"
    assert (
        browser.run("return document.querySelectorAll('main script, main img, main b').length") == 0
    )
    assert MARKUP in browser.run("return document.querySelector('.question').textContent")
    answers = browser.run("return [...document.querySelectorAll('pre')].map(p => p.textContent)")
    expected = {row["response"] for row in ANSWERS}
    assert {text.removeprefix("\n") for text in answers} <= expected
    assert "<b>Eve</b>" in browser.text()
    assert browser.log() == []  # no script error, nothing the content policy had to stop


def test_a_phone_sized_window_needs_no_sideways_scrolling(browser, looked_at):
    url, _ = looked_at
    begin(browser, url)
    browser.screen(360)
    browser.open(f"{url}rate")
    browser.wait("document.readyState === 'complete' && innerWidth === 360")
    width = browser.run("return [document.documentElement.scrollWidth, innerWidth]")
    assert width == [360, 360]
    tops = browser.run(
        "return [...document.querySelectorAll('.sides > section')]"
        ".map(s => s.getBoundingClientRect().top)"
    )
    assert tops[1] > tops[0] + 100  # one below the other
    small = browser.run(
        "return [...document.querySelectorAll('.levels label, button')]"
        ".filter(e => e.getBoundingClientRect().height < 40).length"
    )
    assert small == 0  # a finger can hit every one
    keep(browser, "phone")
    browser.run("scrollTo(0, document.body.scrollHeight)")
    keep(browser, "phone-end")
    browser.screen(None)


def test_a_desktop_window_at_400_percent_needs_no_sideways_scrolling(browser, looked_at):
    url, _ = looked_at
    begin(browser, url, name="A" * 40 + " " + "B" * 39)
    browser.screen(320, 256)  # what 1280 x 1024 leaves
    browser.open(f"{url}rate")
    browser.wait("document.readyState === 'complete' && innerWidth === 320")
    assert browser.run("return document.documentElement.scrollWidth") == 320
    keep(browser, "narrow")
    browser.screen(None)


def test_a_long_question_is_scrolled_by_keyboard(browser, looked_at):
    url, _ = looked_at
    begin(browser, url)
    browser.run("document.querySelector('.question').textContent = 'a line\\n'.repeat(200)")
    browser.run("document.querySelector('.leave button').focus()")
    browser.keys("tab", " ")
    browser.wait("document.querySelector('.question').scrollTop > 0")


def test_a_screen_reader_hears_every_control_by_name(browser, looked_at):
    url, _ = looked_at
    begin(browser, url)
    nodes = browser.axtree()
    radios = [name for role, name in nodes if role == "radio"]
    assert len(radios) == 30 and radios[:2] == ["-2, not at all", "-1, rather not"]
    groups = [name for role, name in nodes if role in ("group", "radiogroup", "Group")]
    for letter in "AB":
        for aspect in ("Consistent", "Correct", "Useful"):
            assert any(f"Answer {letter}: {aspect}" in name for name in groups), groups
    assert ("slider", "Which answer is better?") in nodes
    buttons = [name for role, name in nodes if role == "button"]
    assert "Save and go on" in " ".join(buttons) and "Skip" in " ".join(buttons)
    unnamed = [
        role
        for role, name in nodes
        if role in ("radio", "slider", "button", "textbox", "progressbar", "region") and not name
    ]
    assert unnamed == []
    assert any(role == "status" for role, _ in nodes)
