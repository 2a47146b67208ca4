"""The rating page as HTML: pure functions from what is to be shown to a page.

Server-side HTML with native form controls, so that keyboard, screen reader and a browser without
JavaScript all work; `page.js` only adds shortcuts. Everything that came from a person or a model is
escaped here. Model names are never shown: the rating is blind.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path

from modern_rlhf.feedback.forms import Side
from modern_rlhf.feedback.highlight import highlight, plain
from modern_rlhf.feedback.sessions import Entry, View
from modern_rlhf.feedback.submissions import MAX_COMMENT, MAX_NAME, Mode
from modern_rlhf.records import ASPECTS

_HERE = Path(__file__).resolve().parent
STATIC = {
    "page.css": ("text/css; charset=utf-8", _HERE / "page.css"),
    "page.js": ("text/javascript; charset=utf-8", _HERE / "page.js"),
}
"""The two files the page asks for, by name: media type and path."""

# (stored value, shown sign, words). Signs, not numbers: the keys that choose them are 1 to 5.
_LEVELS = (
    (-2, "\u2212\u2212", "not at all"),
    (-1, "\u2212", "rather not"),
    (0, "0", "neutral"),
    (1, "+", "rather"),
    (2, "++", "fully"),
)
_PREFERENCES = (
    (-2, "A is much better"),
    (-1, "A is better"),
    (0, "equal"),
    (1, "B is better"),
    (2, "B is much better"),
)
_STARS = (
    (1, "1", "very poor"),
    (2, "2", "poor"),
    (3, "3", "fair"),
    (4, "4", "good"),
    (5, "5", "excellent"),
)
_TASK: dict[Mode, str] = {
    "compare": "You will see a question with two answers, and say of each how consistent, correct and "
    "useful it is, and which of the two is better.",
    "single": "You will see a question with an answer, and rate it from 1 to 5.",
}
_MEANING = {
    "consistent": "fits the question",
    "correct": "does what it should",
    "useful": "helps the person who asked",
}


def name_page(mode: Mode, message: str = "") -> str:
    """The first page: what is to be done, and who is rating?"""
    return _page(
        "Rate answers",
        f"""<div class="narrow"><h1>Rate answers</h1>
<p>{_TASK[mode]} Each rating is stored when you save it: stop and come back whenever you like.</p>
{_alert(message)}
<form method="post" action="/start" class="card">
<label for="name">Your name</label>
<input id="name" name="name" required maxlength="{MAX_NAME}" autocomplete="name" autofocus>
<p class="hint">It is stored with your ratings, so that agreement between raters can be measured.</p>
<button class="primary">Begin</button>
</form></div>""",
    )


def error_page(status: int, message: str) -> str:
    """A clear refusal with a way on."""
    return _page(
        f"Error {status}",
        f"""<h1>That did not work</h1>
{_alert(message)}
<p><a href="/rate">Go on rating</a></p>""",
    )


def rating_page(
    view: View, mode: Mode, *, problem: str = "", typed: Mapping[str, str] | None = None
) -> str:
    """The page of one item, or the thanks when none is left.

    Args:
        problem: why the last submission was refused; `typed` are its fields, shown again if they were
            given of what is on this page.
    """
    head = _header(view)
    if view.entry is None:
        skipped = view.total - view.done
        rest = f" You skipped {skipped}: Back leads to them." if skipped else ""
        body = f"""<section class="card"><h2>Thank you, there is nothing left for you to rate.</h2>
<p>Everything you saved is stored; you can close this page.{rest}</p></section>"""
        form = _form(view, _buttons(view, done=True))
        return _page("All done", f"{head}{_alert(problem)}{body}{form}")
    answers: Mapping[str, str] = view.entry.answers
    if typed is not None and typed.get("shown") == view.entry.shown_key:
        answers = typed
    parts = _comparison if mode == "compare" else _single
    comment = html.escape(answers.get("comment", ""))
    inner = f"""{parts(view.entry, answers)}
<div class="card comment">
<label for="comment">Comment <span class="hint">(optional)</span></label>
<textarea id="comment" name="comment" rows="2" maxlength="{MAX_COMMENT}">{comment}</textarea>
</div>
{_buttons(view)}"""
    questions = [side.question for side in view.entry.shown]
    text = _question(questions[0], "Question")
    if questions[-1] != questions[0]:
        text += '<p class="hint">As B was asked:</p>' + _question(questions[-1], "Question of B")
    body = f"""<section class="card" aria-labelledby="question">
<h2 id="question">Question</h2>{text}</section>
{_alert(problem)}{_form(view, inner)}{_help(mode)}"""
    # A screen reader says the title first, so it tells that something is to be mended.
    return _page("Problem - Rate answers" if problem else "Rate answers", head + body)


def _question(text: str, label: str) -> str:
    # A long one scrolls, so it must be reachable by keyboard, as in `_code`.
    return (
        f'<div class="question" dir="auto" tabindex="0" role="region" aria-label="{label}, text">'
        f"{plain(text)}</div>"
    )


def _comparison(entry: Entry, answers: Mapping[str, str]) -> str:
    left, right = entry.shown
    slider = html.escape(answers.get("comparison_slider", "0"), quote=True)
    ticks = "".join(f"<span>{text}</span>" for _, text in _PREFERENCES)
    return f"""<div class="sides">
{_side("A", "L", left, answers)}
{_side("B", "R", right, answers)}
</div>
<div class="card preference">
<label for="slider">Which answer is better?</label> <output for="slider" id="slider-text"></output>
<div class="slider"><input type="range" id="slider" name="comparison_slider" min="-2" max="2" step="1"
 value="{slider}" aria-describedby="slider-hint">
