"""Does a reward model trained on human grades follow them better than chrF? 5-fold by item.

    python -m benchmarks.reward_metric_fixture --fixture ../shared/data/metric_fixture/conala_metric_fixture.jsonl \
        --backbone minilm --train-backbone 4

The fixture has 236 CoNaLa items with the answers of five systems, graded 0-4 by people. The model scores
each answer with the reference as its prompt, and without it (the answer alone: the fixture holds no
question text). All answers of an item are in one fold. With `--train-backbone E` the backbone trains for
E epochs on every fold's training part, otherwise it is frozen and only the heads train. Settings are
given, never chosen by the scores printed here: `--choose` picks the heads' weight decay and learning
rate inside the training part of each fold.
Prints Pearson and Spearman beside chrF's, with the 95% interval of the difference (items resampled).
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from modern_rlhf.config.reward import HEAD_WEIGHT_DECAY, RewardConfig
from modern_rlhf.config.training import TrainingConfig
from modern_rlhf.records import Rating
from modern_rlhf.reward_model.statistics import correlation
from modern_rlhf.trainer.reward import RewardTrainer

CHOICES = tuple(itertools.product((3.0, 30.0, 100.0, 300.0), (1e-3, 3e-3)))
"""Weight decay and learning rate of the heads."""


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def as_ratings(rows: list[dict[str, Any]], *, with_reference: bool) -> list[Rating]:
    return [
        Rating(
            row["refs"][0] if with_reference else "",
            row["hyp"],
            {"overall": row["human"] - 2.0},
            group_id=str(row["item"]),
        )
        for row in rows
    ]


def cross_validated(
    ratings: list[Rating], folds: list[set[str]], arguments: argparse.Namespace, cache: Path
) -> np.ndarray:
    """Scores by fold; with `--cache` a fold that an interrupted run finished is read, not trained again."""
    scores = np.zeros(len(ratings))
    for number, fold in enumerate(folds):
        decides = {
            k: str(v) for k, v in vars(arguments).items() if k not in ("cache", "output", "only")
        }
        content = json.dumps([decides, number, [r.prompt for r in ratings]])
        kept = cache / f"fold-{hashlib.sha256(content.encode()).hexdigest()[:16]}.npy"
        inside = [i for i, r in enumerate(ratings) if r.group_id in fold]
        if not kept.is_file():
            outside = [r for r in ratings if r.group_id not in fold]
            choice = chosen(outside, arguments, cache)
            found = held_out_scores(outside, [ratings[i] for i in inside], choice, arguments, cache)
            kept.parent.mkdir(parents=True, exist_ok=True)
            np.save(kept, found)
            print(
                "fold",
                number,
                correlation(
                    found,
                    [ratings[i].overall for i in inside],
                    [ratings[i].group_id for i in inside],
                ),
            )
        scores[inside] = np.load(kept)
    return scores


def chosen(
    ratings: list[Rating], arguments: argparse.Namespace, cache: Path
) -> tuple[float, float | None]:
    """(decay, rate) as given, or with `--choose` the best of `CHOICES` over 3 folds of these ratings."""
    if not arguments.choose:
        return arguments.weight_decay, arguments.head_rate
    names = sorted({r.group_id for r in ratings})
    np.random.default_rng(arguments.seed + 1).shuffle(names)
    inner = [set(names[i::3]) for i in range(3)]
    found = {}
    for choice in CHOICES:
        scores, grades = [], []
        for fold in inner:
            test = [r for r in ratings if r.group_id in fold]
            rest = [r for r in ratings if r.group_id not in fold]
            scores += held_out_scores(rest, test, choice, arguments, cache)
            grades += [r.scores["overall"] for r in test]
        found[choice] = float(np.corrcoef(scores, grades)[0, 1])
    best = max(found, key=lambda choice: found[choice])
    print("chosen", best, {str(choice): round(value, 3) for choice, value in found.items()})
    return best


def held_out_scores(
    ratings: list[Rating],
    held_out: list[Rating],
    choice: tuple[float, float | None],
    arguments: argparse.Namespace,
    cache: Path,
) -> list[float]:
    """Scores of `held_out` by a reward model trained on `ratings` by `RewardTrainer`."""
    epochs = arguments.train_backbone
    decay, rate = choice
    config = RewardConfig(
        custom_reward_heads=1,
        custom_reward_head_names=["overall"],
        custom_reward_freeze_backbone=not epochs,
        custom_reward_pooling=arguments.pooling,
        custom_reward_text_features=arguments.text_features,
        reward_max_length=arguments.max_length,
        reward_batch_size=16,
        reward_epochs=arguments.epochs,
        reward_weight_decay=decay,
        use_human_logits=False,
    )
    training = TrainingConfig(
        seed=arguments.seed,
        reward_modeling_epochs=max(1, epochs),  # not used on a frozen backbone
        reward_learning_rate=rate,
        reward_backbone_learning_rate=arguments.learning_rate,
        mixed_precision=arguments.precision,
    )
    trainer = RewardTrainer(
        arguments.backbone,
        ratings=ratings,
        config=config,
        training=training,
        cache_folder=cache,
        validation_fraction=0.0,
    )
    trainer.train()
    return trainer.model.eval().score([r.prompt for r in held_out], [r.response for r in held_out])


def difference_interval(
    ours: np.ndarray, theirs: np.ndarray, grades: np.ndarray, items: list[str]
) -> tuple[float, float]:
    """95% percentile bounds of Pearson(ours) - Pearson(theirs), items resampled."""
    draw = np.random.default_rng(0)
    names = sorted(set(items))
    rows = {name: [i for i, item in enumerate(items) if item == name] for name in names}
    found = []
    for _ in range(2000):
        chosen = np.concatenate(
            [rows[names[i]] for i in draw.integers(len(names), size=len(names))]
        )
        table = np.corrcoef([ours[chosen], theirs[chosen], grades[chosen]])
        found.append(table[0, 2] - table[1, 2])
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--fixture", type=Path, required=True)
    parser.add_argument("--backbone", default="builtin:tiny-code-lm")
    parser.add_argument("--text-features", action="store_true", help="beside the backbone's")
    parser.add_argument("--pooling", choices=("last", "cls", "mean"))
    parser.add_argument("--max-length", type=int, default=160)
    parser.add_argument("--epochs", type=int, default=5, help="of heads on a frozen backbone")
    parser.add_argument("--weight-decay", type=float, default=HEAD_WEIGHT_DECAY, help="of these")
    parser.add_argument("--head-rate", type=float, help="of heads; default the shipped one")
    parser.add_argument("--choose", action="store_true", help="both, inside every fold")
    parser.add_argument("--train-backbone", type=int, default=0)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--precision", default="auto", choices=("auto", "bf16", "no"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache")
    parser.add_argument("--only", choices=("with", "without"))
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    rows = read(arguments.fixture)
    items = [str(row["item"]) for row in rows]
    grades = np.array([float(row["human"]) for row in rows])
    chrf = np.array([float(row["chrf"]) for row in rows])
    names = sorted(set(items))
    np.random.default_rng(arguments.seed).shuffle(names)
    folds = [set(names[i::5]) for i in range(5)]
    report: dict[str, Any] = {"chrf": correlation(chrf, grades, items)}
    with tempfile.TemporaryDirectory() as temporary:
        for key in ("with", "without"):
            if arguments.only not in (None, key):
                continue
            ratings = as_ratings(rows, with_reference=key == "with")
            scores = cross_validated(ratings, folds, arguments, Path(arguments.cache or temporary))
            low, high = difference_interval(scores, chrf, grades, items)
            found = correlation(scores, grades, items)
            found["gain_over_chrf"] = [found["pearson"] - report["chrf"]["pearson"], low, high]
            report[f"{key}_reference"] = found
    report["arguments"] = {k: str(v) for k, v in vars(arguments).items()}
    print(json.dumps(report, indent=1))
    if arguments.output:
        arguments.output.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
