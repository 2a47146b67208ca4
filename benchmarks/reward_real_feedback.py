"""How well does a reward model predict real people? 5-fold by question, beside baselines.

    python -m benchmarks.reward_real_feedback --feedback ../shared/data/evaluation_results_server \
        --backbone smollm2-135m --output results.json

Each question's pairs and ratings are in one fold; `RewardTrainer` trains on the other four, as a run with
the shipped defaults does (`--set section.field=value` changes one), and every pair is scored by the model
that has not seen its question. Settings are given, never chosen by the scores printed here.
Prints accuracy over `--repeats` such rounds (other folds, other initial weights) with its 95% interval
(questions resampled), the baselines, and the gain over each.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modern_rlhf.config.io import apply_overrides
from modern_rlhf.config.sections import ModernRLHFConfig
from modern_rlhf.feedback.store import FeedbackSet, load_feedback
from modern_rlhf.records import PreferencePair, Rating
from modern_rlhf.reward_model.baselines import BASELINES
from modern_rlhf.reward_model.cache import FeatureCache
from modern_rlhf.reward_model.evaluator import ScoredRatings, evaluate_scores
from modern_rlhf.reward_model.model import CustomRewardModel
from modern_rlhf.reward_model.statistics import accuracy, accuracy_difference, outcomes
from modern_rlhf.trainer.reward import RewardTrainer


def folds(groups: Sequence[str], count: int, seed: int) -> list[set[str]]:
    """Distinct groups dealt to `count` folds in a shuffled order."""
    names = sorted(set(groups))
    np.random.default_rng(seed).shuffle(names)
    return [set(names[i::count]) for i in range(count)]


def texts(
    records: Sequence[PreferencePair] | Sequence[Rating], field: str
) -> tuple[list[str], list[str]]:
    """Prompts and the texts of one field."""
    return [r.prompt for r in records], [getattr(r, field) for r in records]


def train(
    pairs: list[PreferencePair],
    ratings: list[Rating],
    backbone: str,
    config: ModernRLHFConfig,
    seed: int,
    cache: Path,
) -> CustomRewardModel:
    """A reward model calibrated on what it was trained on."""
    trainer = RewardTrainer(
        backbone,
        pairs=pairs,
        ratings=ratings,
        config=config.reward,
        training=dataclasses.replace(config.training, seed=seed),
        cache_folder=cache,
        validation_fraction=0.0,
    )
    trainer.train()
    model = trainer.model.eval()
    with torch.no_grad():
        rated = FeatureCache(cache, model).get(*texts(ratings, "response"))
        model.heads.set_calibration(model.heads(rated).totals)
    return model


def cross_validate(
    feedback: FeedbackSet, backbone: str, config: ModernRLHFConfig, seed: int, cache: Path
) -> dict[str, Any]:
    pairs, ratings = list(feedback.pairs), list(feedback.ratings)
    groups = [r.group_id for r in (*pairs, *ratings)]
    chosen, rejected = np.zeros(len(pairs)), np.zeros(len(pairs))
    rated = np.zeros(len(ratings))
    by_head: dict[str, np.ndarray] = {}
    for fold in folds(groups, 5, seed):
        model = train(
            [p for p in pairs if p.group_id not in fold],
            [r for r in ratings if r.group_id not in fold],
            backbone,
            config,
            seed,
            cache,
        )
        features = FeatureCache(cache, model)
        p = [i for i, pair in enumerate(pairs) if pair.group_id in fold]
        r = [i for i, rating in enumerate(ratings) if rating.group_id in fold]
        held_pairs, held_ratings = [pairs[i] for i in p], [ratings[i] for i in r]
        with torch.no_grad():
            chosen[p] = model.heads(features.get(*texts(held_pairs, "chosen"))).scores.numpy()
            rejected[p] = model.heads(features.get(*texts(held_pairs, "rejected"))).scores.numpy()
            output = model.heads(features.get(*texts(held_ratings, "response")))
        rated[r] = output.scores.numpy()
        for name, values in output.by_head().items():
            by_head.setdefault(name, np.zeros(len(ratings)))[r] = values.numpy()
    return evaluate_scores(
        pairs,
        chosen.tolist(),
        rejected.tolist(),
        ratings=ratings,
        rated=ScoredRatings(rated.tolist(), {k: v.tolist() for k, v in by_head.items()}),
    )


def over_repeats(
    pairs: Sequence[PreferencePair], reports: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Accuracy averaged over repeats (other folds, other initial weights), and the gain over baselines.

    Each pair's outcome is its mean over the repeats; questions are resampled, as for one repeat.
    """
    groups = [pair.group_id for pair in pairs]
    ours = np.mean([outcomes(r["scores_chosen"], r["scores_rejected"]) for r in reports], axis=0)
    prompts = [pair.prompt for pair in pairs]
    gains = {}
    for name, baseline in BASELINES.items():
        theirs = outcomes(
            baseline(prompts, [pair.chosen for pair in pairs]),
            baseline(prompts, [pair.rejected for pair in pairs]),
        )
        gains[name] = {
            **accuracy(theirs, groups),
            "gain": accuracy_difference(ours, theirs, groups),
        }
    return {
        "accuracy": accuracy(ours, groups),
        "by_repeat": [r["accuracy"]["value"] for r in reports],
        "baselines": gains,
    }


def show(report: dict[str, Any]) -> None:
    def line(name: str, row: dict[str, Any]) -> None:
        gain = row.get("gain")
        beside = ""
        if gain:
            beside = f"   model better by {gain['difference']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]"
        print(
            f"{name:18} {row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}] n={row['n']}{beside}"
        )

    repeats = report["repeats"]
    line("reward model", repeats["accuracy"])
    print("by repeat         ", " ".join(f"{value:.3f}" for value in repeats["by_repeat"]))
    for name, row in repeats["baselines"].items():
        line(name, row)
    print("first repeat:")
    for name, row in report["rating_correlation"].items():
        print(f"{name:18} Pearson {row['pearson']:.3f} Spearman {row['spearman']:.3f} n={row['n']}")
    print("expected calibration error", report["expected_calibration_error"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--feedback", required=True)
    parser.add_argument("--backbone", default="builtin:tiny-code-lm")
    parser.add_argument("--set", action="append", default=[], metavar="section.field=value")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=20, help="seeds to average over")
    parser.add_argument("--cache", type=Path, help="keeps the features; default a temporary folder")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    config = apply_overrides(ModernRLHFConfig(), arguments.set)
    feedback = load_feedback(arguments.feedback)
    with tempfile.TemporaryDirectory() as temporary:
        reports = [
            cross_validate(
                feedback,
                arguments.backbone,
                config,
                arguments.seed + repeat,
                arguments.cache or Path(temporary),
            )
            for repeat in range(arguments.repeats)
        ]
    report = {**reports[0], "repeats": over_repeats(feedback.pairs, reports)}
    report["arguments"] = {k: str(v) for k, v in vars(arguments).items()}
    show(report)
    if arguments.output:
        arguments.output.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
