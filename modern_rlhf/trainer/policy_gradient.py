"""REINFORCE, RLOO, GRPO and online DPO: the rows of the table without a value network.

Papers: "Back to Basics" 2402.14740 (REINFORCE with a moving-average baseline, RLOO), GRPO 2402.03300
with the normalisations of Dr.GRPO 2503.20783 and DAPO 2503.14476; online DPO 2402.04792 ranks its own
samples with the reward (`trainer.pairs`). The loop is `trainer.online`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modern_rlhf.config.sections import ModelConfig
from modern_rlhf.config.training import TrainingConfig
from modern_rlhf.errors import ConfigError
from modern_rlhf.models.forward import Policy
from modern_rlhf.rewards.base import Reward
from modern_rlhf.rollout.types import GenerationEngine
from modern_rlhf.trainer.algorithms import ALGORITHMS
from modern_rlhf.trainer.assemble import assemble
from modern_rlhf.trainer.loop import TrainResult
from modern_rlhf.trainer.online import OnlineLoop
from modern_rlhf.trainer.runtime import Evaluate, Runtime


class PolicyGradientTrainer:
    """Trains a policy with REINFORCE, RLOO, GRPO or online DPO against any reward.

    Args:
        algorithm: `reinforce`, `rloo`, `grpo` or `dpo`; default: the config's.
        model, tokenizer, prompts, reward, config, reference, engine: as for `PPOTrainer`.

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
        algorithm: str | None = None,
        config: TrainingConfig | None = None,
        runtime: Runtime | None = None,
        model_config: ModelConfig | None = None,
        reference: Any = None,
        engine: GenerationEngine | None = None,
        sft_data: Any = (),
        evaluate: Evaluate | None = None,
    ) -> None:
        config = config or TrainingConfig(algorithm="rloo", samples_per_prompt=4)
        name = algorithm or config.rlhf_algorithm
        training = dataclasses.replace(
            config, algorithm=name, use_dpo=False, dpo_online=name == "dpo"
        )
        without_value = [name for name, row in ALGORITHMS.items() if not row.needs_value]
        if training.algorithm not in without_value:
            raise ConfigError(
                f"algorithm = {training.algorithm!r} is not one of {', '.join(without_value)}; "
                "for ppo use PPOTrainer"
            )
        self.runtime = runtime or Runtime()
        self.parts = assemble(
            model,
            tokenizer,
            prompts=prompts,
            reward=reward,
            training=training,
            runtime=self.runtime,
            model_config=model_config or ModelConfig(),
            build=lambda lm, tokenizer: (Policy(lm), None),
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
