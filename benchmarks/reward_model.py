"""A frozen backbone run once against run every epoch: the same losses, how much faster?

    python -m benchmarks.reward_model --model smollm2-135m --pairs 2000 --epochs 5

Both arms train the same heads from the same initial weights on the same batches in float32, timed to
the last step with everything they need (the cached arm's timing includes filling the cache on disk).
The aim is at least 4x at 5 epochs and losses that agree within 1e-5 at every step. With fewer pairs the
ratio is the same, since both arms grow with them; the bound at E epochs is E.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from modern_rlhf.models.loading import load_backbone
from modern_rlhf.records import PreferencePair
from modern_rlhf.reward_model.cache import FeatureCache
from modern_rlhf.reward_model.fit import PairTargets, RewardLossSettings, pair_loss, pair_targets
from modern_rlhf.reward_model.heads import RewardOutput
from modern_rlhf.reward_model.model import CustomRewardModel

Outputs = Callable[[list[int]], tuple[RewardOutput, RewardOutput]]


def make_pairs(count: int) -> list[PreferencePair]:
    """Programs of a few lines, right against wrong; every text is different."""
    pairs = []
    for i in range(count):
        body = "\n".join(f"    total += values[{i + k}] * {k + 1}" for k in range(1 + i % 4))
        good = f"def sum_{i}(values):\n    total = {i}\n{body}\n    return total"
        bad = f"def sum_{i}(values):\n    total = {i}\n{body}\n    print(total)"
        pairs.append(
            PreferencePair(f"Write sum_{i}, a weighted sum of values plus {i}.", good, bad)
        )
    return pairs


def train(
    model: CustomRewardModel, targets: PairTargets, outputs: Outputs, epochs: int, batch_size: int
) -> list[float]:
    """AdamW on the heads; returns the loss of every step."""
    optimizer = torch.optim.AdamW(model.heads.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(epochs):
        for rows in torch.randperm(len(targets), generator=generator).split(batch_size):
            chosen, rejected = outputs(rows.tolist())
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
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    backbone = load_backbone(arguments.model)
    targets = pair_targets(make_pairs(arguments.pairs))

    def fresh() -> CustomRewardModel:
        return CustomRewardModel(
            backbone,
            dropout=0.0,
            max_length=arguments.max_length,
            generator=torch.Generator().manual_seed(1),
        )

    def pick(texts: list[str], rows: list[int]) -> list[str]:
        return [texts[i] for i in rows]

    model = fresh()
    model(model.encode_pairs(targets.prompts[:2], targets.chosen[:2]))  # warm-up of both arms

    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        cache = FeatureCache(folder, model)
        size = arguments.batch_size
        chosen = cache.get(targets.prompts, targets.chosen, batch_size=size)
        rejected = cache.get(targets.prompts, targets.rejected, batch_size=size)
        cached = train(
            model,
            targets,
            lambda rows: (model.heads(chosen[rows]), model.heads(rejected[rows])),
            arguments.epochs,
            size,
        )
    cached_seconds = time.perf_counter() - began

    other = fresh()

    def forward(texts: list[str], rows: list[int]) -> RewardOutput:
        return other(other.encode_pairs(pick(targets.prompts, rows), pick(texts, rows)))

    began = time.perf_counter()
    uncached = train(
        other,
        targets,
        lambda rows: (forward(targets.chosen, rows), forward(targets.rejected, rows)),
        arguments.epochs,
        size,
    )
    uncached_seconds = time.perf_counter() - began
    report = {
        "model": arguments.model,
        "pairs": arguments.pairs,
        "epochs": arguments.epochs,
        "threads": torch.get_num_threads(),
        "cached_seconds": round(cached_seconds, 2),
        "uncached_seconds": round(uncached_seconds, 2),
        "speedup": round(uncached_seconds / cached_seconds, 2),
        "largest_loss_difference": max(abs(a - b) for a, b in zip(cached, uncached, strict=True)),
        "steps": len(cached),
    }
    print(json.dumps(report, indent=1))
    if arguments.output:
        arguments.output.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
