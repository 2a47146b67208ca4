"""What a stage was made with, so that nothing made with other settings passes for this run's.

A stage writes the fields that decide its outcome to `<stage>/settings.json` when it first starts. A
later session in the same folder must agree with them: a stage that would be trained or kept now in all
of them, an earlier one that is only built upon in the model and its prompts. Fields that decide speed,
memory or how often something is written are free; how long a stage is may change until it is finished.
Knows configurations and files, not trainers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modern_rlhf.config.sections import ModernRLHFConfig
from modern_rlhf.config.training import OFFLINE_ALGORITHMS
from modern_rlhf.errors import ConfigError, ModelError
from modern_rlhf.pipeline.artifacts import SCHEMA, Artifacts
from modern_rlhf.records import Prompt
from modern_rlhf.utils.atomic import write_json

FILE = "settings.json"

FREE = {
    "training.save_steps",
    "training.eval_steps",
    "training.keep_checkpoints",
    "training.tokens_per_micro_batch",
    "training.mixed_precision",
    "training.gradient_checkpointing",
    "training.deterministic",
    "training.early_stopping_patience",
    "training.max_unscorable_share",
    "training.abort_kl",
    "data.output_path",
    "data.conala_local_path",
}
_LENGTHS = {"training.total_steps", "training.rlhf_epochs", "training.sft_epochs"}
_POLICY = {"model.base_model_name", "model.prompt_style", "model.system_prompt"}
_SHARED = {  # fields without a prefix of their own that SFT and the reward stage read too
    "training.seed",
    "training.batch_size",
    "training.gradient_accumulation_steps",
    "training.max_prompt_tokens",
    "training.max_response_tokens",
    "training.stop_strings",
    "training.max_grad_norm",
    "training.adam_epsilon",
    "training.adam_beta2",
    "training.weight_decay",
    "training.load_best_model_at_end",
}
_FEEDBACK = (
    "data.human_feedback",
    "data.preferences",
    "data.rater",
    "data.synth",
    "data.use_model_for_synth",
)
_OF_SFT = ("training.sft_",)
_OF_REWARD = (
    "model.reward_model_name",
    "training.reward_",
    "reward.custom_",
    "reward.reward_",
    "reward.use_",
    "reward.human_logits",
    "reward.human_feedback_weight",
    *_FEEDBACK,
)
_RLHF_TOO = {  # fields of the reward model that RLHF reads as well
    "reward.use_custom_reward",
    "reward.reward_uncertainty_penalty",
    "model.reward_model_name",
}
_OF_JUDGEMENTS = {"data.human_feedback_path", "data.preferences_path", "data.rater_weights"}
ROWS = "rows"
"""What a stage is trained on, among its settings: `data.rows_line`."""

FOLDERS = {"sft": "sft", "reward": "reward_model"}
"""Folders of the stages before RLHF, whose folder is the algorithm's name."""


def check_stage_choice(
    config: ModernRLHFConfig, stage: str, *, resume: bool, overwrite: bool
) -> None:
    """Refuse a stage that the configuration has not, and `overwrite` of what the stage builds on.

    Raises:
        ConfigError: naming the field or flag to change.
    """
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite exclude each other; give one")
    earlier = []
    if config.training.use_multi_stage:
        earlier = ["sft", *(["reward"] if config.reward.use_custom_reward else [])]
    if stage in FOLDERS and stage not in earlier:
        off = "training.use_multi_stage" if not earlier else "reward.use_custom_reward"
        raise ConfigError(
            f"--stage {stage}: there is no such stage with {off} = false; set it to true"
        )
    first = earlier[0] if earlier else "rlhf"
    if overwrite and stage not in ("all", first):
        raise ConfigError(
            f"--overwrite would remove the whole run, also what --stage {stage} builds on: leave one of "
            "them out, or give another --output-dir"
        )


def check_earlier(
    artifacts: Artifacts, config: ModernRLHFConfig, *, algorithm: str, stage: str
) -> None:
    """Look whether the stages that `stage` alone builds on have left their models.

    Raises:
        ModelError: naming the stage to run first.
    """
    if stage in ("reward", "rlhf"):
        sft_or_base(artifacts, config)
    offline = algorithm in OFFLINE_ALGORITHMS and not config.training.dpo_online
    if stage == "evaluate" or (stage == "rlhf" and not offline):
        reward_model_folder(artifacts, config)


def sft_or_base(artifacts: Artifacts, config: ModernRLHFConfig) -> str:
    """The model RLHF starts from: the SFT model where there is one, else the base model.

    Raises:
        ModelError: the configuration has an SFT stage and it has left no model.
    """
    folder = artifacts.final_model("sft")
    if (folder / "config.json").is_file():
        return str(folder)
    if config.training.use_multi_stage:
        raise ModelError(
            f"no SFT model in {folder}: run --stage sft first, or leave out SFT and the reward stage with "
            "training.use_multi_stage=false, to start from the base model"
        )
    return config.model.base_model_name


def reward_model_folder(artifacts: Artifacts, config: ModernRLHFConfig) -> Path | None:
    """Where the reward model lies, a trained or a saved one; None where there is no learned part.

    Raises:
        ModelError: it has one, and its stage has left no model.
    """
    if not config.has_learned_reward:
        return None
    if not config.trains_reward_model:
        return Path(config.reward_model_source).expanduser()
    folder = artifacts.final_model("reward_model")
    if not folder.is_dir():
        raise ModelError(
            f"no reward model in {folder}: run --stage reward first, or set "
            "reward.use_custom_reward=false"
        )
    return folder


