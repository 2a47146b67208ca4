"""`--dry-run`: resolve everything, estimate, take one tiny step, print the plan, write nothing.

What is found here would otherwise be found half an hour into a run: a missing column, a model that
does not load, prompts longer than the context, a memory need the machine does not have.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch

from modern_rlhf.config.sections import ModernRLHFConfig
from modern_rlhf.config.training import OFFLINE_ALGORITHMS
from modern_rlhf.models.loading import context_length, load_causal_lm, load_tokenizer
from modern_rlhf.pipeline.artifacts import Artifacts
from modern_rlhf.pipeline.checks import (
    encoded_demonstrations,
    lengths_line,
)
from modern_rlhf.pipeline.data import RunData
from modern_rlhf.pipeline.preflight import preflight
from modern_rlhf.pipeline.workspace import Workspace
from modern_rlhf.records import Demonstration, Prompt
from modern_rlhf.rewards.base import RewardBatch, RewardScores
from modern_rlhf.trainer.algorithms import ALGORITHMS
from modern_rlhf.trainer.inputs import with_lora
from modern_rlhf.trainer.policy_gradient import PolicyGradientTrainer
from modern_rlhf.trainer.ppo import PPOTrainer
from modern_rlhf.trainer.runtime import Runtime
from modern_rlhf.trainer.sft import SFTTrainer
from modern_rlhf.utils.device import DeviceChoice

BYTES_FP32 = 4
ADAM_COPIES = 4  # weights, gradients and Adam's two moments


def dry_run(
    config: ModernRLHFConfig,
    device: DeviceChoice,
    artifacts: Artifacts,
    *,
    stage: str,
    runs: Sequence[str],
    overwrite: bool,
) -> str:
    """The plan as text; arguments as for `preflight`.

    Raises:
        ModernRLHFError: whatever would have stopped the run.
    """
    checked = preflight(
        config,
        artifacts,
        stage=stage,
        runs=runs,
        algorithm=config.training.rlhf_algorithm,
        overwrite=overwrite,
    )
    config = checked.config
    training, settings = config.training, config.model
    data, encoded = checked.data, checked.prompts
    fitting = [data.prompts[i] for i in encoded.indices]
    workspace = Workspace(config, device, artifacts, data, None)
    with contextlib.closing(workspace):
        workspace.check_tasks()
    tokenizer = load_tokenizer(settings.base_model_name)
    lm = load_causal_lm(settings.base_model_name, device=device.device)
    style: Any = settings.prompt_style
    limit = context_length(lm, tokenizer)
    lines = [device.line(), *data.lines, ""]
    parameters = sum(p.numel() for p in lm.parameters())
    lines.append(
        f"policy {settings.base_model_name}: {parameters / 1e6:.1f} M parameters, context {limit} tokens, "
        f"tokenizer of {len(tokenizer)} tokens, "
        f"{'chat template' if tokenizer.chat_template and style != 'plain' else 'plain template'}"
    )
    shown: list[Demonstration] = []
    if data.demonstrations:
        examples = encoded_demonstrations(config, tokenizer, data.demonstrations)
        shown = [data.demonstrations[i] for i in examples.indices[:2]]
        size = (
            training.sft_batch_size or training.batch_size
        ) * training.gradient_accumulation_steps
        steps = math.ceil(len(examples.examples) * training.sft_epochs / size)
        lines.append(
            f"demonstrations: {lengths_line([len(e) for e in examples.examples])}; {examples.line()}"
        )
        lines.append(f"sft: {steps} steps of {size} sequences")
    lines.append(rlhf_line(config, data, len(encoded.input_ids)))
    lines.append(memory_line(config, parameters, trained_parameters(config, lm)))
    lines.append("")
    prompts = fitting[:8]
    lines += _tiny_step(config, device, shown, prompts, lm, tokenizer)
    lines.append("dry run finished; nothing was written")
    return "\n".join(lines)


def rlhf_line(config: ModernRLHFConfig, data: RunData, prompts: int) -> str:
    """How many steps the RLHF stage will take, as the trainers count them; `prompts` that fit."""
    training = config.training
    name = training.rlhf_algorithm
    if name in OFFLINE_ALGORITHMS and not training.dpo_online:
        size = training.batch_size * training.gradient_accumulation_steps
        rows = len(data.pairs) if name == "dpo" else len(data.labels)
        kind = "pairs" if name == "dpo" else "labelled answers"
        steps = math.ceil(rows * training.rlhf_epochs / size)
        steps = max(1, min(steps, training.total_steps or steps))
        return f"{name}: {steps} steps of {size} {kind}, of {rows}"
    group, size = training.samples_per_prompt, training.rollout_batch_size
    rollouts = math.ceil(prompts * training.rlhf_epochs * group / size)
    epochs = training.ppo_epochs if ALGORITHMS[name].reuses_rollout else 1
    updates = epochs * training.ppo_mini_batches + training.self_imitation_steps
    if training.total_steps is not None:
        rollouts = min(rollouts, math.ceil(training.total_steps / updates))
    return (
        f"{name}: {max(1, rollouts)} rollouts of {size} episodes ({size // group} prompts x {group}), "
        f"up to {updates} optimiser steps each"
    )


def trained_parameters(config: ModernRLHFConfig, lm: Any) -> int:
    """How many weights the policy's optimiser moves: all, or the adapters' alone."""
    if not config.model.use_lora:
        return sum(p.numel() for p in lm.parameters())
    with torch.device("meta"):  # its shape is enough
        shape = with_lora(type(lm)(lm.config), config.model, seed=0)
    return sum(p.numel() for p in shape.parameters() if p.requires_grad)


def memory_line(config: ModernRLHFConfig, parameters: int, moved: int) -> str:
    """Weights, gradients and optimiser of the policy, frozen reference, value network, sampler.

    Args:
        parameters: of the policy. moved: those the optimiser moves.
    """
    training = config.training
    gigabyte = 2**30
    full = parameters * BYTES_FP32 * ADAM_COPIES
    adapters = moved if config.model.use_lora else 0
    trained = (parameters + adapters + moved * (ADAM_COPIES - 1)) * BYTES_FP32
    reference = 0 if config.model.use_lora else parameters * BYTES_FP32
    separate = training.rlhf_algorithm == "ppo" and training.ppo_value_model == "separate"
    value = full if separate else 0
    sampler = parameters * 2
    total = (trained + reference + value + sampler) / gigabyte
    return (
        f"memory of weights and optimiser: about {total:.2f} GiB (policy {trained / gigabyte:.2f}, "
        f"reference {reference / gigabyte:.2f}, value {value / gigabyte:.2f}, sampler copy "
        f"{sampler / gigabyte:.2f}); activations come on top, {training.tokens_per_micro_batch} tokens "
        "at a time"
    )


class _LengthReward:
    """Stands in for the reward in the tiny step: nothing is executed in a dry run."""

    name = "length"

    def score(self, batch: RewardBatch) -> RewardScores:
        return RewardScores([len(text) / 100.0 for text in batch.responses])

    def close(self) -> None:
        """Nothing to free."""


def _tiny_step(
    config: ModernRLHFConfig,
    device: DeviceChoice,
    demonstrations: list[Demonstration],
    prompts: list[Prompt],
    lm: Any,
    tokenizer: Any,
) -> list[str]:
    """One SFT step and one rollout with an update, on a handful of items that fit."""
    lines = []
    tiny = dataclasses.replace(
        config.training,
        sft_epochs=1,
        batch_size=2,
        sft_batch_size=None,
        gradient_accumulation_steps=1,
        rollout_batch_size=8,
        samples_per_prompt=4,
        total_steps=1,
        rlhf_epochs=1,
        ppo_epochs=1,
        ppo_mini_batches=1,
        max_response_tokens=min(8, config.training.max_response_tokens),
    )
    runtime = Runtime(device=device.device, dtype=device.dtype)
    if demonstrations:
        done = SFTTrainer(
            lm,
            tokenizer,
            train_data=demonstrations,
            config=dataclasses.replace(
                tiny, max_response_tokens=config.training.max_response_tokens
            ),
            runtime=runtime,
            model_config=config.model,
        ).train()
        lines.append(f"one SFT step: loss {done.metrics['loss']:.3f} in {done.seconds:.2f} s")
    algorithm = tiny.rlhf_algorithm
    if algorithm in OFFLINE_ALGORITHMS and not tiny.dpo_online:
        return lines
    options: dict[str, Any] = {
        "prompts": prompts,
        "reward": _LengthReward(),
        "config": dataclasses.replace(tiny, ppo_value_init="zero"),
        "runtime": runtime,
        "model_config": config.model,
    }
    trainer: PPOTrainer | PolicyGradientTrainer
    if algorithm == "ppo":
        trainer = PPOTrainer(lm, tokenizer, **options)
    else:
        trainer = PolicyGradientTrainer(lm, tokenizer, algorithm=algorithm, **options)
    done = trainer.train()
    lines.append(
        f"one {algorithm} rollout and update: loss {done.metrics['policy_loss']:.3f}, KL "
        f"{done.metrics['kl']:.3f} in {done.seconds:.2f} s"
    )
    return lines
