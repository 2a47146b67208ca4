"""Online DPO: pairs made of a rollout, the best against the worst sample of each prompt.

Guo et al. 2402.04792 ("Direct Language Model Alignment from Online AI Feedback"), with any reward in
the place of the annotator and any loss of `losses.preference`. A prompt whose scorable samples all have
the same score has no pair. The loop is `trainer.online`; this file is what it does with a mini-batch in
place of a token loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from modern_rlhf.config.training import TrainingConfig
from modern_rlhf.losses.preference import preference_loss
from modern_rlhf.rollout.types import RolloutBatch
from modern_rlhf.trainer.loop import MetricSums, micro_batches
from modern_rlhf.trainer.runtime import Runtime


def best_and_worst(scores: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(P,) columns of the best and the worst scorable sample of each prompt, and whether they differ.

    Args:
        scores, valid: (P, G). Of equal scores the earlier sample is taken.
    """
    best = scores.masked_fill(~valid, -torch.inf).argmax(1)
    worst = scores.masked_fill(~valid, torch.inf).argmin(1)
    rows = torch.arange(len(scores))
    differ = (scores[rows, best] > scores[rows, worst]) & (valid.sum(1) > 1)
    return best, worst, differ


def accumulate_pairs(
    batch: RolloutBatch,
    signs: Tensor,
    rows: Sequence[int],
    sums: MetricSums,
    *,
    policy: Any,
    pad_id: int,
    training: TrainingConfig,
    runtime: Runtime,
) -> None:
    """Gradients of the preference loss over the pairs among `rows`, each process its share.

    Args:
        signs: (B,) 1 for a chosen sample, -1 for a rejected one, 0 for one that is in no pair; the
            chosen and the rejected sample of a prompt are both in `rows` or neither is.
    """
    assert batch.ref_log_probs is not None
    prompt = [row // training.samples_per_prompt for row in range(len(batch))]
    chosen = {prompt[row]: row for row in rows if signs[row] > 0}
    rejected = {prompt[row]: row for row in rows if signs[row] < 0}
    pairs = [(chosen[p], rejected[p]) for p in sorted(chosen)]
    share = runtime.processes.share(len(pairs))
    lengths = [max(batch.lengths()[c], batch.lengths()[r]) for c, r in pairs]
    groups = micro_batches(share, lengths, max_tokens=training.tokens_per_micro_batch // 2)
    if pairs and runtime.sharded and not groups:
        groups = [
            [0]
        ]  # a pass of weight 0: the other processes need this one's part of the weights
    reference = batch.ref_log_probs.sum(1).to(runtime.device)
    for group, weight in runtime.in_step(groups):
        counts = weight if share else 0.0
        both = [pairs[i][0] for i in group] + [pairs[i][1] for i in group]
        sequences = batch.sequences(both, pad_id=pad_id).to(runtime.device)
        with runtime.autocast():
            out = policy(sequences, temperature=training.temperature)
        summed, n = out.log_probs.sum(1), len(group)
        loss, metrics = preference_loss(
            kind=training.dpo_loss_type,  # type: ignore[arg-type]
            policy_chosen=summed[:n],
            policy_rejected=summed[n:],
            reference_chosen=reference[both[:n]],
            reference_rejected=reference[both[n:]],
            chosen_lengths=sequences.response_lengths[:n],
            rejected_lengths=sequences.response_lengths[n:],
            beta=training.dpo_beta,
            label_smoothing=training.dpo_label_smoothing,
            simpo_gamma=training.dpo_simpo_gamma,
            denominator=float(len(pairs)),
        )
        runtime.backward(counts * loss)
        sums.add({"policy_loss": loss, **metrics}, scale=counts)
    prompts = len({prompt[row] for row in rows})
    share_of_prompts = torch.tensor(len(pairs) / prompts / runtime.processes.count)
    # The loss is 0, not absent, where nothing could be ranked.
    sums.add({"pair_share": share_of_prompts, "policy_loss": torch.zeros(())})
