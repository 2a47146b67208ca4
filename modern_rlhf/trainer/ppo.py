"""PPO for language models: the `ppo` row of the table, with its value network.

Paper: Schulman et al. 1707.06347 with GAE 1506.02438; details as in "The N Implementation Details of
RLHF with PPO" and 2403.17031 (D1-D39). The loop is `trainer.online`; this file chooses the models:
a frozen reference, and a value network that is separate or a head on the policy's trunk (D25),
starting at V = 0 or from the reward model (D4).
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from modern_rlhf.config.sections import ModelConfig
from modern_rlhf.config.training import TrainingConfig
from modern_rlhf.errors import ConfigError
from modern_rlhf.models.forward import Policy, ValueModel, trunk_of
from modern_rlhf.models.heads import linear_value_head
from modern_rlhf.reward_model.model import CustomRewardModel
from modern_rlhf.rewards.base import Reward
from modern_rlhf.rollout.types import GenerationEngine
from modern_rlhf.trainer.assemble import assemble
from modern_rlhf.trainer.loop import TrainResult
from modern_rlhf.trainer.online import OnlineLoop
from modern_rlhf.trainer.runtime import Evaluate, Runtime


def make_value_parts(
    lm: Any, training: TrainingConfig, *, reward_value: ValueModel | None = None
) -> tuple[nn.Module | None, ValueModel | None]:
    """(head on the policy's trunk, None) or (None, network of its own), as configured (D4, D25).

    Args:
        reward_value: trunk and scalar head of the reward model, for `ppo_value_init = "reward"`;
            V at the last token is then the reward model's score.

    Raises:
        ConfigError: a combination that cannot be built.
    """
    hidden = int(lm.config.hidden_size)
    generator = torch.Generator().manual_seed(training.seed)
    init = training.ppo_value_init
    if training.ppo_value_model == "shared":
        if init == "reward":
            raise ConfigError(
                "training.ppo_value_init = 'reward' needs a network of its own: "
                "set training.ppo_value_model=separate"
            )
        return linear_value_head(
            hidden, init="zero" if init == "zero" else "random", generator=generator
        ), None
    if init == "reward":
        if reward_value is None:
            raise ConfigError(
                "training.ppo_value_init = 'reward' needs a trained reward model whose backbone is "
                "a decoder with the policy's tokenizer; use 'zero' otherwise"
            )
        return None, reward_value
    trunk = copy.deepcopy(trunk_of(lm))
    head = linear_value_head(
        hidden, init="zero" if init == "zero" else "random", generator=generator
    )
    return None, ValueModel(trunk.requires_grad_(True), head)


class RewardModelValue(nn.Module):
    """The heads of a reward model as a value head: (N, H) hidden states -> (N, 1) calibrated scores."""

    def __init__(self, heads: nn.Module) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.heads(states.float()).scores
        return scores[:, None]


def value_of_reward_model(model: CustomRewardModel, tokenizer: Any) -> ValueModel:
    """A value network that starts as a copy of the reward model (D4): V(text) is the model's score.

    Raises:
        ConfigError: the reward model does not read the policy's tokens from left to right, or not the
            last one of them.
    """
    problem = None
    if model.backbone_kind != "decoder" or model.settings.pooling != "last":
        problem = f"it is a {model.backbone_kind} with {model.settings.pooling!r} pooling"
    elif model.heads.layers == 2:
        problem = "its human head reads the second-last layer"
    elif model.heads.text_features:
        problem = "it compares whole texts (custom_reward_text_features)"
    elif model.tokenizer.get_vocab() != tokenizer.get_vocab():
        problem = "its tokenizer is not the policy's"
    if problem is not None:
        raise ConfigError(
            "training.ppo_value_init = 'reward' needs a reward model that reads the policy's tokens and "
            f"scores the last one: {problem}; use 'zero'"
        )
    trunk, heads = copy.deepcopy(model.backbone), copy.deepcopy(model.heads).eval()
    return ValueModel(trunk.requires_grad_(True), RewardModelValue(heads.requires_grad_(True)))


class PPOTrainer:
    """Trains a policy with PPO against any reward.

    Args:
        model, tokenizer: a name, or a loaded causal LM with its tokenizer; trained in place.
        prompts: strings, dicts, `Prompt`s, `Task`s or a `datasets.Dataset`.
        reward: a `Reward`, or a function `(prompts, responses, **columns) -> list[float]`.
        config: the training section; its `algorithm` is set to `ppo`.
        reference: another reference than a frozen copy of the policy as given.
        reward_value: the reward model that the value network starts from (`ppo_value_init`: reward).
        engine: another sampler than the built-in one.
        sft_data: demonstrations for the mixed-in SFT loss (`ppo_sft_coef`).

    Raises:
        ConfigError, DataError, ModelError: unusable arguments, before anything is trained.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        prompts: Any,
        reward: Callable[..., Any] | Reward,
        config: TrainingConfig | None = None,
        runtime: Runtime | None = None,
        model_config: ModelConfig | None = None,
        reference: Any = None,
        reward_value: CustomRewardModel | None = None,
        engine: GenerationEngine | None = None,
        sft_data: Any = (),
        evaluate: Evaluate | None = None,
    ) -> None:
        training = dataclasses.replace(config or TrainingConfig(), algorithm="ppo", use_dpo=False)
        self.runtime = runtime or Runtime()

        def build(lm: Any, tokenizer: Any) -> tuple[Policy, ValueModel | None]:
            start = None
            if reward_value is not None and training.ppo_value_init == "reward":
                start = value_of_reward_model(reward_value, tokenizer)
            head, value_model = make_value_parts(lm, training, reward_value=start)
            return Policy(lm, value_head=head), value_model

        self.parts = assemble(
            model,
            tokenizer,
            prompts=prompts,
            reward=reward,
            training=training,
            runtime=self.runtime,
            model_config=model_config or ModelConfig(),
            build=build,
            reference=reference,
            engine=engine,
            sft_data=sft_data,
        )
        self.loop = OnlineLoop(
            self.parts, training=training, runtime=self.runtime, evaluate=evaluate
        )

    @property
    def policy(self) -> Any:
        """The causal LM being trained."""
        return self.parts.policy.lm

    def train(self) -> TrainResult:
        """Run to the last rollout, an early stop, or a stop request."""
        return self.loop.train()

    def save_model(self, folder: Any) -> Path:
        """Write the policy as a Hugging Face directory; LoRA adapters are merged. Returns it."""
        from modern_rlhf.trainer.export import save_policy

        return save_policy(self.policy, self.parts.tokenizer, folder, self.runtime)
