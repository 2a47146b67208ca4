"""Encoded (prompt, answer) rows and their summed log-probabilities: what DPO and KTO share.

The reference's log-probabilities of offline data never change, so they are computed once, before the
first step, by a frozen copy of the policy as given (or, under LoRA, by the policy without adapters)
that is dropped right after.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modern_rlhf.config.sections import ModelConfig
from modern_rlhf.config.training import TrainingConfig
from modern_rlhf.models.forward import Policy, Sequences, make_sequences
from modern_rlhf.records import Demonstration
from modern_rlhf.trainer.inputs import adapters_off, encode_training_rows
from modern_rlhf.trainer.loop import micro_batches
from modern_rlhf.trainer.runtime import Runtime


@dataclass(frozen=True)
class AnswerRow:
    """Token ids of one prompt and one answer, its end token included."""

    prompt_ids: list[int]
    answer_ids: list[int]

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.answer_ids)


def encode_answers(
    tokenizer: Any,
    prompts: Sequence[str],
    answers: Sequence[str],
    *,
    training: TrainingConfig,
    settings: ModelConfig,
) -> tuple[list[AnswerRow], list[int]]:
    """Rows that fit, and the position of each among those given.

    Raises:
        DataError: none fits.
    """
    demonstrations = [Demonstration(p, a) for p, a in zip(prompts, answers, strict=True)]
    encoded = encode_training_rows(tokenizer, demonstrations, training, settings)
    rows = [
        AnswerRow(e.input_ids[: e.prompt_length], e.input_ids[e.prompt_length :])
        for e in encoded.examples
    ]
    return rows, encoded.indices


def sequences_of(rows: Sequence[AnswerRow], *, pad_id: int) -> Sequences:
    """Rows as one right-padded batch."""
    return make_sequences(
        [row.prompt_ids for row in rows], [row.answer_ids for row in rows], pad_id=pad_id
    )


@torch.no_grad()
def reference_sums(
    policy: Policy, rows: Sequence[AnswerRow], *, pad_id: int, runtime: Runtime, max_tokens: int
) -> Tensor:
    """(N,) summed log-probabilities under the policy as it is now, adapters off.

    Each process reads its share; the policy is not cut over the processes yet.
    """
    sums = torch.zeros(len(rows))
    mine = runtime.processes.share(len(rows))
    with adapters_off(policy.lm):
        for group in micro_batches(mine, [len(r) for r in rows], max_tokens=max_tokens):
            sequences = sequences_of([rows[i] for i in group], pad_id=pad_id).to(runtime.device)
            with runtime.autocast():
                sums[group] = policy(sequences).log_probs.sum(1).cpu()
    return runtime.processes.sum(sums)
