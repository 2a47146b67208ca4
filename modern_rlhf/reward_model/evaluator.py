"""How good is a reward model: on held-out pairs and ratings, beside baselines that learn nothing.

`evaluate` returns one JSON-ready dict, which a run keeps as `evaluation.json`; plots are made from that
file by the report. Every interval is a 95% one that resamples questions, not pairs or ratings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from modern_rlhf.data_loader.rows import judgements_from_rows
from modern_rlhf.data_loader.splits import group_id_of
from modern_rlhf.errors import DataError, ModelError
from modern_rlhf.records import PreferencePair, Rating
from modern_rlhf.reward_model.baselines import BASELINES
from modern_rlhf.reward_model.heads import HUMAN
from modern_rlhf.reward_model.statistics import (
    Outcomes,
    accuracy,
    accuracy_difference,
    calibration,
    correlation,
    cross_fitted_probabilities,
    fit_temperature,
    outcomes,
)

LENGTH_MATCH = 0.1
"""Two answers are length-matched when they differ by at most this share of the longer one."""
WORST = 10


class Scorer(Protocol):
    """What the evaluator needs of a model: `CustomRewardModel.predict`."""

    def predict(
        self, prompts: Sequence[str], responses: Sequence[str], *, batch_size: int = ...
    ) -> Any: ...


@dataclass(frozen=True)
class ScoredRatings:
    """Model output for N ratings: total `scores`, and `heads` by name, N values each."""

    scores: Sequence[float]
    heads: Mapping[str, Sequence[float]]


class RewardModelEvaluator:
    """Evaluates one reward model; see the module docstring."""

    def __init__(self, model: Scorer, *, batch_size: int = 32) -> None:
        self.model = model
        self.batch_size = batch_size

    def evaluate(self, pairs: Iterable[Any] = (), ratings: Iterable[Any] = ()) -> dict[str, Any]:
        """Everything that can be said with these pairs and ratings; what can't be is null.

        Args:
            pairs, ratings: records, or rows as `RewardTrainer` takes them.

        Raises:
            DataError: neither pairs nor ratings were given, or rows that are none.
            ModelError: the model's scores are no finite numbers.
        """
        pairs, ratings = judgements_from_rows((), pairs, ratings)
        if not pairs and not ratings:
            raise DataError(
                "a reward model is evaluated on pairs or ratings, and neither was given"
            )
        prompts = [pair.prompt for pair in pairs]
        chosen = self._predict(prompts, [pair.chosen for pair in pairs])
        rejected = self._predict(prompts, [pair.rejected for pair in pairs])
        rated = self._predict([r.prompt for r in ratings], [r.response for r in ratings])
        return evaluate_scores(
            pairs,
            chosen.scores,
            rejected.scores,
            ratings=ratings,
            rated=ScoredRatings(rated.scores, rated.heads),
        )

    def _predict(self, prompts: list[str], responses: list[str]) -> Any:
        return self.model.predict(prompts, responses, batch_size=self.batch_size)


def evaluate_scores(
    pairs: Sequence[PreferencePair],
    scores_chosen: Sequence[float],
    scores_rejected: Sequence[float],
    *,
    ratings: Sequence[Rating] = (),
    rated: ScoredRatings | None = None,
) -> dict[str, Any]:
    """The report from scores alone, so that cross-validated scores get the same treatment.

    Keys: `judges` (whose pairs and ratings these are), `accuracy` `{"value", "low", "high", "n", "groups"}`,
    `accuracy_by_margin` and `rating_correlation`, `length_bias`, `scores_chosen`, `scores_rejected`, `calibration`,
    `expected_calibration_error` (temperature fitted on other questions), the same error at temperature 1
    as `expected_calibration_error_raw`, `temperature` (fitted on all), `baselines`, `worst_mistakes`.
    """
    if not len(pairs) == len(scores_chosen) == len(scores_rejected):
        raise DataError("evaluate_scores needs one chosen and one rejected score for every pair")
    scores = np.array([*scores_chosen, *scores_rejected, *(rated.scores if rated else ())])
    broken = int((~np.isfinite(scores)).sum())
    if broken:
        raise ModelError(
            f"{broken} of {len(scores)} scores of the reward model are NaN or infinite: it cannot be "
            "measured or used; train it again at a lower training.reward_learning_rate"
        )
    groups = [group_id_of(pair) for pair in pairs]
    correct = outcomes(scores_chosen, scores_rejected)
    gaps = np.asarray(scores_chosen, dtype=float) - np.asarray(scores_rejected, dtype=float)
    table, error = calibration(cross_fitted_probabilities(gaps.tolist(), groups))
    _, raw_error = calibration(1.0 / (1.0 + np.exp(-np.clip(gaps, -500, 500))))
    return {
        "judges": {"pairs": _judges(pairs), "ratings": _judges(ratings)},
        "accuracy": accuracy(correct, groups),
        "accuracy_by_margin": _by_margin(pairs, correct, groups),
        "rating_correlation": _rating_correlations(ratings, rated),
        "length_bias": _length_bias(pairs, scores_chosen, scores_rejected, correct, groups),
        "scores_chosen": [float(score) for score in scores_chosen],
        "scores_rejected": [float(score) for score in scores_rejected],
        "calibration": table,
        "expected_calibration_error": error,
        "expected_calibration_error_raw": raw_error,
        "temperature": fit_temperature(gaps.tolist()) if len(pairs) else None,
        "baselines": _baselines(pairs, correct, groups),
        "worst_mistakes": _worst(pairs, scores_chosen, scores_rejected),
    }


def report_line(report: Mapping[str, Any]) -> str:
    """The report in one line: accuracy beside the best baseline, and the correlation with ratings."""
    said = []
    found = report["accuracy"]
    if found["n"]:
        name, best = max(report["baselines"].items(), key=lambda row: row[1]["value"])
        said.append(
            f"accuracy {_bounded(found['value'], found)} on {found['n']} held-out pairs, "
            f"the best baseline ({name}) {best['value']:.2f}"
        )
    rated = report["rating_correlation"].get("score")
    if rated is not None:
        value = rated["pearson"]
        said.append(
            f"no correlation with {rated['n']} ratings ({rated['reason']})"
            if value is None
            else f"Pearson {_bounded(value, rated)} with {rated['n']} held-out ratings"
        )
    return "; ".join(said)


def _bounded(value: float, bounds: Mapping[str, float | None]) -> str:
    low, high = bounds["low"], bounds["high"]
    return f"{value:.2f}" + ("" if low is None else f" [{low:.2f}, {high:.2f}]")


def _judges(items: Sequence[PreferencePair | Rating]) -> str | None:
    simulated = {item.synthetic for item in items}
    if len(simulated) == 2:
        return "people and simulated"
    return ("simulated" if simulated.pop() else "people") if simulated else None


def _by_margin(
    pairs: Sequence[PreferencePair], correct: Outcomes, groups: Sequence[str]
) -> list[dict[str, Any]]:
    """Accuracy in up to four equally filled ranges of the margin (fewer where margins repeat)."""
    if not pairs:
        return []
    margins = np.array([pair.margin for pair in pairs])
    edges = np.unique(np.quantile(margins, [0.0, 0.25, 0.5, 0.75, 1.0]))
    rows = []
    for i in range(max(1, len(edges) - 1)):
        low, high = edges[i], edges[min(i + 1, len(edges) - 1)]
        last = i >= len(edges) - 2
        inside = (margins >= low) & ((margins <= high) if last else (margins < high))
        if not inside.any():  # interpolated quantiles of very few pairs
            continue
        chosen = [int(j) for j in np.flatnonzero(inside)]
        found = accuracy(correct[chosen], [groups[j] for j in chosen])
        seen = margins[chosen]
        rows.append({"margin_low": float(seen.min()), "margin_high": float(seen.max()), **found})
    return rows


def _rating_correlations(
    ratings: Sequence[Rating], rated: ScoredRatings | None
) -> dict[str, dict[str, Any]]:
    """Score against the overall rating, and each head against the aspect of its name."""
    if not ratings or rated is None:
        return {}
    means = [rating.overall for rating in ratings]
    groups = [group_id_of(rating) for rating in ratings]
    found = {"score": correlation(rated.scores, means, groups)}
    for name, values in rated.heads.items():
        if name == HUMAN:
            found[name] = correlation(values, means, groups)
            continue
        kept = [i for i, rating in enumerate(ratings) if name in rating.scores]
        targets = [ratings[i].scores[name] for i in kept]
        found[name] = correlation([values[i] for i in kept], targets, [groups[i] for i in kept])
    return found


def _length_bias(
    pairs: Sequence[PreferencePair],
    scores_chosen: Sequence[float],
    scores_rejected: Sequence[float],
    correct: Outcomes,
    groups: Sequence[str],
) -> dict[str, Any]:
    lengths = [(len(pair.chosen), len(pair.rejected)) for pair in pairs]
    matched = [i for i, (a, b) in enumerate(lengths) if abs(a - b) <= LENGTH_MATCH * max(a, b)]
    # Whether the longer answer wins can be asked only where the lengths differ.
    unequal = [i for i, (a, b) in enumerate(lengths) if a != b]
    longer_chosen = np.array([lengths[i][0] > lengths[i][1] for i in unequal], dtype=float)
    longer_scored = np.where(longer_chosen == 1.0, correct[unequal], 1.0 - correct[unequal])
    return {
        "correlation": correlation(
            [*scores_chosen, *scores_rejected],
            [*(float(a) for a, _ in lengths), *(float(b) for _, b in lengths)],
            [*groups, *groups],
        ),
        "length_matched_accuracy": accuracy(correct[matched], [groups[i] for i in matched]),
        "longer_is_preferred_by_judges": float(longer_chosen.mean()) if unequal else None,
        "longer_is_preferred_by_model": float(longer_scored.mean()) if unequal else None,
    }


def _baselines(
    pairs: Sequence[PreferencePair], correct: Outcomes, groups: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Accuracy of each baseline on the same pairs, and the model's gain over it."""
    prompts = [pair.prompt for pair in pairs]
    found = {}
    for name, baseline in BASELINES.items():
        theirs = outcomes(
            baseline(prompts, [pair.chosen for pair in pairs]),
            baseline(prompts, [pair.rejected for pair in pairs]),
        )
        found[name] = {
            **accuracy(theirs, groups),
            "gain": accuracy_difference(correct, theirs, groups),
        }
    return found


def _worst(
    pairs: Sequence[PreferencePair],
    scores_chosen: Sequence[float],
    scores_rejected: Sequence[float],
) -> list[dict[str, Any]]:
    """The pairs that the model is surest of in the wrong direction."""
    rows = sorted(
        (float(a) - float(b), i)
        for i, (a, b) in enumerate(zip(scores_chosen, scores_rejected, strict=True))
    )
    return [
        {
            "gap": gap,
            "prompt": pairs[i].prompt,
            "chosen": pairs[i].chosen,
            "rejected": pairs[i].rejected,
            "margin": float(pairs[i].margin),
            "rater": pairs[i].rater,
            "group_id": pairs[i].group_id,
        }
        for gap, i in rows[:WORST]
        if gap < 0
    ]
