"""What is logged about a rollout: means for metrics.jsonl, one row an episode for rollouts.jsonl.

Reads a finished `RolloutBatch`; changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from modern_rlhf.errors import TrainingError
from modern_rlhf.ops.masking import masked_mean, masked_sum
from modern_rlhf.rollout.types import RolloutBatch


def rollout_metrics(batch: RolloutBatch, scores: Tensor) -> dict[str, float]:
    """Means over scorable episodes: reward, every component, lengths, share of each verdict and hack
    signature (`sandbox.hack_watch`)."""
    valid = batch.valid
    totals = torch.tensor([0.0 if s is None else float(s) for s in batch.scores.total])[valid]
    lengths = batch.response_lengths.float()
    metrics = {
        "reward": float(totals.mean()) if len(totals) else 0.0,
        "reward_std": float(totals.std(unbiased=False)) if len(totals) else 0.0,
        "score": float(scores[valid].mean()) if len(totals) else 0.0,
        "response_length": float(lengths.mean()),
        "finished_share": sum(batch.finished) / len(batch),
        "unscorable_share": 1.0 - float(valid.float().mean()),
    }
    if batch.credited is not None:
        real = max(1.0, float(batch.mask.sum()))
        metrics["credited_share"] = float(batch.policy_mask.sum()) / real
    for name, values in batch.scores.components.items():
        known = [value for value in values if value is not None]
        if known:
            metrics[f"reward_{name}"] = sum(known) / len(known)
    missing = Counter(name for names in _detail(batch, "missing") for name in names or ())
    for name, count in sorted(missing.items()):
        metrics[f"missing_{name}"] = count / len(batch)
    verdicts = Counter(v for v in _detail(batch, "verdict") if v is not None)
    for verdict, count in sorted(verdicts.items()):
        metrics[f"verdict_{verdict}"] = count / len(batch)
    suspicious = Counter(s for found in _detail(batch, "hack_signatures") for s in found or ())
    for signature, count in sorted(suspicious.items()):
        metrics[f"hack_{signature}"] = count / len(batch)
    return metrics


def _detail(batch: RolloutBatch, wanted: str) -> list[Any]:
    """A detail of the execution reward by its name, whatever composite it came through."""
    for name, values in batch.scores.details.items():
        if name.split("/")[-1] == wanted:
            return list(values)
    return [None] * len(batch)


def rollout_rows(
    batch: RolloutBatch, advantages: Tensor, stage: str, step: int
) -> Iterator[dict[str, Any]]:
    """One JSON-ready row an episode, with its KL to the reference and its (B, R) advantages' mean.

    `details` are what the rewards say in numbers beside their components; a False is left out.
    """
    assert batch.log_probs is not None and batch.ref_log_probs is not None
    kl = masked_sum(batch.log_probs - batch.ref_log_probs, batch.mask, dim=-1)
    advantage = masked_mean(advantages, batch.mask, dim=-1)
    verdicts = _detail(batch, "verdict")
    for i, text in enumerate(batch.texts):
        yield {
            "stage": stage,
            "step": step,
            "prompt": batch.prompts[i].prompt,
            "text": text,
            "reward": batch.scores.total[i],
            "components": {name: values[i] for name, values in batch.scores.components.items()},
            "kl": float(kl[i]),
            "advantage": float(advantage[i]),
            "verdict": verdicts[i],
            "finished": batch.finished[i],
            "details": {
                name: values[i]
                for name, values in batch.scores.details.items()
                if isinstance(values[i], (int, float)) and values[i] is not False
            },
        }


def why_unscorable(batch: RolloutBatch) -> str:
    """What the executor said most often about the samples that got no number."""
    messages = zip(_detail(batch, "message"), batch.valid.tolist(), strict=True)
    said = Counter(str(message) for message, valid in messages if message and not valid)
    return said.most_common(1)[0][0] if said else "the reward gave no number"


def check_kl(kl: float, limit: float | None, *, step: int) -> None:
    """Stop a policy that has run away from its reference.

    Raises:
        TrainingError: `kl` (nats a response) exceeds `training.abort_kl`.
    """
    if limit is not None and kl > limit:
        raise TrainingError(
            f"KL to the reference is {kl:.1f} at step {step}, above training.abort_kl = {limit}: the "
            "policy has run away; raise training.ppo_kl_penalty or lower training.learning_rate"
        )