def stage_settings(config: ModernRLHFConfig, stage: str) -> dict[str, Any]:
    """The fields that decide what `stage` (`sft`, `reward` or `rlhf`) makes, by `section.field`."""
    fields = {
        f"{section}.{name}": value
        for section, values in config.to_dict().items()
        if section in ("model", "training", "reward", "data")
        for name, value in values.items()
    }
    if stage == "sft":
        kept = {
            name
            for name in fields
            if name.startswith(("model.", "data.", *_OF_SFT)) or name in _SHARED
        }
        kept = {name for name in kept if not name.startswith(_OF_REWARD)}
    elif stage == "reward":
        kept = {name for name in fields if name.startswith(("model.", *_OF_REWARD))}
        # It is calibrated on samples of the policy.
        kept |= _SHARED | {"training.temperature"}
    else:
        kept = {name for name in fields if not name.startswith((*_OF_SFT, *_OF_REWARD))}
        kept |= _RLHF_TOO
        if config.training.rlhf_algorithm in OFFLINE_ALGORITHMS:
            kept |= _OF_JUDGEMENTS
        if not config.training.use_multi_stage:  # the reward model is a saved one
            kept |= {"reward.custom_reward_backbone", "reward.custom_reward_pretrain"}
    return {name: fields[name] for name in sorted(kept - FREE)}


def check_settings(
    artifacts: Artifacts, config: ModernRLHFConfig, *, algorithm: str, stage: str
) -> None:
    """Compare what lies in the folder with what this session (of `--stage stage`) would do.

    Raises:
        ConfigError: naming the stage, the fields that differ and the ways on.
    """
    folders = {**FOLDERS, "rlhf": algorithm}
    for name, folder in folders.items():
        check_stage(
            artifacts, folder, stage_settings(config, name), reused=stage not in ("all", name)
        )
        if name == stage:
            return


def check_stage(
    artifacts: Artifacts, folder: str, wanted: Mapping[str, Any], *, reused: bool = False
) -> None:
    """As `check_settings`, for one stage; `reused` says that it is only built upon."""
    made = made_with(artifacts, folder)
    finished = (artifacts.stage(folder) / "stage.json").is_file()
    names = made.keys() & wanted.keys()  # a newer version may know other fields
    if reused:
        names &= _POLICY
    else:
        # A finished stage keeps what it has learned, though ratings come in every day.
        names -= {ROWS} if finished else _LENGTHS
    plain = json.loads(json.dumps(dict(wanted)))
    other = sorted(name for name in names if made[name] != plain[name])
    if other:
        first = ", ".join(f"{n} = {made[n]!r} (now {plain[n]!r})" for n in other[:3])
        more = f" and {len(other) - 3} more" if len(other) > 3 else ""
        raise ConfigError(
            f"{artifacts.stage(folder)} was made with {first}{more}; give the same settings and data, "
            "another --output-dir, or --overwrite to start again"
        )


def made_with(artifacts: Artifacts, folder: str) -> dict[str, Any]:
    """The settings a stage that lies there was started with; empty where none are known."""
    path = artifacts.stage(folder) / FILE
    if not path.is_file():
        return {}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["settings"]
    return found


def remember_settings(artifacts: Artifacts, folder: str, settings: Mapping[str, Any]) -> None:
    """Write down what a stage that starts is made with."""
    write_json(artifacts.stage(folder) / FILE, {"settings": dict(settings)}, SCHEMA)


def evaluated(
    artifacts: Artifacts,
    config: ModernRLHFConfig,
    *,
    model: str,
    kl_to: str | None,
    items: Sequence[Prompt],
) -> dict[str, str]:
    """What an evaluation is of: the models (the reward model too), the items and the settings, hashed."""

    def made(name: str | None) -> list[str | None]:
        """A model's name; for one of this run its folder, with the record of how it was made."""
        path = Path(name or "")
        if name is None or not path.is_relative_to(artifacts.root):
            return [name]
        record = path.parent / "stage.json"
        return [path.parent.name, record.read_text(encoding="utf-8") if record.is_file() else None]

    learned = artifacts.final_model("reward_model")
    training, evaluation = config.training, config.evaluation
    return {
        "models": digest([made(model), made(kl_to), made(str(learned))]),
        "items": digest_of_prompts(items),
        "settings": digest(
            [
                vars(config.reward),
                vars(config.model),
                training.use_multi_stage,
                training.seed,
                training.max_prompt_tokens,
                training.max_response_tokens,
                training.stop_strings,
                evaluation.bertscore_model,
                evaluation.bootstrap_samples,
            ]
        ),
    }


def digest(values: Sequence[Any]) -> str:
    """A short hash of plain values, to tell whether they are the same ones."""
    return hashlib.sha256(json.dumps(values, default=str).encode()).hexdigest()[:16]


def digest_of_prompts(items: Sequence[Prompt]) -> str:
    """A short hash of prompts with their references and tests."""
    return digest(
        [(p.prompt, p.reference, p.task.tests if p.task is not None else None) for p in items]
    )
