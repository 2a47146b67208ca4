"""Function-style entry points: thin views on the same machinery, for people who think in functions.

`RLHFConfig` is `ModernRLHFConfig`; `RLHFPipeline` is one `ModernRLHFPipeline` a stage; the factories
return the very classes used everywhere else. Nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modern_rlhf.config.fields import nearest
from modern_rlhf.config.io import config_from_dict, load_config
from modern_rlhf.config.sections import ModernRLHFConfig
from modern_rlhf.config.training import TrainingConfig
from modern_rlhf.data_loader.demonstrations import load_demonstrations
from modern_rlhf.data_loader.encoding import EncodedExample, encode_demonstrations
from modern_rlhf.data_loader.preferences import load_preferences
from modern_rlhf.data_loader.rows import demonstrations_from_rows, pairs_from_rows
from modern_rlhf.errors import ConfigError
from modern_rlhf.losses.preference import preference_loss
from modern_rlhf.models.forward import ValueModel
from modern_rlhf.models.heads import linear_value_head
from modern_rlhf.models.loading import load_backbone
from modern_rlhf.pipeline.pipeline import ModernRLHFPipeline
from modern_rlhf.pipeline.results import PipelineResults
from modern_rlhf.records import PreferencePair
from modern_rlhf.reward_model.model import CustomRewardModel
from modern_rlhf.trainer.dpo import DPOTrainer
from modern_rlhf.trainer.kto import KTOTrainer
from modern_rlhf.trainer.loop import EpochSampler
from modern_rlhf.trainer.policy_gradient import PolicyGradientTrainer
from modern_rlhf.trainer.ppo import PPOTrainer
from modern_rlhf.trainer.reward import RewardTrainer
from modern_rlhf.trainer.sft import SFTTrainer

RLHFConfig = ModernRLHFConfig

TRAINERS: dict[str, Callable[..., Any]] = {
    "sft": SFTTrainer,
    "reward": RewardTrainer,
    "ppo": PPOTrainer,
    "reinforce": partial(PolicyGradientTrainer, algorithm="reinforce"),
    "rloo": partial(PolicyGradientTrainer, algorithm="rloo"),
    "grpo": partial(PolicyGradientTrainer, algorithm="grpo"),
    "dpo": DPOTrainer,
    "online_dpo": partial(PolicyGradientTrainer, algorithm="dpo"),
    "kto": KTOTrainer,
}


class RLHFPipeline:
    """The main job with a method a stage; every call goes on in the same output folder.

    Args:
        config: a configuration, a mapping of sections, or the path of a JSON or YAML file.
        options: `ModernRLHFPipeline`'s.
    """

    def __init__(
        self, config: ModernRLHFConfig | Mapping[str, Any] | str | Path, **options: Any
    ) -> None:
        self.config = _config(config)
        self._options = options

    def _run(self, stage: str) -> PipelineResults:
        pipeline = ModernRLHFPipeline(self.config, stage=stage, **self._options)
        try:
            return pipeline.run_full_pipeline()
        finally:
            if pipeline.claimed:  # the folder is this object's: gone on with, never removed
                self._options |= {"resume": True, "overwrite": False}

    def run_sft(self) -> PipelineResults:
        """Fine-tune on the demonstrations."""
        return self._run("sft")

    def run_reward_training(self) -> PipelineResults:
        """Train the reward model; needs `run_sft`."""
        return self._run("reward")

    def run_ppo_training(self) -> PipelineResults:
        """Train against the reward with the configured algorithm; needs the stages before."""
        return self._run("rlhf")

    def evaluate_model(self) -> PipelineResults:
        """Evaluate every model there is and write the results."""
        return self._run("evaluate")

    def run_full_pipeline(self) -> PipelineResults:
        """All stages in order."""
        return self._run("all")


def create_rlhf_pipeline(
    config: ModernRLHFConfig | Mapping[str, Any] | str | Path, **options: Any
) -> RLHFPipeline:
    """A pipeline from a mapping of sections or the path of a JSON or YAML file.

    Raises:
        ConfigError: unknown keys, wrong types, a missing file.
    """
    return RLHFPipeline(config, **options)


def _config(config: ModernRLHFConfig | Mapping[str, Any] | str | Path) -> ModernRLHFConfig:
    if isinstance(config, ModernRLHFConfig):
        return config.validate()
    return load_config(config) if isinstance(config, str | Path) else config_from_dict(config)


def create_trainer(kind: str, *args: Any, **kwargs: Any) -> Any:
    """A trainer by name: sft, reward, ppo, reinforce, rloo, grpo, dpo, online_dpo or kto.

    Raises:
        ConfigError: unknown kind.
    """
    if kind not in TRAINERS:
        raise ConfigError(f"unknown trainer {kind!r}{nearest(kind, TRAINERS)}")
    return TRAINERS[kind](*args, **kwargs)


def create_reward_model(backbone: str, **options: Any) -> CustomRewardModel:
    """`CustomRewardModel(backbone, ...)`."""
    return CustomRewardModel(backbone, **options)


def create_value_model(name: str, *, init: str = "zero", seed: int = 0) -> ValueModel:
    """A value network on a backbone by name, its head at V = 0 (`zero`) or `random` (D4)."""
    backbone = load_backbone(name)
    head = linear_value_head(
        backbone.hidden_size, init=init, generator=torch.Generator().manual_seed(seed)
    )
    return ValueModel(backbone.model, head)


def create_preference_dataloader(
    source: str | Sequence[Any], *, batch_size: int = 8, epochs: int = 1, seed: int = 0
) -> Iterator[list[PreferencePair]]:
    """Batches of preference pairs in fresh permutations, from a path or rows in memory."""
    pairs = load_preferences(source).items if isinstance(source, str) else pairs_from_rows(source)
    sampler = EpochSampler(len(pairs), seed=seed)
    total = len(pairs) * epochs
    for start in range(0, total, batch_size):
        yield [pairs[i] for i in sampler.take(start, min(batch_size, total - start))]


def create_preference_loss(
    kind: str = "sigmoid", *, beta: float = 0.1, **options: Any
) -> Callable[..., tuple[Tensor, dict[str, Tensor]]]:
    """`losses.preference.preference_loss` with kind and strength filled in."""
    return partial(preference_loss, kind=kind, beta=beta, **options)  # type: ignore[arg-type]


class ConversationDataset(torch.utils.data.Dataset[EncodedExample]):
    """Conversations or demonstrations as encoded examples with their loss masks.

    Args:
        source: a path, or rows in memory.
        tokenizer: renders turns by its chat template where it has one.
        max_length: tokens of a whole example.
    """

    def __init__(self, source: Any, tokenizer: Any, *, max_length: int = 512) -> None:
        rows = (
            load_demonstrations(source).items
            if isinstance(source, str)
            else demonstrations_from_rows(source)
        )
        self.encoded = encode_demonstrations(tokenizer, rows, max_length=max_length)

    def __len__(self) -> int:
        return len(self.encoded.examples)

    def __getitem__(self, index: int) -> EncodedExample:
        return self.encoded.examples[index]


__all__ = [
    "ConversationDataset",
    "RLHFConfig",
    "RLHFPipeline",
    "TrainingConfig",
    "create_preference_dataloader",
    "create_preference_loss",
    "create_reward_model",
    "create_rlhf_pipeline",
    "create_trainer",
    "create_value_model",
]
