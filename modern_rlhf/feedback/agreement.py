"""Who rated what and how, and how far raters agree: `modern-rlhf rate --summary`.

Agreement is Krippendorff's alpha (Krippendorff 2011, "Computing Krippendorff's alpha-reliability"),
ordinal, computed by the package `krippendorff`: 1 is perfect agreement, 0 what chance gives. Units
are answers for the three aspects, and unordered pairs of answers for the preference.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from modern_rlhf.feedback.answers import form_key, item_key
from modern_rlhf.feedback.forms import ComparisonForm
from modern_rlhf.feedback.store import load_feedback, load_forms
from modern_rlhf.records import ASPECTS, OVERALL, Rating

Unit = Mapping[str, float]
"""Rater -> value, for one thing that was rated."""


@dataclass(frozen=True)
class Alpha:
    """Krippendorff's alpha, or None with the reason; `units` were rated by two raters or more."""

    value: float | None
    units: int
    reason: str = ""

    def text(self) -> str:
        rated = f"{self.units} unit{'s' * (self.units != 1)} rated by two or more"
        return f"{self.value:.2f} ({rated})" if self.value is not None else f"- ({self.reason})"


@dataclass(frozen=True)
class RaterLine:
    """One rater.

    Attributes:
        forms, untouched, ties: forms submitted, of them untouched, of the others without preference.
        means: aspect -> mean of the ratings given.
        bias: mean rating minus that of the other raters (all aspects), or None for a lone rater.
        left: share of this rater's preferences that went to the left answer, or None without any.
    """

    rater: str
    forms: int
    untouched: int
    ties: int
    means: Mapping[str, float]
    bias: float | None
    left: float | None


def krippendorff_alpha(units: Iterable[Unit], levels: tuple[float, ...]) -> Alpha:
    """Ordinal alpha over `units`; those rated by one rater only do not count.

    Args:
        units: for each rated thing, the value each rater gave.
        levels: the values there are, in order.
    """
    shared = [unit for unit in units if len(unit) > 1]
    if not shared:
        return Alpha(None, 0, "nothing was rated by two raters")
    if len({value for unit in shared for value in unit.values()}) < 2:
        return Alpha(None, len(shared), "all shared ratings are the same, which alpha cannot judge")
    try:
        import krippendorff
    except ImportError:
        return Alpha(None, len(shared), "pip install krippendorff to compute it")
    # (levels,) counts a unit: which rater gave which value makes no difference to alpha.
    counts = [
        [sum(value == level for value in unit.values()) for level in levels] for unit in shared
    ]
    value = krippendorff.alpha(
        value_counts=counts, value_domain=list(levels), level_of_measurement="ordinal"
    )
    return Alpha(float(value), len(shared))


def agreement(forms: Iterable[ComparisonForm]) -> dict[str, Alpha]:
    """Alpha for each aspect and for `preference` (-1 the one answer, 0 tie, 1 the other).

    Untouched forms are left out, as are the aspects of forms of which only the slider was moved. Of
    several ratings of one thing by one rater the last counts.
    """
    aspects: dict[str, defaultdict[str, dict[str, float]]] = {
        aspect: defaultdict(dict) for aspect in ASPECTS
    }
    preferences: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for form in forms:
        if form.untouched:
            continue
        sign = {None: 0, "left": -1, "right": 1}[form.preferred]
        # The sign says first or second in the order of the texts, not left or right of a screen.
        flipped = form.left.answer > form.right.answer
        preferences[form_key(form)][form.rater] = float(-sign if flipped else sign)
        if form.unrated:
            continue
        for side, scores in ((form.left, form.left_scores), (form.right, form.right_scores)):
            for aspect in ASPECTS:
                aspects[aspect][item_key(side)][form.rater] = float(scores[aspect])
    levels = (-2.0, -1.0, 0.0, 1.0, 2.0)
    found = {aspect: krippendorff_alpha(aspects[aspect].values(), levels) for aspect in ASPECTS}
    found["preference"] = krippendorff_alpha(preferences.values(), (-1.0, 0.0, 1.0))
    return found


def rater_lines(forms: Iterable[ComparisonForm]) -> list[RaterLine]:
    """One line for each rater, the busiest first."""
    by_rater: defaultdict[str, list[ComparisonForm]] = defaultdict(list)
    for form in forms:
        by_rater[form.rater].append(form)
    totals = {rater: _sums(rated) for rater, rated in by_rater.items()}
    all_sum = sum(sum(total.values()) for total, _ in totals.values())
    all_count = sum(count for _, count in totals.values())
    lines = []
    for rater, rated in by_rater.items():
        total, count = totals[rater]
        own, others = sum(total.values()), all_count - count
        touched = [form for form in rated if not form.untouched]
        sides = Counter(form.preferred for form in touched)
        preferences = sides["left"] + sides["right"]
        lines.append(
            RaterLine(
                rater=rater,
                forms=len(rated),
                untouched=len(rated) - len(touched),
                ties=sides[None],
                means={aspect: total[aspect] / count for aspect in ASPECTS} if count else {},
                bias=(own / count - (all_sum - own) / others) / 3 if count and others else None,
                left=sides["left"] / preferences if preferences else None,
            )
        )
    return sorted(lines, key=lambda line: (-line.forms, line.rater))


@dataclass(frozen=True)
class ModelLine:
    """How raters judged one model's answers.

    Attributes:
        answers: how often an answer of the model was rated (untouched forms aside).
        means: aspect -> mean of the ratings it got.
        won, lost, ties: comparisons with another model's answer.
    """

    model: str
    answers: int
    means: Mapping[str, float]
    won: int
    lost: int
    ties: int


