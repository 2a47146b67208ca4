"""Flags become one configuration: preset, then file, then flags, then --set; one line on a mistake."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from modern_rlhf.cli.parser import FLAG_FIELDS, build_config, train_parser
from modern_rlhf.config.presets import get_preset
from modern_rlhf.config.sections import ModernRLHFConfig
from modern_rlhf.errors import ConfigError


def config(*arguments: str) -> ModernRLHFConfig:
    return build_config(train_parser("modern-rlhf").parse_args(arguments))


def test_the_default_preset_is_fast() -> None:
    assert config() == get_preset("fast")


@pytest.mark.parametrize("flag", ["--mode", "--config"])
def test_both_names_of_the_preset(flag: str) -> None:
    assert config(flag, "cpu-test") == get_preset("cpu-test")


FLAGS = {
    "--epochs": ("2", "training", "rlhf_epochs", 2),
    "--steps": ("7", "training", "total_steps", 7),
    "--learning-rate": ("3e-4", "training", "learning_rate", 3e-4),
    "--batch-size": ("4", "training", "batch_size", 4),
    "--device": ("cpu", "hardware", "device", "cpu"),
    "--model-name": ("gpt2", "model", "base_model_name", "gpt2"),
    "--reward-model-name": ("minilm", "model", "reward_model_name", "minilm"),
    "--algorithm": ("kto", "training", "algorithm", "kto"),
    "--seed": ("5", "training", "seed", 5),
    "--target-bertscore": (".8", "evaluation", "target_bertscore", 0.8),
    "--target-codebleu": (".8", "evaluation", "target_codebleu", 0.8),
    "--target-bleu": (".8", "evaluation", "target_bleu", 0.8),
    "--target-rouge": (".8", "evaluation", "target_rouge", 0.8),
    "--target-ruby": (".8", "evaluation", "target_ruby", 0.8),
    "--output-dir": ("/tmp/out put", "data", "output_path", "/tmp/out put"),
}


def test_the_table_has_every_flag() -> None:
    assert {flag[2:].replace("-", "_") for flag in FLAGS} == set(FLAG_FIELDS)


@pytest.mark.parametrize("flag", FLAGS)
def test_a_flag_sets_its_field_and_nothing_else(flag: str) -> None:
    value, section, field, expected = FLAGS[flag]
    changed = config(flag, value)
    plain = get_preset("fast").to_dict()
    plain[section][field] = expected
    if flag == "--device":
        plain["hardware"]["require_cuda"] = False
    assert changed.to_dict() == plain


def test_deterministic_is_a_switch() -> None:
    assert config("--deterministic").training.deterministic
    assert not config().training.deterministic


def test_later_sources_win(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("training: {seed: 1, batch_size: 3, total_steps: 9}\n")
    found = config(
        "--set",
        "training.seed=4",
        "--config-file",
        str(path),
        "--batch-size",
        "5",
        "--mode",
        "cpu-test",
        "--seed",
        "2",
    ).training
    # seed: file 1, flag 2, --set 4; batch size: file 3, flag 5; steps: preset 180, file 9.
    assert (found.seed, found.batch_size, found.total_steps) == (4, 5, 9)
    assert found.sft_epochs == get_preset("cpu-test").training.sft_epochs


def test_flags_and_set_are_validated_together() -> None:
    """Either half alone would be refused: rloo wants several samples, 63 is no multiple of 4."""
    found = config(
        "--algorithm",
        "rloo",
        "--set",
        "training.samples_per_prompt=3",
        "--set",
        "training.rollout_batch_size=63",
    )
    assert found.training.samples_per_prompt == 3


def test_an_algorithm_by_flag_replaces_use_dpo() -> None:
    assert config("--algorithm", "dpo").training.use_dpo is True
    chosen = config("--set", "training.use_dpo=true").training
    assert chosen.use_dpo is True
    assert config("--algorithm", "ppo").training.use_dpo is False


WRONG = {
    "unknown preset": (["--config", "cputest"], "did you mean 'cpu-test'"),
    "a file as preset": (["--config", "my.yaml"], "use --config-file my.yaml"),
    "unknown flag": (["--epoch", "3"], "did you mean '--epochs'"),
    "no abbreviation": (["--targ", "3"], "unrecognized arguments: --targ"),
    "unknown stage": (["--stage", "rl"], "did you mean 'rlhf'"),
    "unknown algorithm": (["--algorithm", "gppo"], "did you mean 'ppo'"),
    "no number": (["--seed", "x"], "argument --seed: invalid int value: 'x'"),
    "no value": (["--seed"], "argument --seed: expected one argument"),
    "out of range": (["--batch-size", "0"], "training.batch_size = 0 is out of range"),
    "two ways on": (["--resume", "--overwrite"], "not allowed with argument"),
    "missing file": (["--config-file", "none.yaml"], "none.yaml does not exist"),
    "wrong key": (["--set", "training.lr=3"], "unknown key training.lr"),
    "wrong type": (["--set", "training.seed=many"], "expected int"),
    "no assignment": (["--set", "training.seed"], "expected section.field=value"),
    "unknown device": (["--device", "tpu"], "not auto, cpu, cuda, cuda:N or mps"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_one_line_with_a_remedy(case: str) -> None:
    arguments, message = WRONG[case]
    with pytest.raises(ConfigError) as caught:
        config(*arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_every_flag_of_the_design_is_in_the_help() -> None:
    text = train_parser("modern-rlhf").format_help()
    others = ["--mode", "--config", "--stage", "--config-file", "--set", "--resume", "--overwrite"]
    for flag in [*FLAGS, *others, "--dry-run"]:
        assert re.search(rf"{flag}\b", text), flag
