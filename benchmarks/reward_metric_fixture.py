"""Does a reward model trained on human grades follow them better than chrF? 5-fold by item.

    python -m benchmarks.reward_metric_fixture --fixture ../shared/data/metric_fixture/conala_metric_fixture.jsonl \
        --backbone minilm --train-backbone 4

The fixture has 236 CoNaLa items with the answers of five systems, graded 0-4 by people. The model scores
each answer with the reference as its prompt, and without it (the answer alone: the fixture holds no
question text). All answers of an item are in one fold. With `--train-backbone E` the backbone trains for
E epochs on every fold's training part, otherwise it is frozen and only the heads train.
Prints Pearson and Spearman beside chrF's, with the 95% interval of the difference (items resampled).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modern_rlhf.models.loading import load_backbone
from modern_rlhf.records import Rating
from modern_rlhf.reward_model.cache import FeatureCache
from modern_rlhf.reward_model.fit import RewardLossSettings, rating_loss, rating_targets
from modern_rlhf.reward_model.heads import RewardHeads
from modern_rlhf.reward_model.model import CustomRewardModel
from modern_rlhf.reward_model.quick_fit import fit_heads
from modern_rlhf.reward_model.statistics import correlation

HEADS = ("overall",)


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


def build(arguments: argparse.Namespace) -> CustomRewardModel:
    return CustomRewardModel(
        load_backbone(arguments.backbone),
        HEADS,
        freeze_backbone=not arguments.train_backbone,
        pooling=arguments.pooling,
        max_length=arguments.max_length,
        template="plain" if arguments.plain else "auto",
        generator=torch.Generator().manual_seed(arguments.seed),
    )


def frozen_scores(
    ratings: list[Rating], folds: list[set[str]], arguments: argparse.Namespace, cache: str
) -> np.ndarray:
    model = build(arguments)
    targets = rating_targets(ratings, HEADS)
    features = FeatureCache(cache, model).get(targets.prompts, targets.responses)
    scores = np.zeros(len(ratings))
    for fold in folds:
        inside = [i for i, r in enumerate(ratings) if r.group_id in fold]
        outside = [i for i, r in enumerate(ratings) if r.group_id not in fold]
        generator = torch.Generator().manual_seed(arguments.seed)
        heads = RewardHeads(
            model.heads.hidden_size, HEADS, width=128, dropout=0.1, ensemble=3, generator=generator
        )
        torch.manual_seed(arguments.seed)
        fit_heads(
            heads,
            ratings=(rating_targets([ratings[i] for i in outside], HEADS), features[outside]),
            epochs=arguments.epochs,
            batch_size=32,
            weight_decay=0.1,
            generator=generator,
        )
        with torch.no_grad():
            scores[inside] = heads(features[inside]).scores.numpy()
    return scores


def trained_scores(
    ratings: list[Rating], folds: list[set[str]], arguments: argparse.Namespace, cache: str
) -> np.ndarray:
    """Scores by fold; with `--cache` a fold that an interrupted run finished is read, not trained again."""
    scores = np.zeros(len(ratings))
    for number, fold in enumerate(folds):
        decides = {
            k: str(v) for k, v in vars(arguments).items() if k not in ("cache", "output", "only")
        }
        content = json.dumps([decides, number, [r.prompt for r in ratings]])
        kept = Path(cache) / f"fold-{hashlib.sha256(content.encode()).hexdigest()[:16]}.npy"
        inside = [i for i, r in enumerate(ratings) if r.group_id in fold]
        outside = [r for r in ratings if r.group_id not in fold]
        if kept.is_file():
            scores[inside] = np.load(kept)
            continue
        model = build(arguments)
        train_backbone(model, outside, arguments)
        scores[inside] = model.score(
            [ratings[i].prompt for i in inside], [ratings[i].response for i in inside]
        )
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.save(kept, scores[inside])
        print(
            "fold done", correlation(scores[inside], [ratings[i].scores["overall"] for i in inside])
        )
    return scores


def train_backbone(
    model: CustomRewardModel, ratings: list[Rating], arguments: argparse.Namespace
) -> None:
    """AdamW on everything, linear decay; batches of 16 of similar length."""
    targets = rating_targets(ratings, HEADS)
    backbone = [p for p in model.backbone.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        [
            {"params": backbone, "lr": arguments.learning_rate},
            {"params": model.heads.parameters(), "lr": 1e-3},
        ],
        weight_decay=0.01,
    )
    generator = torch.Generator().manual_seed(arguments.seed)
    torch.manual_seed(arguments.seed)
    steps = arguments.train_backbone * -(-len(ratings) // 16)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 - step / steps)
    model.train()
    for _ in range(arguments.train_backbone):
        for rows in torch.randperm(len(ratings), generator=generator).split(16):
            output = model(
                model.encode_pairs(
                    [targets.prompts[i] for i in rows], [targets.responses[i] for i in rows]
                )
            )
            loss, _ = rating_loss(
                output,
                values=targets.values[rows],
                weights=targets.weights[rows],
                overall=targets.overall[rows],
                overall_weights=targets.overall_weights[rows],
                head_weights=model.heads.weights,
                settings=RewardLossSettings(ordinal=0.0),
            )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    model.eval()


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
    parser.add_argument("--pooling", choices=("last", "cls", "mean"))
    parser.add_argument("--max-length", type=int, default=160)
    parser.add_argument("--plain", action="store_true", help="no chat template")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--train-backbone", type=int, default=0)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
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
    report: dict[str, Any] = {"chrf": correlation(chrf, grades)}
    with tempfile.TemporaryDirectory() as temporary:
        for key in ("with", "without"):
            if arguments.only not in (None, key):
                continue
            ratings = as_ratings(rows, with_reference=key == "with")
            method = trained_scores if arguments.train_backbone else frozen_scores
            scores = method(ratings, folds, arguments, arguments.cache or temporary)
            low, high = difference_interval(scores, chrf, grades, items)
            found = correlation(scores, grades)
            found["gain_over_chrf"] = [found["pearson"] - report["chrf"]["pearson"], low, high]
            report[f"{key}_reference"] = found
    report["arguments"] = {k: str(v) for k, v in vars(arguments).items()}
    print(json.dumps(report, indent=1))
    if arguments.output:
        arguments.output.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
