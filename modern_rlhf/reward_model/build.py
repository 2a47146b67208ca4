"""A reward model and its losses from the `reward` section of a configuration.

The name of a backbone gives new heads on it; the folder of a reward model saved earlier gives that
model, to be trained on or (`custom_reward_pretrain=false`) used as it is.
"""

from __future__ import annotations

from pathlib import Path

import torch

from modern_rlhf.config.reward import RewardConfig, check_reward
from modern_rlhf.errors import ModelError
from modern_rlhf.models.loading import load_backbone
from modern_rlhf.records import ASPECTS
from modern_rlhf.reward_model.encoding import length_limit
from modern_rlhf.reward_model.fit import RewardLossSettings
from modern_rlhf.reward_model.model import CustomRewardModel
from modern_rlhf.reward_model.persistence import MANIFEST


def build_reward_model(
    name: str,
    config: RewardConfig,
    *,
    human_logits: bool,
    device: str | torch.device = "cpu",
    generator: torch.Generator | None = None,
) -> CustomRewardModel:
    """The reward model that `config` describes.

    Args:
        name: a backbone (hub id, folder, `builtin:`), or the folder of a saved reward model, whose own
            settings then count.
        human_logits: whether there are ratings that a human head could be trained on.
        generator: source of new heads' initial weights.

    Raises:
        ConfigError: fields that contradict each other. ModelError: nothing loadable under this name.
    """
    check_reward(config)
    if is_reward_model(name):
        return CustomRewardModel.from_pretrained(Path(name).expanduser(), device=device)
    backbone = load_backbone(name, device=device)
    limit = length_limit(backbone.model.config, backbone.tokenizer)
    wanted = config.reward_max_length
    return CustomRewardModel(
        backbone,
        head_names(config),
        freeze_backbone=config.custom_reward_freeze_backbone,
        head_kind=config.custom_reward_head_kind,  # type: ignore[arg-type]
        human_logits=config.use_human_logits and human_logits,
        human_logits_layer=config.human_logits_layer,  # type: ignore[arg-type]
        human_feedback_weight=config.human_feedback_weight,
        ensemble=config.custom_reward_ensemble,
        pooling=config.custom_reward_pooling,  # type: ignore[arg-type]
        max_length=wanted if limit is None else min(wanted, limit),
        text_features=config.custom_reward_text_features,
        generator=generator,
    )


def head_names(config: RewardConfig) -> tuple[str, ...]:
    """The names given, or the first of consistent, correct, useful."""
    names = config.custom_reward_head_names
    return ASPECTS[: config.custom_reward_heads] if names is None else tuple(names)


def loss_settings(config: RewardConfig) -> RewardLossSettings:
    """The weights of the three losses; `fit.loss_plan` switches off what the data can't feed."""
    return RewardLossSettings(
        pairwise=config.reward_pairwise_coef,
        pointwise=config.reward_pointwise_coef,
        ordinal=config.reward_ordinal_coef,
        margin_coefficient=config.reward_margin_coef,
        center_coefficient=config.reward_center_coef,
    )


def is_reward_model(name: str) -> bool:
    """Whether `name` is the folder of a saved reward model."""
    return (Path(name).expanduser() / MANIFEST).is_file()


def saved_reward_model(name: str) -> str:
    """`name`, checked to be a saved reward model.

    Raises:
        ModelError: it is none, and `custom_reward_pretrain=false` asks for one.
    """
    if not is_reward_model(name):
        raise ModelError(
            f"reward.custom_reward_pretrain=false uses a reward model as it is, and {name!r} is the "
            f"folder of none (it has no {MANIFEST}): name one in reward.custom_reward_backbone, or "
            "set reward.custom_reward_pretrain=true"
        )
    return name
