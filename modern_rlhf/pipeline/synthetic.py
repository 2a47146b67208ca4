"""Synthetic feedback in a run: a model rates answers of the SFT policy, and is checked against people.

The ratings are kept in `reward_model/model_synthetic_human_feedback_<timestamp>.json`, the rating-list
shape that `feedback.store` reads, every row marked synthetic. Rows of purpose `training` teach the
reward model; rows of purpose `agreement` rate answers that people have rated too, teach nothing, and
say how far the rater can be trusted. A file that a stopped run left is read, not made again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from modern_rlhf.errors import DataError
from modern_rlhf.feedback.store import OVERALL, SYNTHETIC_PREFIX
from modern_rlhf.models.loading import load_causal_lm, load_tokenizer
from modern_rlhf.pipeline.workspace import Workspace
from modern_rlhf.records import Rating
from modern_rlhf.reward_model.synthetic_rater import SyntheticRater, agreement
from modern_rlhf.utils.atomic import json_text, write_text

Answers = tuple[list[str], list[str]]
"""Prompts, and one response to each."""

TRAINING, AGREEMENT = "training", "agreement"


@dataclass(frozen=True)
class SyntheticFeedback:
    """`ratings` to train on, and what `evaluation.json` says about the rater."""

    ratings: list[Rating]
    report: dict[str, Any]

    def line(self) -> str:
        """The rater in one line for the log."""
        found = self.report["agreement"]
        said = "no answer that people rated too"
        if found["pearson"] is not None:
            said = (
                f"Pearson {found['pearson']:.2f} [{found['low']:.2f}, {found['high']:.2f}] with people "
                f"on {found['n']} answers, {found['mean_absolute_error']:.2f} levels off on average"
            )
        elif found["n"]:
            said = f"{found['n']} answers that people rated too ({found['reason']})"
        return (
            f"synthetic rater {self.report['model']}: {len(self.ratings)} answers, mean rating "
            f"{self.report['mean_rating']:.2f}, the digits hold {self.report['mean_digit_mass']:.0%} "
            f"of the probability; {said}"
        )


def synthetic_feedback(workspace: Workspace, sample: Callable[[], Answers]) -> SyntheticFeedback:
    """Ratings of `sample()`'s answers by `data.synth_feedback_model_name`.

    Raises:
        ModelError: the model cannot be loaded or has no digits. DataError: a kept file is broken.
    """
    data = workspace.config.data
    folder = workspace.artifacts.stage("reward_model")

    def kept_or_made() -> tuple[str, list[dict[str, Any]]]:
        kept = sorted(folder.glob(f"{SYNTHETIC_PREFIX}_*.json"))
        if kept:
            return kept[-1].name, _read(kept[-1])
        path = folder / f"{SYNTHETIC_PREFIX}_{datetime.now():%Y-%m-%d-%H-%M-%S}.json"
        made = _rate(workspace, sample())
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, json_text(made))
        return path.name, made

    name, rows = workspace.runtime().processes.on_main(kept_or_made)
    people = [rating for rating in workspace.data.ratings if not rating.synthetic]
    taught = [row for row in rows if row["purpose"] == TRAINING]
    checked = [row for row in rows if row["purpose"] == AGREEMENT]
    found = SyntheticFeedback(
        _ratings(taught, name, weight=data.synth_feedback_weight),
        {
            "model": data.synth_feedback_model_name,
            "file": name,
            "rated_answers": len(taught),
            "mean_rating": _mean([row["rating"] for row in taught]),
            "mean_digit_mass": _mean([row["digit_mass"] for row in rows]),
            "agreement": agreement(_ratings(checked, name, weight=1.0), people),
        },
    )
    workspace.say(found.line())
    return found


def _rate(workspace: Workspace, answers: Answers) -> list[dict[str, Any]]:
    """The rows of both purposes."""
    data, device = workspace.config.data, workspace.device.device
    name = data.synth_feedback_model_name
    rater = SyntheticRater(load_causal_lm(name, device=device), load_tokenizer(name), name=name)
    ids = {prompt.prompt: prompt.group_id for prompt in workspace.data.prompts}
    rows = []
    for purpose, (prompts, responses) in (
        (TRAINING, answers),
        (AGREEMENT, _rated_by_people(workspace.data.ratings, data.synth_feedback_samples)),
    ):
        for row in rater.rows(prompts, responses):
            row |= {"purpose": purpose, "question_id": ids.get(row["prompt"], "")}
            rows.append(row)
    return rows


def _rated_by_people(ratings: Sequence[Rating], most: int) -> Answers:
    """Different answers that people rated, `most` at most, evenly spread."""
    found = list({(r.prompt, r.response): None for r in ratings if not r.synthetic})
    step = max(1.0, len(found) / most)
    chosen = [found[int(i * step)] for i in range(min(most, len(found)))]
    return [prompt for prompt, _ in chosen], [response for _, response in chosen]


def _ratings(rows: Sequence[Mapping[str, Any]], source: str, *, weight: float) -> list[Rating]:
    return [
        Rating(
            row["prompt"],
            row["response"],
            {OVERALL: float(row["rating"]) - 3.0},
            rater=row["rater"],
            weight=weight,
            group_id=row["question_id"],
            source=source,
            synthetic=True,
        )
        for row in rows
    ]


def _read(path: Path) -> list[dict[str, Any]]:
    wanted = {"prompt", "response", "rating", "rater", "purpose", "question_id", "digit_mass"}
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); delete it to rate again") from error
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and wanted <= row.keys() for row in rows
    ):
        raise DataError(f"{path} holds other rows than this stage writes; delete it to rate again")
    return rows


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