<div class="ticks" aria-hidden="true">{ticks}</div></div>
<p class="spoken" id="slider-hint">From -2, A is much better, over 0, equal, to 2, B is much better.</p>
</div>"""


def _single(entry: Entry, answers: Mapping[str, str]) -> str:
    (side,) = entry.shown
    return f"""<section class="card" aria-labelledby="answer"><h2 id="answer">Answer</h2>
{_code(side, "Answer")}
{_scale("rating", "Your rating", "", _STARS, answers.get("rating"))}</section>"""


def _side(letter: str, suffix: str, side: Side, answers: Mapping[str, str]) -> str:
    scales = "".join(
        _scale(
            f"{aspect}_{suffix}",
            aspect.capitalize(),
            _MEANING[aspect],
            _LEVELS,
            answers.get(f"{aspect}_{suffix}"),
            spoken=f"Answer {letter}: ",
        )
        for aspect in ASPECTS
    )
    return f"""<section class="card" aria-labelledby="side-{suffix}">
<h2 id="side-{suffix}">Answer {letter}</h2>
{_code(side, f"Answer {letter}")}
{scales}</section>"""


def _code(side: Side, label: str) -> str:
    # A region that scrolls must be reachable by keyboard, hence the tabindex.
    # The browser drops one line break right after <pre>, so one is put there for it.
    return (
        f'<pre tabindex="0" role="region" aria-label="{label}, text">\n'
        f"<code>{highlight(side.answer)}</code></pre>"
    )


def _scale(
    name: str,
    title: str,
    meaning: str,
    levels: tuple[tuple[int, str, str], ...],
    chosen: str | None,
    *,
    spoken: str = "",
) -> str:
    options = "".join(
        f'<label title="{text}"><input type="radio" name="{name}" value="{value}" required'
        f"{' checked' if chosen == str(value) else ''}>"
        f'<span aria-hidden="true">{sign}</span><span class="spoken">{value}, {text}</span></label>'
        for value, sign, text in levels
    )
    hint = f' <span class="hint">{meaning}</span>' if meaning else ""
    return f"""<fieldset class="scale"><legend><span class="spoken">{spoken}</span>{title}{hint}</legend>
<div class="levels"><span class="end" aria-hidden="true">{levels[0][2]}</span>{options}
<span class="end" aria-hidden="true">{levels[-1][2]}</span></div></fieldset>"""


def _header(view: View) -> str:
    name = html.escape(view.rater)
    return f"""<header><h1>Rate answers</h1>
<p><label for="progress">{view.done} of {view.total} rated</label>
<progress id="progress" value="{view.done}" max="{max(view.total, 1)}"></progress></p>
<form method="post" action="/leave" class="leave"><span>Rating as <strong><bdi>{name}</bdi></strong></span>
<button>Change name</button></form></header>
<p role="status" aria-live="polite" class="status">{html.escape(view.message)}</p>"""


def _form(view: View, inner: str) -> str:
    shown = view.entry.shown_key if view.entry else ""
    return f"""<form method="post" action="/rate" id="rating" class="rating">
<input type="hidden" name="token" value="{html.escape(view.token)}">
<input type="hidden" name="shown" value="{html.escape(shown)}">
{inner}</form>"""


def _buttons(view: View, *, done: bool = False) -> str:
    """Save first: it is the button that Enter presses."""
    buttons = []
    if not done:
        buttons.append(_button("save", "Save and go on", "s", primary=True))
        buttons.append(_button("skip", "Skip", "k"))
    if view.can_go_back:
        buttons.append(_button("back", "Back", "b"))
    if view.can_undo:
        buttons.append(_button("undo", "Undo last rating", "u"))
    return f'<div class="buttons">{"".join(buttons)}</div>'


def _button(action: str, text: str, key: str, *, primary: bool = False) -> str:
    extra = ' class="primary"' if primary else " formnovalidate"
    return (
        f'<button name="action" value="{action}"{extra} data-key="{key}">{text} '
        f'<kbd aria-hidden="true">{key}</kbd></button>'
    )


def _help(mode: Mode) -> str:
    rows = [("1 to 5", "choose the first to the fifth level of the current scale, go to the next")]
    if mode == "compare":
        rows[0] = (
            "1 to 5",
            "set the current scale, or the slider, to one of its five levels; go on",
        )
        rows.append(("[ and ]", "move the slider towards A or B"))
    rows += [
        ("s or Ctrl+Enter", "save and go on"),
        ("k", "skip"),
        ("b", "back to the previous one"),
        ("u", "undo: take the last rating back"),
    ]
    lines = "".join(
        f"<tr><th scope='row'><kbd>{key}</kbd></th><td>{t}</td></tr>" for key, t in rows
    )
    return f"""<details class="card keys"><summary>Keyboard</summary>
<p>Everything works with Tab, the arrow keys, Space and Enter. With JavaScript there are also:</p>
<table>{lines}</table>
<label class="switch"><input type="checkbox" id="shortcuts" checked> single-key shortcuts</label>
</details>"""


def _alert(message: str) -> str:
    return f'<p role="alert" class="alert">{html.escape(message)}</p>' if message else ""


def _page(title: str, body: str) -> str:
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/static/page.css">
<script src="/static/page.js" defer></script>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""
