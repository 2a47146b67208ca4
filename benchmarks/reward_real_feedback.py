"""How well does a reward model predict real people? 5-fold by question, beside baselines.

    python -m benchmarks.reward_real_feedback --feedback ../shared/data/evaluation_results_server \
        --backbone minilm --pooling mean --output results.json

Each question's pairs and ratings are in one fold; heads are trained on the other four (backbone frozen,
features cached), and every pair is scored by the model that has not seen its question. Settings are
given, never chosen by the scores printed here: `--choose` picks weight decay, epochs and losses inside
the training part of each fold (3 inner folds), which keeps the outer figure honest.
Prints accuracy over `--repeats` such rounds (other folds, other initial weights) with its 95% interval
(questions resampled), the baselines, and the gain over each.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modern_rlhf.feedback.store import FeedbackSet, load_feedback
from modern_rlhf.records import ASPECTS, PreferencePair, Rating
from modern_rlhf.reward_model.baselines import BASELINES
from modern_rlhf.reward_model.cache import FeatureCache
from modern_rlhf.reward_model.evaluator import ScoredRatings, evaluate_scores
from modern_rlhf.reward_model.fit import RewardLossSettings, pair_targets, rating_targets
from modern_rlhf.reward_model.heads import RewardHeads
from modern_rlhf.reward_model.model import CustomRewardModel
from modern_rlhf.reward_model.quick_fit import fit_heads
from modern_rlhf.reward_model.statistics import accuracy, accuracy_difference, outcomes


@dataclass(frozen=True)
class Choice:
    """What is chosen inside each fold."""

    pairwise: float
    weight_decay: float
    epochs: int
    learning_rate: float


DEFAULT = Choice(pairwise=1.0, weight_decay=0.1, epochs=8, learning_rate=2e-3)
CHOICES = [
    Choice(pairwise, decay, epochs, 2e-3)
    for pairwise, decay, epochs in itertools.product((0.0, 1.0), (0.1, 3.0), (8, 25))
]


@dataclass(frozen=True)
class Data:
    """Records with their features, row for row."""

    pairs: Sequence[PreferencePair]
    ratings: Sequence[Rating]
    chosen: torch.Tensor
    rejected: torch.Tensor
    rated: torch.Tensor

    def rows(self, groups: set[str]) -> Data:
        """The part whose questions are in `groups`."""
        p = [i for i, pair in enumerate(self.pairs) if pair.group_id in groups]
        r = [i for i, rating in enumerate(self.ratings) if rating.group_id in groups]
        return Data(
            [self.pairs[i] for i in p],
            [self.ratings[i] for i in r],
            self.chosen[p],
            self.rejected[p],
            self.rated[r],
        )


def folds(groups: Sequence[str], count: int, seed: int) -> list[set[str]]:
    """Distinct groups dealt to `count` folds in a shuffled order."""
    names = sorted(set(groups))
    np.random.default_rng(seed).shuffle(names)
    return [set(names[i::count]) for i in range(count)]


def train(
    data: Data, choice: Choice, arguments: argparse.Namespace, model: CustomRewardModel
) -> RewardHeads:
    generator = torch.Generator().manual_seed(arguments.seed)
    heads = RewardHeads(
        model.heads.hidden_size,
        ASPECTS,
        kind=arguments.head_kind,
        width=64,
        dropout=arguments.dropout,
        ensemble=arguments.ensemble,
        text_features=model.heads.text_features,
        generator=generator,
    )
    torch.manual_seed(arguments.seed)  # dropout
    fit_heads(
        heads,
        pairs=(pair_targets(data.pairs), data.chosen, data.rejected),
        ratings=(rating_targets(data.ratings, ASPECTS), data.rated),
        settings=RewardLossSettings(pairwise=choice.pairwise),
        epochs=choice.epochs,
        batch_size=32,
        learning_rate=choice.learning_rate,
        weight_decay=choice.weight_decay,
        generator=generator,
    )
    return heads


@torch.no_grad()
def pair_accuracy(heads: RewardHeads, data: Data) -> float:
    chosen, rejected = heads(data.chosen).scores, heads(data.rejected).scores
    return float(outcomes(chosen.tolist(), rejected.tolist()).mean())


def choose(data: Data, arguments: argparse.Namespace, model: CustomRewardModel) -> Choice:
    """The choice with the best accuracy over 3 inner folds."""
    inner = folds([pair.group_id for pair in data.pairs], 3, arguments.seed + 1)
    everything = {r.group_id for r in (*data.pairs, *data.ratings)}
    best: tuple[float, Choice] | None = None
    for choice in CHOICES:
        parts = [data.rows(fold) for fold in inner]
        found = [
            pair_accuracy(train(data.rows(everything - fold), choice, arguments, model), part)
            for fold, part in zip(inner, parts, strict=True)
        ]
        mean = float(np.average(found, weights=[len(part.pairs) for part in parts]))
        if best is None or mean > best[0]:
            best = (mean, choice)
    assert best is not None
    return best[1]


def cross_validate(
    data: Data, arguments: argparse.Namespace, model: CustomRewardModel
) -> dict[str, Any]:
    groups = [r.group_id for r in (*data.pairs, *data.ratings)]
    scores = {name: np.zeros(len(data.pairs)) for name in ("chosen", "rejected")}
    rated = np.zeros(len(data.ratings))
    by_head = {name: np.zeros(len(data.ratings)) for name in ASPECTS}
    chosen_settings = []
    for fold in folds(groups, 5, arguments.seed):
        training = data.rows(set(groups) - fold)
        choice = choose(training, arguments, model) if arguments.choose else DEFAULT
        chosen_settings.append(str(choice))
        heads = train(training, choice, arguments, model)
        p = [i for i, pair in enumerate(data.pairs) if pair.group_id in fold]
        r = [i for i, rating in enumerate(data.ratings) if rating.group_id in fold]
        with torch.no_grad():
            heads.set_calibration(heads(training.rated).totals)
            scores["chosen"][p] = heads(data.chosen[p]).scores.numpy()
            scores["rejected"][p] = heads(data.rejected[p]).scores.numpy()
            output = heads(data.rated[r])
            rated[r] = output.scores.numpy()
            for name in ASPECTS:
                by_head[name][r] = output.heads[name].mean(0).numpy()
    return evaluate_scores(
        data.pairs,
        scores["chosen"].tolist(),
        scores["rejected"].tolist(),
        ratings=data.ratings,
        rated=ScoredRatings(rated.tolist(), {k: v.tolist() for k, v in by_head.items()}),
    ) | {"settings_by_fold": chosen_settings}


def with_features(feedback: FeedbackSet, model: CustomRewardModel, folder: str) -> Data:
    cache = FeatureCache(folder, model)
    prompts = [pair.prompt for pair in feedback.pairs]
    return Data(
        feedback.pairs,
        feedback.ratings,
        cache.get(prompts, [pair.chosen for pair in feedback.pairs]),
        cache.get(prompts, [pair.rejected for pair in feedback.pairs]),
        cache.get([r.prompt for r in feedback.ratings], [r.response for r in feedback.ratings]),
    )


def over_repeats(data: Data, reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Accuracy averaged over repeats (other folds, other initial weights), and the gain over baselines.

    Each pair's outcome is its mean over the repeats; questions are resampled, as for one repeat.
    """
    groups = [pair.group_id for pair in data.pairs]
    ours = np.mean([outcomes(r["scores_chosen"], r["scores_rejected"]) for r in reports], axis=0)
    prompts = [pair.prompt for pair in data.pairs]
    gains = {}
    for name, baseline in BASELINES.items():
        theirs = outcomes(
            baseline(prompts, [pair.chosen for pair in data.pairs]),
            baseline(prompts, [pair.rejected for pair in data.pairs]),
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
    parser.add_argument("--text-features", action="store_true", help="beside the backbone's")
    parser.add_argument("--pooling", choices=("last", "cls", "mean"))
    parser.add_argument("--max-length", type=int)
    parser.add_argument("--head-kind", default="mlp", choices=("mlp", "linear"))
    parser.add_argument("--ensemble", type=int, default=3)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=5, help="seeds to average over")
    parser.add_argument("--cache", help="folder that keeps the features; default a temporary one")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    feedback = load_feedback(arguments.feedback)
    model = CustomRewardModel(
        arguments.backbone,
        pooling=arguments.pooling,
        max_length=arguments.max_length,
        text_features=arguments.text_features,
    )
    with tempfile.TemporaryDirectory() as temporary:
        data = with_features(feedback, model, arguments.cache or temporary)
        reports = []
        for repeat in range(arguments.repeats):
            arguments.seed += bool(repeat)
            reports.append(cross_validate(data, arguments, model))
    report = {**reports[0], "repeats": over_repeats(data, reports)}
    report["arguments"] = {k: str(v) for k, v in vars(arguments).items()}
    show(report)
    if arguments.output:
        arguments.output.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
