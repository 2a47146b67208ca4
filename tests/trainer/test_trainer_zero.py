"""A DeepSpeed launch in FSDP 2's words: from the shipped files, through accelerate's own reading of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from modern_rlhf.errors import ConfigError
from modern_rlhf.trainer.sharding import zero_as_fsdp


def launched(repository: Path, name: str) -> dict[str, str]:
    """What `accelerate launch --config_file NAME` puts into the environment, without launching."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_deepspeed_cmd_env

    file = repository / "examples" / "accelerate" / f"{name}.yaml"
    arguments = launch_command_parser().parse_args(["--config_file", str(file), "script.py"])
    arguments, _, _ = _validate_launch_command(arguments)
    assert arguments.use_deepspeed
    arguments.deepspeed_fields_from_accelerate_config = ""  # set by the launcher, read by DeepSpeed
    _, environment = prepare_deepspeed_cmd_env(arguments)
    return {k: v for k, v in environment.items() if k.startswith(("ACCELERATE_", "FSDP_"))}


@pytest.mark.parametrize(("name", "again"), [("zero2", "false"), ("zero3", "true")])
def test_the_shipped_files_ask_for_what_fsdp_does(repository: Path, name: str, again: str) -> None:
    environment = launched(repository, name)
    zero_as_fsdp(environment)
    assert "ACCELERATE_USE_DEEPSPEED" not in environment
    assert environment["ACCELERATE_USE_FSDP"] == "true" and environment["FSDP_VERSION"] == "2"
    assert environment["FSDP_RESHARD_AFTER_FORWARD"] == again
    assert environment["FSDP_OFFLOAD_PARAMS"] == "false"
    assert environment["FSDP_CPU_RAM_EFFICIENT_LOADING"] == "false"


def test_stages_and_offloading_by_name() -> None:
    plain = {"PATH": "x"}
    zero_as_fsdp(plain)
    assert plain == {"PATH": "x"}
    nothing = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "0"}
    zero_as_fsdp(nothing)
    assert not any("FSDP" in name for name in nothing)  # plain data-parallel processes
    away = {
        "ACCELERATE_USE_DEEPSPEED": "true",
        "ACCELERATE_DEEPSPEED_ZERO_STAGE": "1",
        "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "cpu",
    }
    zero_as_fsdp(away)
    assert away["FSDP_OFFLOAD_PARAMS"] == "true"
    assert (
        away["FSDP_RESHARD_AFTER_FORWARD"] == "false"
    )  # weights stay until the backward pass ends


@pytest.mark.parametrize(
    ("name", "value"),
    [("CONFIG_FILE", "ds.json"), ("OFFLOAD_PARAM_DEVICE", "nvme"), ("ZERO_STAGE", "4")],
)
def test_what_only_deepspeed_could_do_is_refused(name: str, value: str) -> None:
    asked = {"ACCELERATE_USE_DEEPSPEED": "true", f"ACCELERATE_DEEPSPEED_{name}": value}
    with pytest.raises(ConfigError, match=value):
        zero_as_fsdp(asked)
