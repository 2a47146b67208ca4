"""Putting an online trainer's parts together: models, reference, prompts, reward, sampler."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from modern_rlhf.config.sections import ModelConfig
from modern_rlhf.config.training import TrainingConfig, check_training
from modern_rlhf.data_loader.encoding import EncodedExample, encode_prompts
from modern_rlhf.data_loader.rows import prompts_from_rows
from modern_rlhf.errors import ConfigError, DataError
from modern_rlhf.models.forward import Policy, ValueModel
from modern_rlhf.rewards.base import Reward
from modern_rlhf.rollout.sampling import sampling_engine
from modern_rlhf.rollout.types import GenerationEngine
from modern_rlhf.trainer.inputs import (
    encode_training_rows,
    recompute_activations,
    resolve_model_and_tokenizer,
    resolve_reward,
    with_lora,
)
from modern_rlhf.trainer.runtime import Runtime
from modern_rlhf.trainer.update import OnlineParts


def assemble(
    model: Any,
    tokenizer: Any,
    *,
    prompts: Any,
    reward: Callable[..., Any] | Reward,
    training: TrainingConfig,
    runtime: Runtime,
    model_config: ModelConfig,
    build: Callable[[Any, Any], tuple[Policy, ValueModel | None]],
    reference: Any = None,
    engine: GenerationEngine | None = None,
    sft_data: Any = (),
) -> OnlineParts:
    """Everything an `OnlineLoop` moves, built from what a user hands over.

    `build` makes policy and value network of the loaded LM and its tokenizer. The reference is a
    frozen copy of the policy as given, the model passed as `reference`, or, under LoRA, the policy
    without adapters.

    Raises:
        DataError: no prompt fits `max_prompt_tokens`. ConfigError, ModelError: unusable arguments.
    """
    check_training(training)
    lm, tokenizer = resolve_model_and_tokenizer(
        model, tokenizer, device=runtime.device, longest=training.max_sequence_tokens
    )
    records = prompts_from_rows(prompts)
    style, system = model_config.prompt_style, model_config.system_prompt
    encoded = encode_prompts(
        tokenizer,
        [record.prompt for record in records],
        max_length=training.max_prompt_tokens,
        style=style,  # type: ignore[arg-type]
        system=system,
    )
    if not encoded.input_ids:
        raise DataError(
            f"none of the {len(records)} prompts fits training.max_prompt_tokens = "
            f"{training.max_prompt_tokens}; raise it"
        )
    sft_rows: list[EncodedExample] = []
    if training.ppo_sft_coef > 0:
        if not len(sft_data):
            raise ConfigError(
                f"training.ppo_sft_coef = {training.ppo_sft_coef!r} mixes in the loss of demonstrations, "
                "and there are none: pass sft_data (a pipeline reads them with "
                "training.use_multi_stage=true), or set it to 0"
            )
        sft_rows = encode_training_rows(tokenizer, sft_data, training, model_config).examples
    frozen: Policy | None = None
    if reference is not None:
        reference_lm, _ = resolve_model_and_tokenizer(
            reference, tokenizer, device=runtime.device, longest=training.max_sequence_tokens
        )
        frozen = Policy(reference_lm)
    elif not model_config.use_lora:
        frozen = Policy(copy.deepcopy(lm))
    if model_config.use_lora:
        lm = with_lora(lm, model_config, seed=training.seed)
    recompute_activations(lm, training)
    policy, value_model = build(lm, tokenizer)
    sampler = engine or sampling_engine(
        lm.to(runtime.device),
        tokenizer,
        dtype=runtime.compute_dtype,
        stop_strings=training.stop_strings,
    )
    return OnlineParts(
        policy=policy,
        reference=frozen,
        value_model=value_model,
        tokenizer=tokenizer,
        prompts=[records[i] for i in encoded.indices],
        prompt_ids=encoded.input_ids,
        reward=resolve_reward(reward),
        engine=sampler,
        sft_rows=sft_rows,
    )
