"""What users hand to a trainer, turned into what its loop moves.

A model may be a name or a loaded model, data rows, records or a `datasets.Dataset`, a reward a
function or a `Reward`. Everything after this file is typed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from modern_rlhf.config.sections import ModelConfig
from modern_rlhf.config.training import TrainingConfig
from modern_rlhf.data_loader.encoding import Encoded, encode_demonstrations
from modern_rlhf.data_loader.rows import demonstrations_from_rows
from modern_rlhf.errors import ConfigError
from modern_rlhf.models.adapters import add_adapters, has_adapters
from modern_rlhf.models.loading import disable_dropout, load_causal_lm, load_tokenizer
from modern_rlhf.rewards.base import Reward

if TYPE_CHECKING:
    from modern_rlhf.reward_model.model import CustomRewardModel

SHORT_SEQUENCE = 256
"""Tokens up to which attention by plain matrix products beats the fused kernel on a CPU."""


def resolve_model_and_tokenizer(
    model: Any, tokenizer: Any, *, device: str, longest: int
) -> tuple[Any, Any]:
    """A float32 causal LM on `device` with dropout off, and its tokenizer.

    A model given in half precision becomes float32 itself: AdamW's small steps are lost in bf16's
    rounding. Forward passes are in `training.mixed_precision` all the same.

    `longest` is the longest sequence in tokens that training will see; it decides how attention is
    computed on a CPU (figures in docs/benchmarks.md).

    Raises:
        ConfigError: a loaded model was given without a tokenizer.
        ModelError: nothing loadable under the name.
    """
    if isinstance(model, str):
        tokenizer = load_tokenizer(model) if tokenizer is None else tokenizer
        model = load_causal_lm(model, device=device)
    elif tokenizer is None:
        raise ConfigError("a loaded model needs its tokenizer beside it: pass tokenizer=...")
    else:
        model = disable_dropout(model).to(device).eval()
        if model.dtype in (torch.bfloat16, torch.float16):  # as `from_pretrained` loads most models
            model.float()
    if isinstance(tokenizer, str):
        tokenizer = load_tokenizer(tokenizer)
    fused = getattr(model.config, "_attn_implementation", None) == "sdpa"
    if fused and str(device) == "cpu" and longest <= SHORT_SEQUENCE:
        model.set_attn_implementation("eager")
    return model, tokenizer


def resolve_reward(reward: Callable[..., Any] | Reward) -> Reward:
    """A `Reward` as it is; a plain function `(prompts, responses, **columns) -> list[float]` wrapped."""
    if hasattr(reward, "score") and hasattr(reward, "name"):
        return reward
    from modern_rlhf.rewards.functions import FunctionReward

    return FunctionReward(reward)


def encode_training_rows(
    tokenizer: Any, rows: Any, training: TrainingConfig, settings: ModelConfig
) -> Encoded:
    """Demonstrations that fit the configured lengths, as ids with their loss masks.

    Raises:
        DataError: none fits, or the rows are no demonstrations.
    """
    return encode_demonstrations(
        tokenizer,
        demonstrations_from_rows(rows),
        max_length=training.max_sequence_tokens,
        max_prompt_length=training.max_prompt_tokens,
        style=settings.prompt_style,  # type: ignore[arg-type]
        system=settings.system_prompt,
    )


def recompute_activations(lm: Any, training: TrainingConfig) -> None:
    """`training.gradient_checkpointing`: activations are computed again in the backward pass.

    Call it after adapters are on. Layers do it in train mode only; dropout is off all the same (D11).
    """
    if training.gradient_checkpointing:
        lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        lm.train()


def adapters_off(lm: Any) -> Any:
    """A context in which a model with LoRA adapters is the one it was given; others are as they are."""
    return lm.disable_adapter() if hasattr(lm, "disable_adapter") else contextlib.nullcontext()


def with_lora(model: Any, settings: ModelConfig, *, seed: int) -> Any:
    """Wrap a model in LoRA adapters through `peft`; only they train (`models.adapters`).

    Raises:
        ConfigError: `peft` is not installed, or no layer fits.
    """
    return add_adapters(
        model,
        rank=settings.lora_r,
        alpha=settings.lora_alpha,
        targets=settings.lora_target_modules,
        seed=seed,
        task="CAUSAL_LM",
    )


def adapt_backbone(model: CustomRewardModel, settings: ModelConfig, *, seed: int) -> None:
    """Put LoRA adapters on a reward model's backbone where asked for.

    A model that came with adapters keeps its own.

    Raises:
        ConfigError: the backbone is frozen, so adapters have nothing to stand in for.
    """
    if not settings.use_lora or has_adapters(model.backbone):
        return
    if model.settings.freeze_backbone:
        raise ConfigError(
            "model.use_lora trains adapters in place of the backbone's weights, and this reward model's "
            "backbone is frozen: set reward.custom_reward_freeze_backbone=false (freeze_backbone=False)"
        )
    model.add_lora(
        rank=settings.lora_r,
        alpha=settings.lora_alpha,
        targets=settings.lora_target_modules,
        seed=seed,
    )
