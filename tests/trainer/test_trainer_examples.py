"""The scripts of examples/: short, and each trains and saves at tiny size; the accelerate files load."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = (
    "sft",
    "reward",
    "ppo",
    "reinforce",
    "rloo",
    "grpo",
    "dpo",
    "online_dpo",
    "kto",
)
RECIPES = ("reward_helpsteer2",)
"""They want data of their own; tests/reward_model runs this one."""
LAUNCHES = ("cpu", "data_parallel", "several_machines", "fsdp2", "zero2", "zero3")


def script(repository: Path, name: str) -> Any:
    path = repository / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"example_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_is_one_for_every_trainer_and_none_is_long(repository: Path) -> None:
    found = {path.stem: path for path in (repository / "examples").glob("*.py")}
    assert set(found) == {*SCRIPTS, *RECIPES}
    for path in found.values():
        assert len(path.read_text().splitlines()) <= 40, path


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_trains_and_leaves_a_model(
    repository: Path, tiny_model_folder: Path, tmp_path: Path, name: str
) -> None:
    from transformers import AutoModelForCausalLM

    folder = tmp_path / "out"
    value = script(repository, name).main(str(tiny_model_folder), str(folder), 1)
    assert math.isfinite(value)
    if name == "reward":
        assert list(folder.glob("*.safetensors"))
    else:
        assert AutoModelForCausalLM.from_pretrained(folder / "final_model").config.vocab_size == 259


@pytest.mark.parametrize("name", LAUNCHES)
def test_accelerate_takes_the_configuration(repository: Path, name: str) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    folder = repository / "examples" / "accelerate"
    assert {path.stem for path in folder.glob("*.yaml")} == set(LAUNCHES)
    config = load_config_from_file(str(folder / f"{name}.yaml"))  # refuses unknown keys
    assert config.num_processes >= 2 and config.mixed_precision == "no"
    if name == "fsdp2":
        assert config.fsdp_config["fsdp_version"] == 2
        assert config.fsdp_config["fsdp_cpu_ram_efficient_loading"] is False
