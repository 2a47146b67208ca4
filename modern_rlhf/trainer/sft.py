"""Supervised fine-tuning: maximum likelihood of the answers, prompts masked.

Loss: -log p(answer tokens, EOS included | prompt), averaged over the tokens of the whole optimiser
batch whatever the micro-batching (D34). The rest is the shared loop: AdamW, warm-up and linear decay.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modern_rlhf.config.sections import ModelConfig
from modern_rlhf.config.training import TrainingConfig, check_training
from modern_rlhf.data_loader.encoding import EncodedExample, pad_id_of
from modern_rlhf.losses.sft import sft_loss
from modern_rlhf.models.forward import Policy, make_sequences
from modern_rlhf.trainer.inputs import (
    encode_training_rows,
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
from modern_rlhf.trainer.runtime import Evaluate, Runtime


class SFTTrainer:
    """Fine-tunes a causal LM on demonstrations.

    Args:
        model: a name or a loaded causal LM; trained in place.
        tokenizer: needed beside a loaded model.
        train_data: demonstrations, dicts with prompt/response columns, or a `datasets.Dataset`.
        config: the training section; `sft_*` fields, lengths, precision.
        runtime: device, logs, checkpoints; default: this process on the CPU, nothing kept.
        model_config: prompt style and LoRA.
        evaluate: called every `eval_steps`; its `score` ranks checkpoints and stops early.

    Raises:
        DataError: nothing left to train on. ConfigError, ModelError: unusable arguments.
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
        self.training = training = check_training(config or TrainingConfig())
        self.runtime = runtime or Runtime()
        settings = model_config or ModelConfig()
        self.lm, self.tokenizer = resolve_model_and_tokenizer(
            model, tokenizer, device=self.runtime.device, longest=training.max_sequence_tokens
        )
        if settings.use_lora:
            self.lm = with_lora(self.lm, settings, seed=training.seed)
        recompute_activations(self.lm, training)
        self.encoded = encode_training_rows(self.tokenizer, train_data, training, settings)
        self.batch_size = (
            training.sft_batch_size or training.batch_size
        ) * training.gradient_accumulation_steps
        size = len(self.encoded.examples)
        self.total_steps = max(1, math.ceil(size * training.sft_epochs / self.batch_size))
        self.sampler = EpochSampler(size, seed=training.seed)
        self.policy = self.runtime.prepare(Policy(self.lm))
        self.optimizer = make_optimizer(
            [(self.policy.parameters(), training.sft_learning_rate)], training
        )
        self.trainable = [p for g in self.optimizer.param_groups for p in g["params"]]
        self.keeper = Keeper(
            stage="sft",
            training=training,
            runtime=self.runtime,
            total_steps=self.total_steps,
            state=self.state,
            restore=self.restore,
            evaluate=evaluate,
        )

    def state(self) -> dict[str, Any]:
        """Weights and optimiser; which rows come next follows from the step."""
        return {
            "model": self.runtime.state_of(self.policy),
            "optimizer": self.runtime.state_of(self.optimizer),
            "trainer": {"scaler": self.runtime.scaler.state_dict()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.runtime.load(self.policy, state["model"])
        self.runtime.load(self.optimizer, state["optimizer"])
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
                linear_schedule(step, total=self.total_steps, warmup=training.sft_warmup_steps),
            )
            # 1. The rows of this step: a pure function of the step and the seed.
            chosen = self.sampler.take(step * self.batch_size, self.batch_size)
            examples = [self.encoded.examples[i] for i in chosen]
            # 2. Gradients, micro-batch by micro-batch, under one denominator.
            metrics = self.accumulate(examples)
            check_finite(
                metrics["loss"],
                what="the SFT loss",
                step=step + 1,
                remedy="lower training.sft_learning_rate or use --set training.mixed_precision=no",
            )
            # 3. One optimiser step.
            norm = self.runtime.step(self.optimizer, self.trainable, training.max_grad_norm)
            step += 1
            go_on = self.keeper.after_step(
                step,
                {**metrics, "gradient_norm": norm, "learning_rate": rate},
                epoch=step * self.batch_size / len(self.encoded.examples),
                tokens=sum(map(len, examples)),
                shown={"loss": f"{metrics['loss']:.3f}", "lr": f"{rate:.1e}"},
            )
        return self.keeper.finish(step, stopped_early=not go_on)

    def accumulate(self, examples: Sequence[EncodedExample]) -> dict[str, float]:
        """Gradients of one optimiser batch; each process takes its share of the rows."""
        runtime, sums = self.runtime, MetricSums()
        mine = runtime.shared_rows(range(len(examples)))
        total = float(sum(sum(example.loss_mask) for example in examples))
        groups = micro_batches(
            mine, [len(e) for e in examples], max_tokens=self.training.tokens_per_micro_batch
        )
        for group, weight in runtime.in_step(groups):
            rows = [examples[i] for i in group]
            sequences, mask = training_rows(rows, pad_id=pad_id_of(self.tokenizer))
            sequences, mask = sequences.to(runtime.device), mask.to(runtime.device)
            with runtime.autocast():
                out = self.policy(sequences)
            loss, metrics = sft_loss(log_probs=out.log_probs, mask=mask, denominator=total)
            runtime.backward(weight * loss)
            sums.add({"loss": loss, **metrics}, scale=weight)
        return sums.result(runtime)

    def save_model(self, folder: Any) -> Path:
        """Write the policy as a Hugging Face directory; LoRA adapters are merged. Returns it."""
        from modern_rlhf.trainer.export import save_policy

        return save_policy(self.lm, self.tokenizer, folder, self.runtime)


def training_rows(examples: Sequence[EncodedExample], *, pad_id: int) -> tuple[Any, Tensor]:
    """Examples as right-padded sequences and the (B, R) mask of trained tokens.

    The "response" starts at the first trained token; later untrained turns inside it are masked out.
    """
    starts = [example.prompt_length for example in examples]
    sequences = make_sequences(
        [example.input_ids[:s] for example, s in zip(examples, starts, strict=True)],
        [example.input_ids[s:] for example, s in zip(examples, starts, strict=True)],
        pad_id=pad_id,
    )
    mask = torch.zeros(sequences.response_mask.shape, dtype=torch.bool)
    for row, (example, start) in enumerate(zip(examples, starts, strict=True)):
        trained = torch.tensor(example.loss_mask[start:], dtype=torch.bool)
        mask[row, : len(trained)] = trained
    return sequences, mask
