"""The reward section: the reward model, the composite reward, and the executor behind it.

Plain values; what they mean together is checked by `check_reward`. No torch at import.
"""

from __future__ import annotations

from dataclasses import dataclass

from modern_rlhf.config.fields import check_section, option
from modern_rlhf.errors import ConfigError
from modern_rlhf.records import ASPECTS

HEAD_WEIGHT_DECAY = 3.0
"""MLP heads start as random functions, and with noisy labels what the data does not correct of that
stays in the score: AdamW's decay takes it away. In a run of a few steps it does nothing, which is right
too: there the random features are all that the heads have. A linear head has nothing the data would not
correct. Figures: docs/log.d/reward_model.md."""


@dataclass
class RewardConfig:
    """The reward model and the composite reward."""

    use_custom_reward: bool = option(True, "train heads on human feedback")
    custom_reward_backbone: str | None = option(None, "null = model.reward_model_name")
    custom_reward_heads: int = option(3, "number of heads: consistent, correct, useful", low=1)
    custom_reward_head_names: list[str] | None = option(
        None, "their names, one each; null = consistent, correct, useful"
    )
    custom_reward_head_kind: str = option(
        "mlp", "Linear-ReLU-Dropout twice and a Linear, or one Linear", choices=("mlp", "linear")
    )
    custom_reward_ensemble: int = option(1, "copies of every head; they may disagree", low=1)
    custom_reward_pooling: str | None = option(
        None, "null = last token of a decoder, cls of an encoder", choices=("last", "cls", "mean")
    )
    custom_reward_text_features: bool = option(
        False, "let the heads see likeness to the prompt and lengths beside the backbone"
    )
    custom_reward_pretrain: bool = option(
        True, "train the reward model before RLHF; false = use a saved one as it is"
    )
    custom_reward_freeze_backbone: bool = option(True, "train only the heads")
    reward_uncertainty_penalty: float = option(
        0.0, "times the ensemble's disagreement is taken off the score", low=0.0
    )
    reward_pairwise_coef: float = option(1.0, "Bradley-Terry loss of pairs", low=0.0)
    reward_pointwise_coef: float = option(1.0, "regression of heads on ratings", low=0.0)
    reward_ordinal_coef: float = option(1.0, "ordinal loss of the human head", low=0.0)
    reward_margin_coef: float = option(0.0, "times a pair's margin is asked of its gap", low=0.0)
    reward_center_coef: float = option(0.0, "pulls the scores of a pair around 0", low=0.0)
    reward_epochs: int = option(5, "passes over cached features when the backbone is frozen", low=1)
    reward_batch_size: int = option(32, "pairs a step", low=1)
    reward_weight_decay: float = option(
        HEAD_WEIGHT_DECAY, "AdamW's, of MLP heads on a frozen backbone", low=0.0
    )
    reward_max_length: int = option(512, "tokens of prompt + answer the reward model reads", low=8)
    use_human_logits: bool = option(True, "a head that predicts the five rating levels")
    human_logits_layer: str = option("last", "layer it reads", choices=("last", "second_last"))
    human_feedback_weight: float = option(0.3, "weight of its expectation in the reward", low=0.0)
    syntax_reward_weight: float = option(0.2, "composite weight", low=0.0)
    execution_reward_weight: float = option(0.3, "composite weight", low=0.0)
    semantic_reward_weight: float = option(0.3, "composite weight", low=0.0)
    human_preference_weight: float = option(0.2, "composite weight", low=0.0)
    syntax_partial_credit: bool = option(
        True, "up to 0.5 for the share of lines before the first syntax error"
    )
    execution_kind: str = option(
        "graded", "how tests become a number", choices=("all", "fraction", "graded")
    )
    semantic_kind: str = option(
        "token", "similarity to the reference", choices=("token", "codebleu", "embedding")
    )
    execution_trace_credit: bool = option(
        False, "leave tokens of lines that never ran out of the policy loss (a second, traced run)"
    )
    semantic_model_name: str | None = option(
        None, "encoder of semantic_kind=embedding; null = model.reward_model_name"
    )
    execution_timeout: float = option(2.0, "CPU seconds a program may use", low=0.05)
    execution_memory_mb: int = option(512, "address space of a program", low=64)
    execution_min_layer: int = option(0, "refuse to run below this sandbox layer", low=0, high=2)


def check_reward(reward: RewardConfig) -> RewardConfig:
    """The rules between reward fields; used by the reward trainer standing alone too.

    Raises:
        ConfigError: naming the field and the remedy.
    """
    check_section("reward", reward)
    names = reward.custom_reward_head_names
    if names is None and reward.custom_reward_heads > len(ASPECTS):
        raise ConfigError(
            f"reward.custom_reward_heads = {reward.custom_reward_heads}: only "
            f"{', '.join(ASPECTS)} have names of their own; give reward.custom_reward_head_names"
        )
    if names is not None and len(names) != reward.custom_reward_heads:
        raise ConfigError(
            f"reward.custom_reward_head_names has {len(names)} names for "
            f"reward.custom_reward_heads = {reward.custom_reward_heads}; set that to {len(names)}"
        )
    if reward.reward_uncertainty_penalty and reward.custom_reward_ensemble < 2:
        raise ConfigError(
            "reward.reward_uncertainty_penalty needs heads that can disagree: set "
            "reward.custom_reward_ensemble to at least 2"
        )
    return reward
