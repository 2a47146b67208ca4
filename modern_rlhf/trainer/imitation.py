"""Self-imitation: the best answer to each prompt so far, and gradients of the likelihood of answers.

Oh et al. 2018 (1806.05635) keep good episodes and learn their likelihood where the return exceeds the
value, beside the policy gradient (their PPO+SIL). Here the value of a prompt is the mean score of its
newest samples, so an answer leaves the memory when the policy has become as good as it. The loop is
`trainer.online`; the steps are `trainer.update`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modern_rlhf.data_loader.encoding import EncodedExample
from modern_rlhf.losses.imitation import weighted_likelihood
from modern_rlhf.rollout.types import RolloutBatch
from modern_rlhf.trainer.loop import MetricSums, micro_batches
from modern_rlhf.trainer.runtime import Runtime
from modern_rlhf.trainer.sft import training_rows

SMALLEST_SURPLUS = 1e-3
"""Below this an answer is no better than the others."""


@dataclass(frozen=True)
class Answer:
    """Response token ids with the end token, the score, and the score minus the newest mean."""

    response_ids: list[int]
    score: float
    surplus: float


class BestAnswers:
    """The best answer of every prompt that the policy does not reach on average."""

    def __init__(self) -> None:
        self.answers: dict[int, Answer] = {}

    def __len__(self) -> int:
        return len(self.answers)

    def add(self, prompt: int, samples: Sequence[tuple[Sequence[int], float]]) -> None:
        """One prompt's newest samples, as (response ids, score), without unscorable ones.

        Of equal scores the earlier answer is kept.
        """
        if not samples:
            return
        known = self.answers.pop(prompt, None)
        best, score = max(samples, key=lambda one: one[1])
        if known is not None and known.score >= score:
            best, score = known.response_ids, known.score
        surplus = score - sum(one for _, one in samples) / len(samples)
        if surplus > SMALLEST_SURPLUS:
            self.answers[prompt] = Answer(list(best), score, surplus)

    def add_rollout(self, batch: RolloutBatch, scores: Tensor, prompts: Sequence[int]) -> None:
        """A whole rollout: `scores` (B,), the same number of adjacent samples for each of `prompts`."""
        group = len(batch) // len(prompts)
        for place, prompt in enumerate(prompts):
            rows = [r for r in range(place * group, (place + 1) * group) if batch.valid[r]]
            self.add(prompt, [(batch.response_ids[r], float(scores[r])) for r in rows])

    def draw(self, count: int, *, seed: int, step: int) -> list[tuple[int, Answer]]:
        """At most `count` different (prompt, answer): a function of seed, step and memory alone."""
        prompts = sorted(self.answers)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        order = torch.randperm(len(prompts), generator=generator).tolist()[:count]
        return [(prompts[i], self.answers[prompts[i]]) for i in order]

    def state_dict(self) -> dict[str, Any]:
        return {
            "answers": [
                [prompt, one.score, one.surplus, one.response_ids]
                for prompt, one in self.answers.items()
            ]
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.answers = {
            prompt: Answer(list(ids), score, surplus)
            for prompt, score, surplus, ids in state["answers"]
        }


def accumulate_likelihood(
    rows: Sequence[tuple[EncodedExample, float]],
    sums: MetricSums,
    *,
    name: str,
    coefficient: float,
    policy: Any,
    pad_id: int,
    max_tokens: int,
    runtime: Runtime,
) -> None:
    """Gradients of `coefficient` x the weighted -log p of answers, each process its share.

    Args:
        rows: answers under their prompts and the weight of each, the same in every process; tokens
            that an example's mask leaves out (a user's later turns) have no loss.
        name: the metric that holds the loss.
        max_tokens: padded tokens of one forward pass.
    """
    denominator = sum(weight * sum(example.loss_mask) for example, weight in rows)
    lengths = [len(example) for example, _ in rows]
    groups = micro_batches(runtime.shared_rows(range(len(rows))), lengths, max_tokens=max_tokens)
    for group, share in runtime.in_step(groups):
        sequences, mask = training_rows([rows[i][0] for i in group], pad_id=pad_id)
        with runtime.autocast():
            out = policy(sequences.to(runtime.device))
        loss = weighted_likelihood(
            log_probs=out.log_probs,
            mask=mask.to(runtime.device),
            weights=torch.tensor([rows[i][1] for i in group], device=runtime.device),
            denominator=denominator,
        )
        runtime.backward(share * coefficient * loss)
        sums.add({name: loss}, scale=share)
