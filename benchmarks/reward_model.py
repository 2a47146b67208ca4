"""A frozen backbone run once against run every epoch: the same losses, how much faster?

    python -m benchmarks.reward_model --model smollm2-135m --data ../shared/data/conala-corpus/conala-train.json

Both arms train the same heads from the same initial weights on the same batches in float32. The backbone
runs over all texts, through the same function and in the same batches sorted by length: once, into the
cache on disk, or at the start of every epoch. Each arm is timed to its last step with everything it needs.
(In other batches float32 rounds features differently, by 6e-5 where they reach 33, and AdamW makes more of
that at every step.) A pair is a question
with its answer and with the answer of another question: some 35 tokens on CoNaLa, 62 on the shipped tasks
(the default), so that 2,000 pairs and 5 epochs of a 135M backbone are no matter of hours on two cores.

The aim is at least 4x at 5 epochs over 2,000 pairs and losses that agree within 1e-5 at every step; exit
status 1 says that it was missed. The bound at E epochs is E.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from modern_rlhf.data_loader.demonstrations import load_demonstrations
from modern_rlhf.models.loading import load_backbone
from modern_rlhf.records import PreferencePair
from modern_rlhf.reward_model.cache import FeatureCache
from modern_rlhf.reward_model.fit import PairTargets, RewardLossSettings, pair_loss, pair_targets
from modern_rlhf.reward_model.model import CustomRewardModel

Features = Callable[[], tuple[torch.Tensor, ...]]

SHIPPED = "builtin:datasets_for_training/tasks.jsonl"
SPEEDUP, TOLERANCE = 4.0, 1e-5
BACKBONE_BATCH = 32
"""Texts the backbone reads at once, in both arms."""


def make_pairs(path: str, count: int) -> list[PreferencePair]:
    """`count` questions of a demonstration file, each with its answer and the next one's."""
    rows = load_demonstrations(path).items
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()
    shuffled = [rows[i] for i in order]
    pairs = [
        PreferencePair(one.prompt, one.response, other.response)
        for one, other in zip(shuffled, shuffled[1:] + shuffled[:1], strict=True)
        if one.response != other.response
    ]
    if len(pairs) < count:
        sys.exit(f"{path} gives {len(pairs)} pairs, not {count}")
    return pairs[:count]


def train(
    model: CustomRewardModel, targets: PairTargets, features: Features, epochs: int, batch_size: int
) -> list[float]:
    """AdamW on the heads; returns the loss of every step."""
    optimizer = torch.optim.AdamW(model.heads.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(epochs):
        left, right = features()
        for rows in torch.randperm(len(targets), generator=generator).split(batch_size):
            chosen, rejected = model.heads(left[rows]), model.heads(right[rows])
            loss, _ = pair_loss(
                chosen,
                rejected,
                margins=targets.margins[rows],
                weights=targets.weights[rows],
                settings=RewardLossSettings(),
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    return losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="builtin:tiny-code-lm")
    parser.add_argument("--data", default=SHIPPED, help="demonstrations; default the shipped tasks")
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=16, help="pairs a step")
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    backbone = load_backbone(arguments.model)
    targets = pair_targets(make_pairs(arguments.data, arguments.pairs))
    both = (targets.prompts * 2, [*targets.chosen, *targets.rejected])

    def fresh() -> CustomRewardModel:
        return CustomRewardModel(
            backbone,
            dropout=0.0,
            max_length=arguments.max_length,
            template="plain",
            generator=torch.Generator().manual_seed(1),
        )

    def fit(model: CustomRewardModel, features: Features) -> list[float]:
        return train(model, targets, features, arguments.epochs, arguments.batch_size)

    model = fresh()
    lengths = [len(row.ids) for row in model.encoder.rows(*both)]
    model.pooled(targets.prompts[:8], targets.chosen[:8])  # warm-up of both arms

    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        kept = FeatureCache(folder, model).get(*both, batch_size=BACKBONE_BATCH)
        cached = fit(model, lambda: kept.chunk(2))
    cached_seconds = time.perf_counter() - began
    print(f"cached: {cached_seconds:.1f} s for {len(cached)} steps", flush=True)

    other = fresh()

    def run_backbone() -> tuple[torch.Tensor, ...]:
        return other.pooled(*both, batch_size=BACKBONE_BATCH).chunk(2)

    began = time.perf_counter()
    uncached = fit(other, run_backbone)
    uncached_seconds = time.perf_counter() - began
    speedup = uncached_seconds / cached_seconds
    difference = max(abs(a - b) for a, b in zip(cached, uncached, strict=True))
    report = {
        "model": arguments.model,
        "data": Path(arguments.data).name,
        "pairs": arguments.pairs,
        "epochs": arguments.epochs,
        "mean_tokens": round(sum(lengths) / len(lengths), 1),
        "threads": torch.get_num_threads(),
        "cached_seconds": round(cached_seconds, 2),
        "uncached_seconds": round(uncached_seconds, 2),
        "speedup": round(speedup, 2),
        "largest_loss_difference": difference,
        "steps": len(cached),
        "first_loss": cached[0],
        "last_loss": cached[-1],
    }
    print(json.dumps(report, indent=1))
    if arguments.output:
        arguments.output.write_text(json.dumps(report, indent=1) + "\n")
    if speedup < SPEEDUP or difference > TOLERANCE:
        sys.exit(f"missed: {SPEEDUP}x and losses within {TOLERANCE} were the aim")


if __name__ == "__main__":
    main()
