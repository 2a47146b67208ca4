"""`--dry-run`: resolve everything, estimate, take one tiny step, print the plan, write nothing.

What is found here would otherwise be found half an hour into a run: a missing column, a model that
does not load, prompts longer than the context, a memory need the machine does not have.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from typing import Any

from modern_rlhf.config.sections import OFFLINE_ALGORITHMS, ModernRLHFConfig
from modern_rlhf.data_loader.encoding import EncodedPrompts, encode_demonstrations, encode_prompts
from modern_rlhf.data_loader.preferences import load_labelled
from modern_rlhf.errors import ConfigError, DataError, ModelError
from modern_rlhf.models.loading import (
    check_weights,
    context_length,
    load_causal_lm,
    load_model_config,
    load_tokenizer,
    vocabulary_size,
)
from modern_rlhf.pipeline.data import RunData
from modern_rlhf.pipeline.workspace import embedding_model
from modern_rlhf.records import LabelledAnswer
from modern_rlhf.reward_model.build import is_reward_model, saved_reward_model
from modern_rlhf.rewards.base import RewardBatch, RewardScores
from modern_rlhf.trainer.policy_gradient import PolicyGradientTrainer
from modern_rlhf.trainer.ppo import PPOTrainer
from modern_rlhf.trainer.runtime import Runtime
from modern_rlhf.trainer.sft import SFTTrainer
from modern_rlhf.utils.device import DeviceChoice

BYTES_FP32 = 4
ADAM_COPIES = 4  # weights, gradients and Adam's two moments


def check_models(config: ModernRLHFConfig, *, reward: bool = True) -> None:
    """Every model the run will need, as far as can be seen without loading weights.

    Configuration and tokenizer are loaded, the weight files of local folders are opened: a name that is
    wrong, a hub that does not answer or a file that is cut is found here, not after the first stage.

    Args:
        reward: whether the reward model is still to be made.

    Raises:
        ModelError: naming the model, the field it comes from and the ways on.
    """
    names = {"model.base_model_name": config.model.base_model_name}
    if reward and config.reward.use_custom_reward and config.training.use_multi_stage:
        given = config.reward.custom_reward_backbone
        field = "reward.custom_reward_backbone" if given else "model.reward_model_name"
        name = given or config.model.reward_model_name
        if not config.reward.custom_reward_pretrain:
            saved_reward_model(name)
        elif not is_reward_model(name):
            names[field] = name
        if config.data.use_model_for_synth_feedback:
            names["data.synth_feedback_model_name"] = config.data.synth_feedback_model_name
    if config.reward.semantic_kind == "embedding":
        names["reward.semantic_model_name"] = embedding_model(config)
    for field, name in names.items():
        try:
            check_weights(name)
            load_model_config(name)
            load_tokenizer(name)
        except ModelError as error:
            raise ModelError(f"{field}: {error}") from error


def check_judgements(
    config: ModernRLHFConfig, data: RunData, *, reward: bool, algorithm: str | None
) -> None:
    """Look whether there is feedback for the stages that learn from it.

    Args:
        reward: whether the reward model is still to be made.
        algorithm: that of the RLHF stage, or None where it will not be run.

    Raises:
        DataError: there is none, or none of the kind; the message names the fields to set.
    """
    multi, section = config.training.use_multi_stage, config.reward
    trains = reward and multi and section.use_custom_reward and section.custom_reward_pretrain
    if trains and not (data.pairs or data.ratings or config.data.use_model_for_synth_feedback):
        raise DataError(
            "the reward model has nothing to learn from: no preference pair and no rating; set "
            "data.human_feedback_path or data.preferences_path, or reward.use_custom_reward=false"
        )
    if algorithm == "dpo" and not config.training.dpo_online and not data.pairs:
        raise DataError(
            "dpo needs preference pairs: set data.preferences_path or data.human_feedback_path"
        )
    if algorithm == "kto":
        labelled_answers(config)


def labelled_answers(config: ModernRLHFConfig) -> list[LabelledAnswer]:
    """What KTO learns from.

    Raises:
        DataError: no path is set, or nothing usable is there.
    """
    path = config.data.preferences_path or config.data.human_feedback_path
    if path is None:
        raise DataError(
            "kto needs labelled answers: set data.preferences_path or data.human_feedback_path"
        )
    return load_labelled(path).items


def check_lengths(config: ModernRLHFConfig, data: RunData) -> EncodedPrompts:
    """The prompts as the policy will read them, after checking that lengths and context agree.

    Raises:
        ModelError: no tokenizer under the model's name. ConfigError: prompt and response together
            exceed the model's context. DataError: no prompt fits.
    """
    training, settings = config.training, config.model
    name = settings.base_model_name
    tokenizer = load_tokenizer(name)
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"the tokenizer of {name!r} has no end token, so a model cannot learn to stop; name one as "
            "eos_token in its tokenizer_config.json"
        )
    model_config = load_model_config(name)
    limit = context_length(model_config, tokenizer)
    wanted = training.max_sequence_tokens
    if wanted > limit:
        raise ConfigError(
            f"training.max_prompt_tokens + training.max_response_tokens = {wanted} exceeds the "
            f"context of {name}, {limit} tokens; lower one of them"
        )
    encoded = encode_prompts(
        tokenizer,
        [p.prompt for p in data.prompts],
        max_length=training.max_prompt_tokens,
        style=settings.prompt_style,  # type: ignore[arg-type]
        system=settings.system_prompt,
    )
    if data.prompts and not encoded.input_ids:
        raise DataError(
            f"none of the {len(data.prompts)} prompts fits training.max_prompt_tokens = "
            f"{training.max_prompt_tokens}; raise it"
        )
    rows = vocabulary_size(model_config)
    used = [
        tokenizer.eos_token_id,
        tokenizer.pad_token_id,
        *map(max, filter(None, encoded.input_ids)),
    ]
    if max(used) >= rows:
        raise ModelError(
            f"the tokenizer of {name!r} gives id {max(used)} and the model has {rows} embeddings: they "
            "do not belong together; give the tokenizer the model was trained with"
        )
    return encoded


def prompt_line(encoded: EncodedPrompts) -> str:
    """How long the prompts are, and what is skipped for its length."""
    skipped = [f"{count} {reason}" for reason, count in encoded.skipped.items()]
    line = f"prompts: {_lengths([len(ids) for ids in encoded.input_ids])}"
    return line + (f"; skipped {', '.join(skipped)}" if skipped else "")


def dry_run(config: ModernRLHFConfig, device: DeviceChoice, data: RunData) -> str:
    """The plan as text.

    Raises:
        ModernRLHFError: whatever would have stopped the run.
    """
    training, settings = config.training, config.model
    check_models(config)
    algorithm = "dpo" if training.use_dpo else training.algorithm
    check_judgements(config, data, reward=True, algorithm=algorithm)
    encoded = check_lengths(config, data)
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
    lines.append(prompt_line(encoded))
    if data.demonstrations:
        examples = encode_demonstrations(
            tokenizer,
            data.demonstrations,
            max_length=training.max_sequence_tokens,
            max_prompt_length=training.max_prompt_tokens,
            style=style,
            system=settings.system_prompt,
        )
        size = (
            training.sft_batch_size or training.batch_size
        ) * training.gradient_accumulation_steps
        steps = math.ceil(len(examples.examples) * training.sft_epochs / size)
        lines.append(
            f"demonstrations: {_lengths([len(e) for e in examples.examples])}; {examples.line()}"
        )
        lines.append(f"sft: {steps} steps of {size} sequences")
    lines.append(_rlhf_line(config, len(encoded.input_ids)))
    lines.append(_memory_line(config, parameters))
    lines.append("")
    lines += _tiny_step(config, device, data, lm, tokenizer)
    lines.append("dry run finished; nothing was written")
    return "\n".join(lines)


def _lengths(values: list[int]) -> str:
    if not values:
        return "none fit"
    ordered = sorted(values)
    return f"{len(values)} of {ordered[0]} to {ordered[-1]} tokens, median {statistics.median(ordered):.0f}"


def _rlhf_line(config: ModernRLHFConfig, prompts: int) -> str:
    training = config.training
    if (training.algorithm in OFFLINE_ALGORITHMS or training.use_dpo) and not training.dpo_online:
        return f"{training.algorithm}: offline, batches of {training.batch_size} pairs"
    per_rollout = training.rollout_batch_size // training.samples_per_prompt
    rollouts = math.ceil(prompts * training.rlhf_epochs / per_rollout)
    updates = training.ppo_mini_batches * (
        training.ppo_epochs if training.algorithm in ("ppo", "grpo") else 1
    )
    if training.total_steps is not None:
        rollouts = min(rollouts, math.ceil(training.total_steps / updates))
    return (
        f"{training.algorithm}: {rollouts} rollouts of {training.rollout_batch_size} episodes "
        f"({per_rollout} prompts x {training.samples_per_prompt}), {updates} optimiser steps each"
    )


def _memory_line(config: ModernRLHFConfig, parameters: int) -> str:
    """Weights, gradients and optimiser of the policy, frozen reference, value network, sampler."""
    training = config.training
    gigabyte = 2**30
    trained = parameters * BYTES_FP32 * ADAM_COPIES
    reference = 0 if config.model.use_lora else parameters * BYTES_FP32
    separate = training.algorithm == "ppo" and training.ppo_value_model == "separate"
    value = trained if separate else 0
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
    config: ModernRLHFConfig, device: DeviceChoice, data: RunData, lm: Any, tokenizer: Any
) -> list[str]:
    """One SFT step and one rollout with an update, on a handful of items."""
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
    if data.demonstrations:
        rows = data.demonstrations[:2]
        done = SFTTrainer(
            lm,
            tokenizer,
            train_data=rows,
            config=dataclasses.replace(
                tiny, max_response_tokens=config.training.max_response_tokens
            ),
            runtime=runtime,
            model_config=config.model,
        ).train()
        lines.append(f"one SFT step: loss {done.metrics['loss']:.3f} in {done.seconds:.2f} s")
    if (tiny.algorithm in OFFLINE_ALGORITHMS or tiny.use_dpo) and not tiny.dpo_online:
        return lines
    options: dict[str, Any] = {
        "prompts": data.prompts[:8],
        "reward": _LengthReward(),
        "config": dataclasses.replace(tiny, ppo_value_init="zero"),
        "runtime": runtime,
        "model_config": config.model,
    }
    trainer: PPOTrainer | PolicyGradientTrainer
    if tiny.algorithm == "ppo":
        trainer = PPOTrainer(lm, tokenizer, **options)
    else:
        trainer = PolicyGradientTrainer(lm, tokenizer, algorithm=tiny.algorithm, **options)
    done = trainer.train()
    lines.append(
        f"one {tiny.algorithm} rollout and update: loss {done.metrics['policy_loss']:.3f}, KL "
        f"{done.metrics['kl']:.3f} in {done.seconds:.2f} s"
    )
    return lines
