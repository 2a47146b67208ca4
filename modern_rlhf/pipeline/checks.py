"""What can be found before a run touches its folder: models, lengths and judgements that cannot work.

Each check raises one line that names the field; none writes, and none loads weights. Used by runs and by
`--dry-run` alike.
"""

from __future__ import annotations

import statistics
from typing import Any

from modern_rlhf.config.sections import ModernRLHFConfig
from modern_rlhf.data_loader.encoding import (
    Encoded,
    EncodedPrompts,
    encode_demonstrations,
    encode_prompts,
)
from modern_rlhf.errors import ConfigError, DataError, ModelError
from modern_rlhf.models.loading import (
    check_weights,
    context_length,
    load_model_config,
    load_tokenizer,
    vocabulary_size,
)
from modern_rlhf.pipeline.data import RunData
from modern_rlhf.pipeline.workspace import embedding_model
from modern_rlhf.records import Demonstration
from modern_rlhf.reward_model.build import is_reward_model, saved_reward_model

JUDGEMENTS = ("pairs", "ratings", "labels")


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
    taken = config.has_learned_reward and not config.trains_reward_model
    if taken or (reward and config.trains_reward_model):
        given = config.reward.custom_reward_backbone
        field = "reward.custom_reward_backbone" if given else "model.reward_model_name"
        name = config.reward_model_source
        if not config.reward.custom_reward_pretrain:
            saved_reward_model(name)
        elif not is_reward_model(name):
            names[field] = name
        if config.data.use_model_for_synth_feedback and not taken:
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
    trains = reward and config.trains_reward_model and config.reward.custom_reward_pretrain
    gone = sum(found["removed"] for name, found in data.leaks.items() if name in JUDGEMENTS)
    left_out = f" ({gone} that overlap the evaluation set were left out)" if gone else ""
    if trains and not (data.pairs or data.ratings or config.data.use_model_for_synth_feedback):
        raise DataError(
            f"the reward model has nothing to learn from: no preference pair and no rating{left_out}; "
            "set data.human_feedback_path or data.preferences_path, or reward.use_custom_reward=false"
        )
    if algorithm == "dpo" and not config.training.dpo_online and not data.pairs:
        raise DataError(
            f"dpo needs preference pairs{left_out}: set data.preferences_path or "
            "data.human_feedback_path"
        )
    if algorithm == "kto" and not data.labels:
        raise DataError(
            f"kto needs labelled answers{left_out}: set data.preferences_path or "
            "data.human_feedback_path"
        )


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
    _check_demonstrations(config, data, tokenizer)
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


def _check_demonstrations(config: ModernRLHFConfig, data: RunData, tokenizer: Any) -> None:
    """Look for one demonstration that fits; all of them are encoded only where none does.

    Raises:
        DataError: none fits, with the reasons counted.
    """
    rows = data.demonstrations
    for start in range(0, len(rows), 64):
        try:
            encoded_demonstrations(config, tokenizer, rows[start : start + 64])
        except DataError:
            continue
        return
    if rows:
        encoded_demonstrations(config, tokenizer, rows)


def encoded_demonstrations(
    config: ModernRLHFConfig, tokenizer: Any, rows: list[Demonstration]
) -> Encoded:
    """Demonstrations as SFT will read them."""
    return encode_demonstrations(
        tokenizer,
        rows,
        max_length=config.training.max_sequence_tokens,
        max_prompt_length=config.training.max_prompt_tokens,
        style=config.model.prompt_style,  # type: ignore[arg-type]
        system=config.model.system_prompt,
    )


def prompt_line(encoded: EncodedPrompts) -> str:
    """How long the prompts are, and what is skipped for its length."""
    skipped = [f"{count} {reason}" for reason, count in encoded.skipped.items()]
    line = f"prompts: {lengths_line([len(ids) for ids in encoded.input_ids])}"
    return line + (f"; skipped {', '.join(skipped)}" if skipped else "")


def lengths_line(values: list[int]) -> str:
    """How many, and how long they are."""
    if not values:
        return "none fit"
    ordered = sorted(values)
    return f"{len(values)} of {ordered[0]} to {ordered[-1]} tokens, median {statistics.median(ordered):.0f}"
