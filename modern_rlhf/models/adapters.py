"""Low-rank adapters (`peft`) on any model: the one place that puts them on.

LoRA (Hu et al. 2106.09685): a layer `W x` becomes `W x + (alpha / rank) B A x` with A (rank, inputs)
drawn at random and B (outputs, rank) zero, so the model starts as it was. Only A and B train. No
dropout (D11).
"""

from __future__ import annotations

from typing import Any

import torch

from modern_rlhf.errors import ConfigError, ModelError


def add_adapters(
    model: Any, *, rank: int, alpha: int, targets: str, seed: int, task: str | None = None
) -> Any:
    """`model` wrapped in LoRA adapters; everything else in it stops taking gradients.

    Args:
        targets: the layers that get adapters, as `peft` names them (`all-linear`).
        seed: of the adapters' initial weights; the global generator is left as it was.
        task: `CAUSAL_LM` for a model with its language-model head, None for a headless one.

    Raises:
        ConfigError: `peft` is not installed, or no layer of the model answers to `targets`.
        ModelError: the model has adapters already.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ConfigError("model.use_lora needs the package peft: pip install peft") from error
    if has_adapters(model):
        raise ModelError("the model has LoRA adapters already")
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=targets, task_type=task
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            return get_peft_model(model, config)
        except ValueError as error:  # what peft raises when a name matches no layer
            reason = " ".join(str(error).split())[:200]
            raise ConfigError(
                f"model.lora_target_modules = {targets!r} fits no layer of this model ({reason}); "
                "'all-linear' fits any"
            ) from error


def has_adapters(model: Any) -> bool:
    """Whether `model` is one that `peft` wrapped.

    The model inside, whose layers have the adapters in them, is not: it has `peft_config` too, but is used
    as it is.
    """
    return hasattr(model, "peft_config") and hasattr(model, "get_base_model")
