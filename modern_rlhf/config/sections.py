"""The configuration: six sections of plain values, and nothing that acts on them.

The two large sections have modules of their own, `training` and `reward`, with the rules between their fields.

Names and defaults marked frozen in DESIGN stay; a new field joins the section it belongs to. Trainers
get the section they need; nothing writes into a config after `validate()`. No torch at import.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass, field
from typing import Any

from modern_rlhf.config.fields import check_filled, check_section, option
from modern_rlhf.config.reward import RewardConfig, check_reward
from modern_rlhf.config.training import TrainingConfig, check_training
from modern_rlhf.errors import ConfigError


@dataclass
class ModelConfig:
    """Which models, and how prompts are put to them."""

    base_model_name: str = option(
        "microsoft/CodeGPT-small-py", "policy: hub id, folder or builtin:"
    )
    reward_model_name: str = option(
        "microsoft/codebert-base", "reward backbone, same kinds of name"
    )
    prompt_style: str = option(
        "auto", "how prompts are rendered", choices=("auto", "chat", "plain")
    )
    system_prompt: str | None = option(None, "system turn put before every chat prompt")
    use_lora: bool = option(False, "train LoRA adapters instead of all weights")
    lora_r: int = option(16, "LoRA rank", low=1)
    lora_alpha: int = option(32, "LoRA scale", low=1)
    lora_target_modules: str = option("all-linear", "modules that get adapters, as peft names them")


@dataclass
class DataConfig:
    """Where data comes from. Paths may be files, folders, hub ids, `builtin:` names or `synthetic`."""

    train_data_path: str = option("./datasets_for_training", "demonstrations for SFT")
    prompts_path: str | None = option(None, "prompts or tasks for RLHF; null = train_data_path")
    eval_data_path: str | None = option(
        "./datasets_for_eval", "evaluation tasks or demonstrations; null = held out of training"
    )
    preferences_path: str | None = option(None, "preference pairs for the reward model or DPO")
    human_feedback_path: str | None = option("./evaluation_results_server", "human ratings")
    rater_weights: dict[str, float] = option(
        {}, "weight of a rater's judgements by name; others count 1, 0 leaves out"
    )
    output_path: str = option("./modern_outputs", "where the run writes")
    conala_local_path: str = option("./conala-corpus", "CoNaLa folder")
    use_model_for_synth_feedback: bool = option(False, "let a model rate answers")
    synth_feedback_model_name: str = option("gpt2", "the model that rates")
    synth_feedback_samples: int = option(
        256, "answers of the SFT policy it rates, and rated answers it is checked on", low=2
    )
    synth_feedback_weight: float = option(1.0, "weight of its ratings beside people's", low=0.0)
    skip_demonstrated_prompts: bool = option(
        False, "leave prompts out of RLHF that SFT has seen the answer of"
    )
    max_train_samples: int | None = option(None, "cap on demonstrations", low=1)
    max_prompts: int | None = option(None, "cap on RLHF prompts", low=1)
    min_prob: float | None = option(
        None, "CoNaLa-mined rows below this are skipped", low=0.0, high=1.0
    )
    validation_fraction: float = option(
        0.1, "share of training prompts held out for in-training evaluation", low=0.0, high=0.9
    )
    evaluation_fraction: float = option(
        0.1, "share of groups held out when eval_data_path is null", low=0.01, high=0.9
    )
    remove_overlap: bool = option(True, "drop training rows that overlap the evaluation set")
    overlap_threshold: float = option(
        0.9, "5-gram containment of a near-duplicate", low=0.0, high=1.0
    )


@dataclass
class EvaluationConfig:
    """What is measured, on how much, against which targets."""

    target_bertscore: float = option(0.7, "target", low=0.0, high=1.0)
    target_codebleu: float = option(0.6, "target", low=0.0, high=1.0)
    target_bleu: float = option(0.4, "target", low=0.0, high=1.0)
    target_rouge: float = option(0.5, "target", low=0.0, high=1.0)
    target_ruby: float = option(0.3, "target", low=0.0, high=1.0)
    eval_samples: int | None = option(None, "evaluation items at most; null = all", low=1)
    periodic_eval_samples: int = option(100, "items of an in-training evaluation", low=1)
    bertscore_model: str | None = option(None, "encoder of BERTScore; null = reward_model_name")
    bootstrap_samples: int = option(1000, "resamples of the 95% intervals", low=100)


@dataclass
class HardwareConfig:
    """Where the run happens."""

    device: str = option("cuda", "auto, cpu, cuda, cuda:N or mps")
    require_cuda: bool = option(True, "stop at once without a CUDA GPU")
    threads: int | None = option(None, "CPU threads; null = torch's choice", low=1)
    sandbox_workers: int | None = option(None, "processes that execute code; null = cores", low=1)


@dataclass
class ModernRLHFConfig:
    """The whole configuration. `validate()` checks every field and what must hold between them.

    `tags` are words of the user's own, kept with the run; `trackers` are trackers that `accelerate`
    knows (tensorboard, trackio, wandb), which get every logged number beside the run's own files.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    data: DataConfig = field(default_factory=DataConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    tags: list[str] = field(default_factory=list)
    trackers: list[str] = field(default_factory=list)

    def validate(self) -> ModernRLHFConfig:
        """Check everything that can be known before any file is opened; returns self.

        Raises:
            ConfigError: naming the field, its value, what was expected and the remedy.
        """
        for name in SECTIONS:
            check_section(name, getattr(self, name))
        for name in LISTS:
            value = getattr(self, name)
            if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                raise ConfigError(f"{name} = {value!r} has the wrong type: expected list of str")
        check_training(self.training)
        check_reward(self.reward)
        parts = ["syntax_reward_weight", "execution_reward_weight", "semantic_reward_weight"]
        if self.has_learned_reward:
            parts.append("human_preference_weight")
        if not any(getattr(self.reward, name) > 0 for name in parts):
            raise ConfigError(
                f"{', '.join('reward.' + name for name in parts)} are all 0, so there is nothing to learn "
                "from; give one a positive value"
                + ("" if self.has_learned_reward else f" ({self.why_no_learned_reward})")
            )
        for rater, weight in self.data.rater_weights.items():
            if not 0 <= weight < math.inf:
                raise ConfigError(f"data.rater_weights.{rater} = {weight!r}: expected 0 or more")
        check_filled("model", self.model, besides=("system_prompt",))
        check_filled("data", self.data)
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", device := self.hardware.device):
            raise ConfigError(f"hardware.device = {device!r} is not auto, cpu, cuda, cuda:N or mps")
        return self

    @property
    def trains_reward_model(self) -> bool:
        """Whether the run has a reward stage, which makes or takes a reward model."""
        return self.training.use_multi_stage and self.reward.use_custom_reward

    @property
    def has_learned_reward(self) -> bool:
        """Whether RLHF's reward has a learned part: of the reward stage, or of a saved model."""
        return self.reward.use_custom_reward and (
            self.training.use_multi_stage or not self.reward.custom_reward_pretrain
        )

    @property
    def reward_model_source(self) -> str:
        """The backbone that the reward model is made on, or the saved one that is taken."""
        return self.reward.custom_reward_backbone or self.model.reward_model_name

    @property
    def why_no_learned_reward(self) -> str:
        """The field that leaves the learned part out, for a person to read."""
        if not self.reward.use_custom_reward:
            return "reward.use_custom_reward=false, so human_preference_weight counts for nothing"
        return (
            "training.use_multi_stage=false trains no reward model, so human_preference_weight counts "
            "for nothing; a saved one is taken with reward.custom_reward_pretrain=false"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dictionaries, as JSON and YAML take them."""
        return dataclasses.asdict(self)


STAGES = ("all", "sft", "reward", "rlhf", "evaluate")
"""What `--stage` takes: the whole run, or one stage of it."""

LISTS = ("tags", "trackers")
"""Fields of the configuration that are lists of words, outside of any section."""

SECTIONS: dict[str, type] = {
    "model": ModelConfig,
    "training": TrainingConfig,
    "reward": RewardConfig,
    "data": DataConfig,
    "evaluation": EvaluationConfig,
    "hardware": HardwareConfig,
}
