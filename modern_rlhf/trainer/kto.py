"""Kahneman-Tversky optimisation, on answers labelled desirable or not.

Paper: Ethayarajh et al. 2402.01306. The KL estimate comes from mismatched pairs, over the whole optimiser
batch: under each prompt the next answer that belongs to another prompt; labels are balanced by weights
(section 4.2). Reference log-probabilities of the matched rows are computed once, those of the
mismatched ones too: which answer meets which prompt is fixed by the order of the data.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modern_rlhf.config.sections import ModelConfig
from modern_rlhf.config.training import TrainingConfig, check_training
from modern_rlhf.data_loader.encoding import pad_id_of
from modern_rlhf.data_loader.rows import labelled_from_rows
from modern_rlhf.errors import DataError
from modern_rlhf.losses.kto import kto_balanced_weights, kto_kl, kto_loss
from modern_rlhf.models.forward import Policy
from modern_rlhf.trainer.answers import AnswerRow, encode_answers, reference_sums, sequences_of
from modern_rlhf.trainer.inputs import (
    recompute_activations,
    resolve_model_and_tokenizer,
    with_lora,
)
from modern_rlhf.trainer.keeper import Keeper
from modern_rlhf.trainer.loop import (
    EpochSampler,
    MetricSums,
    TrainResult,
    check_finite,
    linear_schedule,
    make_optimizer,
    micro_batches,
    set_learning_rate,
)
from modern_rlhf.trainer.reference import digest_of_rows, restored_reference
from modern_rlhf.trainer.runtime import Evaluate, Runtime


class KTOTrainer:
    """Trains a policy on labelled answers.

    Args:
        model, tokenizer: a name, or a loaded causal LM with its tokenizer; trained in place.
        train_data: `LabelledAnswer`s, dicts with prompt/completion/label, or a `datasets.Dataset`.
        config: the training section; `kto_beta`, `learning_rate`, `rlhf_epochs`, `batch_size`.

    Raises:
        DataError: no answer fits, or one of the labels does not occur.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        train_data: Any,
        config: TrainingConfig | None = None,
        runtime: Runtime | None = None,
        model_config: ModelConfig | None = None,
        evaluate: Evaluate | None = None,
    ) -> None:
        self.training = training = check_training(
            dataclasses.replace(config or TrainingConfig(), algorithm="kto", use_dpo=False)
        )
        self.runtime = runtime = runtime or Runtime()
        settings = model_config or ModelConfig()
        self.lm, self.tokenizer = resolve_model_and_tokenizer(
            model, tokenizer, device=runtime.device, longest=training.max_sequence_tokens
        )
        if settings.use_lora:
            self.lm = with_lora(self.lm, settings, seed=training.seed)
        records = labelled_from_rows(train_data)
        self.rows, kept = encode_answers(
            self.tokenizer,
            [r.prompt for r in records],
            [r.completion for r in records],
            training=training,
            settings=settings,
        )
        if len(self.rows) < 2:
            raise DataError(
                f"KTO needs at least two labelled answers that fit, got {len(self.rows)}; raise "
                "training.max_prompt_tokens or give more data"
            )
        self.labels = torch.tensor([records[i].label for i in kept])
        self.weights = torch.tensor([float(records[i].weight) for i in kept])
        self.rows_digest = digest_of_rows(self.rows, self.labels.tolist(), self.weights.tolist())
        desirable = int(self.labels.sum())
        self.balance = kto_balanced_weights(desirable, len(kept) - desirable)
        self.mismatched = [
            AnswerRow(row.prompt_ids, self.rows[other].answer_ids)
            for row, other in zip(
                self.rows,
                next_of_another_prompt([row.prompt_ids for row in self.rows]),
                strict=True,
            )
        ]
        recompute_activations(self.lm, training)
        policy = Policy(self.lm)
        policy.to(runtime.device)
        self.reference = {
            name: reference_sums(
                policy,
                rows,
                pad_id=pad_id_of(self.tokenizer),
                runtime=runtime,
                max_tokens=training.tokens_per_micro_batch,
            )
            for name, rows in (("matched", self.rows), ("mismatched", self.mismatched))
        }
        self.batch_size = training.batch_size * training.gradient_accumulation_steps
        steps = math.ceil(len(self.rows) * training.rlhf_epochs / self.batch_size)
        if training.total_steps is not None:
            steps = min(steps, training.total_steps)
        self.total_steps = max(1, steps)
        self.sampler = EpochSampler(len(self.rows), seed=training.seed)
        self.policy = runtime.prepare(policy)
        self.optimizer = make_optimizer(
            [(self.policy.parameters(), training.learning_rate)], training
        )
        self.trainable = [p for g in self.optimizer.param_groups for p in g["params"]]
        self.keeper = Keeper(
            stage="kto",
            training=training,
            runtime=runtime,
            total_steps=self.total_steps,
            state=self.state,
            restore=self.restore,
            evaluate=evaluate,
        )

    def state(self) -> dict[str, Any]:
        """Weights, optimiser and reference sums; which rows come next follows from the step."""
        return {
            "model": self.runtime.state_of(self.policy),
            "optimizer": self.runtime.state_of(self.optimizer),
            "trainer": {
                "reference": self.reference,
                "rows": self.rows_digest,
                "scaler": self.runtime.scaler.state_dict(),
            },
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.runtime.load(self.policy, state["model"])
        self.runtime.load(self.optimizer, state["optimizer"])
        self.reference = restored_reference(
            state["trainer"], rows=self.rows_digest, reference=self.reference
        )
        self.runtime.scaler.load_state_dict(state["trainer"]["scaler"])

    def train(self) -> TrainResult:
        """Run to the last step, an early stop, or a stop request."""
        return self.keeper.run(self._loop)

    def _loop(self) -> TrainResult:
        training = self.training
        step, go_on = self.keeper.begin()
        while go_on and step < self.total_steps:
            rate = set_learning_rate(
                self.optimizer,
                linear_schedule(step, total=self.total_steps, warmup=training.warmup_steps),
            )
            chosen = self.sampler.take(step * self.batch_size, self.batch_size)
            metrics = self.accumulate(chosen)
            check_finite(
                metrics["loss"],
                what="the KTO loss",
                step=step + 1,
                remedy="lower training.learning_rate or use --set training.mixed_precision=no",
            )
            norm = self.runtime.step(self.optimizer, self.trainable, training.max_grad_norm)
            step += 1
            go_on = self.keeper.after_step(
                step,
                {**metrics, "gradient_norm": norm, "learning_rate": rate},
                epoch=step * self.batch_size / len(self.rows),
                tokens=2 * sum(len(self.rows[i]) for i in chosen),
                shown={"loss": f"{metrics['loss']:.3f}", "kl": f"{metrics['kl']:.3f}"},
            )
        return self.keeper.finish(step, stopped_early=not go_on)

    def _sums(self, rows: Sequence[AnswerRow]) -> Tensor:
        sequences = sequences_of(rows, pad_id=pad_id_of(self.tokenizer)).to(self.runtime.device)
        with self.runtime.autocast():
            out = self.policy(sequences)
        summed: Tensor = out.log_probs.sum(1)
        return summed

    def _batch_kl(self, indices: Sequence[int]) -> Tensor:
        """z over the whole optimiser batch, without gradient; each process reads its share."""
        runtime = self.runtime
        policy = torch.zeros(len(indices))
        rows = [self.mismatched[i] for i in indices]
        groups = micro_batches(
            runtime.shared_rows(range(len(rows))),
            [len(r) for r in rows],
            max_tokens=self.training.tokens_per_micro_batch,
        )
        with torch.no_grad():
            for group, _ in runtime.in_step(groups):
                policy[group] = self._sums([rows[i] for i in group]).cpu()
        return kto_kl(
            policy_mismatched=runtime.processes.sum(policy),
            reference_mismatched=self.reference["mismatched"][list(indices)],
        )

    def accumulate(self, indices: Sequence[int]) -> dict[str, float]:
        """Gradients of one optimiser batch; each process takes its share of the rows."""
        runtime, training, sums = self.runtime, self.training, MetricSums()
        kl = self._batch_kl(indices).to(runtime.device)
        mine = runtime.shared_rows(indices)
        denominator = float(self.weights[list(indices)].sum())
        groups = micro_batches(
            mine, [len(r) for r in self.rows], max_tokens=training.tokens_per_micro_batch
        )
        for group, weight in runtime.in_step(groups):
            loss, metrics = kto_loss(
                policy=self._sums([self.rows[i] for i in group]),
                reference=self.reference["matched"][group].to(runtime.device),
                labels=self.labels[group].to(runtime.device),
                kl=kl,
                beta=training.kto_beta,
                desirable_weight=self.balance[0],
                undesirable_weight=self.balance[1],
                weights=self.weights[group].to(runtime.device),
                denominator=denominator,
            )
            runtime.backward(weight * loss)
            sums.add({"loss": loss, **metrics}, scale=weight)
        return sums.result(runtime)

    def save_model(self, folder: Any) -> Path:
        """Write the policy as a Hugging Face directory; LoRA adapters are merged. Returns it."""
        from modern_rlhf.trainer.export import save_policy

        return save_policy(self.lm, self.tokenizer, folder, self.runtime)


def next_of_another_prompt(prompts: Sequence[list[int]]) -> list[int]:
    """(N,) for each row the next one, in a circle, whose prompt is another.

    Not simply the next: a pair is two rows with one prompt, and an answer under its own prompt is no
    mismatched one.

    Raises:
        DataError: all rows have the same prompt.
    """
    count, found = len(prompts), -1
    following = [-1] * count
    for place in reversed(range(2 * count)):  # twice round, so that the end sees the beginning
        here, after = place % count, (place + 1) % count
        found = after if prompts[after] != prompts[here] else found
        following[here] = found
    if found < 0:
        raise DataError(
            f"KTO estimates the KL on answers to other prompts, and all {count} rows have one prompt; "
            "give rows with others"
        )
    return following
