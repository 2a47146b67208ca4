"""Direct preference optimisation and its relatives, on pairs.

Paper: Rafailov et al. 2305.18290; the losses (sigmoid, ipo, hinge, robust, simpo, orpo, nca,
apo_zero) are rows of `losses.preference`. Reference log-probabilities are computed once. An SFT term
on the chosen answers may be mixed in (`dpo_sft_coef`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from modern_rlhf.config.sections import ModelConfig
from modern_rlhf.config.training import TrainingConfig, check_training
from modern_rlhf.data_loader.encoding import pad_id_of
from modern_rlhf.data_loader.rows import pairs_from_rows
from modern_rlhf.errors import DataError
from modern_rlhf.losses.preference import KINDS, preference_loss
from modern_rlhf.losses.sft import sft_loss
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


class DPOTrainer:
    """Trains a policy on preference pairs.

    Args:
        model, tokenizer: a name, or a loaded causal LM with its tokenizer; trained in place.
        train_data: `PreferencePair`s, dicts with prompt/chosen/rejected, or a `datasets.Dataset`.
        config: the training section; its `algorithm` is set to `dpo`; `dpo_*`, `learning_rate`,
            `rlhf_epochs`, `batch_size` pairs.

    Raises:
        DataError: no pair fits. ConfigError, ModelError: unusable arguments.
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
            dataclasses.replace(config or TrainingConfig(), algorithm="dpo", dpo_online=False)
        )
        self.runtime = runtime = runtime or Runtime()
        settings = model_config or ModelConfig()
        self.lm, self.tokenizer = resolve_model_and_tokenizer(
            model, tokenizer, device=runtime.device, longest=training.max_sequence_tokens
        )
        if settings.use_lora:
            self.lm = with_lora(self.lm, settings, seed=training.seed)
        pairs = pairs_from_rows(train_data)
        self.chosen, self.rejected, kept = self._encode(pairs, settings)
        self.weights = torch.tensor([float(pairs[i].weight) for i in kept])
        self.rows_digest = digest_of_rows(self.chosen, self.rejected, self.weights.tolist())
        recompute_activations(self.lm, training)
        policy = Policy(self.lm)
        policy.to(runtime.device)
        self.reference: dict[str, torch.Tensor] = {}
        if KINDS[training.dpo_loss_type].needs_reference:
            for name, rows in (("chosen", self.chosen), ("rejected", self.rejected)):
                self.reference[name] = reference_sums(
                    policy,
                    rows,
                    pad_id=pad_id_of(self.tokenizer),
                    runtime=runtime,
                    max_tokens=training.tokens_per_micro_batch,
                )
        self.batch_size = training.batch_size * training.gradient_accumulation_steps
        steps = math.ceil(len(self.chosen) * training.rlhf_epochs / self.batch_size)
        if training.total_steps is not None:
            steps = min(steps, training.total_steps)
        self.total_steps = max(1, steps)
        self.sampler = EpochSampler(len(self.chosen), seed=training.seed)
        self.policy = runtime.prepare(policy)
        self.optimizer = make_optimizer(
            [(self.policy.parameters(), training.learning_rate)], training
        )
        self.trainable = [p for g in self.optimizer.param_groups for p in g["params"]]
        self.keeper = Keeper(
            stage="dpo",
            training=training,
            runtime=runtime,
            total_steps=self.total_steps,
            state=self.state,
            restore=self.restore,
            evaluate=evaluate,
        )

    def _encode(
        self, pairs: Sequence[Any], settings: ModelConfig
    ) -> tuple[list[AnswerRow], list[AnswerRow], list[int]]:
        """Chosen and rejected rows of the pairs of which both fit, and which pairs those are."""
        sides = []
        for texts in ([p.chosen for p in pairs], [p.rejected for p in pairs]):
            rows, indices = encode_answers(
                self.tokenizer,
                [p.prompt for p in pairs],
                texts,
                training=self.training,
                settings=settings,
            )
            sides.append(dict(zip(indices, rows, strict=True)))
        kept = sorted(sides[0].keys() & sides[1].keys())
        if not kept:
            raise DataError(
                f"none of the {len(pairs)} pairs fits training.max_prompt_tokens = "
                f"{self.training.max_prompt_tokens} with both answers; raise it"
            )
        return [sides[0][i] for i in kept], [sides[1][i] for i in kept], kept

    def state(self) -> dict[str, Any]:
        """Weights and optimiser; which pairs come next follows from the step.

        Reference sums are in it too: after a resume the policy is no longer the reference.
        """
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
                what="the preference loss",
                step=step + 1,
                remedy="lower training.learning_rate or use --set training.mixed_precision=no",
            )
            norm = self.runtime.step(self.optimizer, self.trainable, training.max_grad_norm)
            step += 1
            go_on = self.keeper.after_step(
                step,
                {**metrics, "gradient_norm": norm, "learning_rate": rate},
                epoch=step * self.batch_size / len(self.chosen),
                tokens=sum(len(self.chosen[i]) + len(self.rejected[i]) for i in chosen),
                shown={
                    "loss": f"{metrics['loss']:.3f}",
                    "margin": f"{metrics['rewards_margin']:.3f}",
                    "lr": f"{rate:.1e}",
                },
            )
        return self.keeper.finish(step, stopped_early=not go_on)

    def accumulate(self, indices: Sequence[int]) -> dict[str, float]:
        """Gradients of one optimiser batch of pairs; each process takes its share."""
        runtime, training, sums = self.runtime, self.training, MetricSums()
        mine = runtime.shared_rows(indices)
        denominator = float(self.weights[list(indices)].sum())
        chosen_tokens = float(sum(len(self.chosen[i].answer_ids) for i in indices))
        lengths = [max(len(c), len(r)) for c, r in zip(self.chosen, self.rejected, strict=True)]
        # Both answers of a pair share a micro-batch, so each takes half of the token budget.
        groups = micro_batches(mine, lengths, max_tokens=training.tokens_per_micro_batch // 2)
        for group, weight in runtime.in_step(groups):
            rows = [self.chosen[i] for i in group] + [self.rejected[i] for i in group]
            sequences = sequences_of(rows, pad_id=pad_id_of(self.tokenizer)).to(runtime.device)
            with runtime.autocast():
                out = self.policy(sequences)
            count = len(group)
            summed = out.log_probs.sum(1)
            reference = {
                f"reference_{name}": values[group].to(runtime.device)
                for name, values in self.reference.items()
            }
            loss, metrics = preference_loss(
                kind=training.dpo_loss_type,  # type: ignore[arg-type]
                policy_chosen=summed[:count],
                policy_rejected=summed[count:],
                chosen_lengths=sequences.response_lengths[:count],
                rejected_lengths=sequences.response_lengths[count:],
                beta=training.dpo_beta,
                label_smoothing=training.dpo_label_smoothing,
                simpo_gamma=training.dpo_simpo_gamma,
                weights=self.weights[group].to(runtime.device),
                denominator=denominator,
                **reference,
            )
            sums.add({"preference_loss": loss, **metrics}, scale=weight)
            if training.dpo_sft_coef > 0:
                extra, _ = sft_loss(
                    log_probs=out.log_probs[:count],
                    mask=sequences.response_mask[:count],
                    denominator=chosen_tokens,
                )
                loss = loss + training.dpo_sft_coef * extra
                sums.add({"sft_loss": extra}, scale=weight)
            runtime.backward(weight * loss)
            sums.add({"loss": loss}, scale=weight)
        return sums.result(runtime)

    def save_model(self, folder: Any) -> Path:
        """Write the policy as a Hugging Face directory; LoRA adapters are merged. Returns it."""
        from modern_rlhf.trainer.export import save_policy

        return save_policy(self.lm, self.tokenizer, folder, self.runtime)