def model_lines(forms: Iterable[ComparisonForm]) -> list[ModelLine]:
    """One line for each model whose answers were compared, the most often preferred first."""
    by_model: defaultdict[str, list[tuple[ComparisonForm, str]]] = defaultdict(list)
    for form in forms:
        if not form.untouched:
            by_model[form.left.model_tag].append((form, "left"))
            by_model[form.right.model_tag].append((form, "right"))
    lines = []
    for model, shown in by_model.items():
        scores = [
            form.left_scores if side == "left" else form.right_scores
            for form, side in shown
            if not form.unrated
        ]
        outcomes = Counter(
            "ties" if form.preferred is None else "won" if form.preferred == side else "lost"
            for form, side in shown
            if form.left.model_tag != form.right.model_tag
        )
        lines.append(
            ModelLine(
                model=model,
                answers=len(shown),
                means={a: sum(s[a] for s in scores) / len(scores) for a in ASPECTS if scores},
                won=outcomes["won"],
                lost=outcomes["lost"],
                ties=outcomes["ties"],
            )
        )
    return sorted(lines, key=lambda line: (line.lost - line.won, line.model))


def summary(folder: str | os.PathLike[str]) -> str:
    """What a folder of feedback holds, as text for a terminal.

    Raises:
        DataError: the folder holds no feedback, or a broken file.
    """
    forms = [form for _, form in load_forms(folder)]
    # Forms that nobody touched teach nothing, and are told of here all the same.
    feedback = load_feedback(folder, require_rows=not forms)
    lines = [_clean(feedback.report.line())]
    if forms:
        raters, models = rater_lines(forms), model_lines(forms)
        lines += ["", *_table(["rater", "forms", "untouched", "ties", *ASPECTS, "bias", "left"],
                              [_rater_row(line) for line in raters])]  # fmt: skip
        if any(line.model for line in models):
            lines += ["", *_table(["model", "answers", *ASPECTS, "won", "lost", "ties"],
                                  [_model_row(line) for line in models])]  # fmt: skip
        lines += ["", "Krippendorff's alpha (ordinal):"]
        lines += [f"  {name:<12}{alpha.text()}" for name, alpha in agreement(forms).items()]
        touched = [form for form in forms if not form.untouched]
        sides = Counter(form.preferred for form in touched)
        lines += [
            "",
            f"{len(forms)} forms: {len(forms) - len(touched)} untouched, {sides[None]} ties, "
            f"{sides['left']} prefer the left answer, {sides['right']} the right one",
            f"{sum(form.synthetic for form in forms)} of them by a simulated rater",
        ]
    single = [rating for rating in feedback.ratings if set(rating.scores) == {OVERALL}]
    return "\n".join(lines + (_single_lines(single) if single else []))


def _single_lines(ratings: list[Rating]) -> list[str]:
    """Ratings from 1 to 5: each rater's, and how far they agree."""
    values: defaultdict[str, list[float]] = defaultdict(list)
    units: defaultdict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for rating in ratings:
        values[rating.rater].append(rating.overall + 3)
        units[rating.prompt, rating.response][rating.rater] = rating.overall
    total = sum(map(sum, values.values()))
    rows = []
    for rater, own in sorted(values.items(), key=lambda pair: (-len(pair[1]), pair[0])):
        mean, others = sum(own) / len(own), len(ratings) - len(own)
        bias = f"{mean - (total - sum(own)) / others:+.2f}" if others else "-"
        rows.append([rater or _NAMELESS, str(len(own)), f"{mean:.2f}", bias])
    levels = tuple(sorted({value for unit in units.values() for value in unit.values()}))
    return [
        "",
        f"{len(ratings)} ratings from 1 to 5, mean {total / len(ratings):.2f}:",
        *_table(["rater", "ratings", "mean", "bias"], rows),
        "",
        f"  alpha       {krippendorff_alpha(units.values(), levels).text()}",
    ]


def _sums(forms: Iterable[ComparisonForm]) -> tuple[dict[str, float], int]:
    """Sum of the ratings of each aspect, and how many answers were rated."""
    total = dict.fromkeys(ASPECTS, 0.0)
    count = 0
    for form in forms:
        if form.unrated:
            continue
        for scores in (form.left_scores, form.right_scores):
            count += 1
            for aspect in ASPECTS:
                total[aspect] += scores[aspect]
    return total, count


_NAMELESS = "(no name)"


def _rater_row(line: RaterLine) -> list[str]:
    return [
        line.rater or _NAMELESS,
        *(str(count) for count in (line.forms, line.untouched, line.ties)),
        *_means(line.means),
        "-" if line.bias is None else f"{line.bias:+.2f}",
        "-" if line.left is None else f"{line.left:.0%}",
    ]


def _model_row(line: ModelLine) -> list[str]:
    counts = (str(count) for count in (line.won, line.lost, line.ties))
    return [line.model or _NAMELESS, str(line.answers), *_means(line.means), *counts]


def _means(means: Mapping[str, float]) -> list[str]:
    return [f"{means[aspect]:+.2f}" if means else "-" for aspect in ASPECTS]


def _clean(text: str) -> str:
    """A name may hold anything; a terminal must not obey it."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _short(cell: str) -> str:
    """A cell of 30 characters at most; of a long one both ends, since folders differ in the last."""
    text = _clean(cell)
    return text if len(text) <= 30 else f"{text[:10]}...{text[-17:]}"


def _table(heads: list[str], rows: list[list[str]]) -> list[str]:
    clean = [[_short(cell) for cell in row] for row in (heads, *rows)]
    widths = [max(len(row[column]) for row in clean) for column in range(len(heads))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in clean
    ]
