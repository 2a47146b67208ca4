"""FSDP2: weights, gradients and optimiser state cut over the processes, as `accelerate` is told to.

`accelerate launch` with `fsdp_version: 2`, or with one of DeepSpeed's ZeRO stages, turns it on (see
examples/accelerate/); without it nothing here acts. DeepSpeed itself takes no part: docs/processes.md says
why. States are kept whole in checkpoints and cut again on loading, so they fit any number of processes.
A model is cut as a whole module whose `forward` does everything (`models.forward.Policy`), since gathering
happens at its door.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn

from modern_rlhf.errors import ConfigError

LOGGER = logging.getLogger(__name__)


RESHARD = ("FSDP_RESHARD_AFTER_FORWARD", "true")
"""What says whether weights are cut again between a forward and its backward pass, and its default."""


def _asked(name: str, default: str) -> bool:
    return os.environ.get(name, default).lower() in ("true", "1")


def zero_as_fsdp(environment: MutableMapping[str, str]) -> None:
    """Say in FSDP 2's words what a launch asks of DeepSpeed, before `accelerate` reads it.

    ZeRO cuts optimiser state (stage 1), gradients (2) and weights (3). FSDP 2 cuts all three between
    steps; at stages 1 and 2 its weights stay whole from a forward pass to the end of its backward pass,
    so no stage takes more memory than it would there.

    Args:
        environment: of this process, as `accelerate launch` made it; changed.

    Raises:
        ConfigError: a DeepSpeed file, whose optimiser and batches would be its own, or offloading that
            FSDP 2 does not have.
    """

    def asked(name: str, default: str) -> str:
        return environment.get(f"ACCELERATE_DEEPSPEED_{name}", default).lower()

    if environment.get("ACCELERATE_USE_DEEPSPEED", "false").lower() != "true":
        return
    stage = asked("ZERO_STAGE", "2")
    places = {asked("OFFLOAD_OPTIMIZER_DEVICE", "none"), asked("OFFLOAD_PARAM_DEVICE", "none")}
    file = asked("CONFIG_FILE", "none")
    if stage not in ("0", "1", "2", "3") or places - {"none", "cpu"} or file not in ("none", ""):
        raise ConfigError(
            f"accelerate was launched with DeepSpeed (zero_stage: {stage}, offloading to "
            f"{' and '.join(sorted(places))}, deepspeed_config_file: {file}); the trainers take "
            "zero_stage 0 to 3, offloading to none or cpu, and no file, since optimiser, schedule and "
            "batches are their own (examples/accelerate/)"
        )
    del environment["ACCELERATE_USE_DEEPSPEED"]
    if stage == "0":
        return
    LOGGER.warning("ZeRO stage %s was asked for: torch's FSDP 2 does it, not DeepSpeed", stage)
    environment.update(
        ACCELERATE_USE_FSDP="true",
        FSDP_VERSION="2",
        FSDP_RESHARD_AFTER_FORWARD=str(stage == "3").lower(),
        FSDP_OFFLOAD_PARAMS=str("cpu" in places).lower(),
        FSDP_AUTO_WRAP_POLICY="TRANSFORMER_BASED_WRAP",
        FSDP_CPU_RAM_EFFICIENT_LOADING="false",
        FSDP_STATE_DICT_TYPE="FULL_STATE_DICT",
    )


def is_sharded(accelerator: Accelerator, dtype: str) -> bool:
    """Whether this launch cuts weights.

    `accelerate` itself knows FSDP on accelerators only; on CPU processes its settings are read here.

    Raises:
        ConfigError: a way of cutting that the trainers do not know.
    """
    kind = accelerator.distributed_type
    wanted = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if kind in (DistributedType.NO, DistributedType.MULTI_GPU) or (
        kind == DistributedType.MULTI_CPU and not wanted
    ):
        return False
    version = os.environ.get("FSDP_VERSION", "1")
    if kind not in (DistributedType.FSDP, DistributedType.MULTI_CPU) or version != "2":
        found = f"FSDP {version}" if wanted else str(kind)
        raise ConfigError(
            f"accelerate was launched with {found}; the trainers know plain data-parallel processes, "
            "FSDP 2 and ZeRO: set fsdp_version: 2 in the accelerate configuration (examples/accelerate/)"
        )
    if dtype == "fp16":
        raise ConfigError(
            "FSDP needs training.mixed_precision=bf16 or no: fp16 has no scaler there"
        )
    return True


def shard(accelerator: Accelerator, module: nn.Module) -> nn.Module:
    """`module` with its parameters cut over the processes, in place: a unit a layer, one for the rest."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard

    offload = _asked("FSDP_OFFLOAD_PARAMS", "false")
    options: dict[str, Any] = {
        "mesh": init_device_mesh(accelerator.device.type, (accelerator.num_processes,)),
        "reshard_after_forward": _asked(*RESHARD),
        "offload_policy": CPUOffloadPolicy() if offload else OffloadPolicy(),
    }
    layers = {
        name for part in module.modules() for name in getattr(part, "_no_split_modules", None) or ()
    }
    for part in list(module.modules()):
        if type(part).__name__ in layers:
            fully_shard(part, **options)
    fully_shard(module, **options)
    for part in module.modules():
        if isinstance(part, FSDPModule):
            # Gradients are added up, as plain processes do it: losses have the whole batch's denominator.
            part.set_gradient_divide_factor(1.0)
            part.set_force_sum_reduction_for_comms(True)
    return module


@contextlib.contextmanager
def gathered(module: nn.Module) -> Iterator[None]:
    """The weights of a cut module are whole inside, whichever of its parts is called, and how often."""
    from torch.distributed.fsdp import FSDPModule

    units = [part for part in module.modules() if isinstance(part, FSDPModule)]
    # The root has to know its units before one of them is called without it.
    units[0]._get_fsdp_state()._lazy_init()
    for unit in units:
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()
    try:
        yield
    finally:
        for unit in units:
            unit.set_reshard_after_forward(_asked(*RESHARD), recurse=False)
            unit.reshard()


def whole(value: Any) -> Any:
    """`value` with every cut tensor in it gathered; containers are copied, other values kept."""
    from torch.distributed.tensor import DTensor

    if isinstance(value, DTensor):
        return value.full_tensor().cpu()  # one at a time: the whole never lies on the device
    if isinstance(value, Mapping):
        return type(value)((key, whole(item)) for key, item in value.items())  # type: ignore[call-arg]
    if isinstance(value, list | tuple):
        return type(value)(whole(item) for item in value)
    return value


def cut_like(holder: nn.Module | torch.optim.Optimizer, state: Mapping[str, Any]) -> dict[str, Any]:
    """A whole state of `holder`, cut as its parameters are."""
    if isinstance(holder, nn.Module):
        own = holder.state_dict()
        return {name: _cut(value, own.get(name)) for name, value in state.items()}
    parameters = [p for group in holder.param_groups for p in group["params"]]
    numbers = [n for group in state["param_groups"] for n in group["params"]]
    place = dict(zip(numbers, parameters, strict=True))
    moments = {
        number: {name: _cut(value, place[number]) for name, value in entries.items()}
        for number, entries in state["state"].items()
    }
    return {**state, "state": moments}


def _cut(value: Any, like: Any) -> Any:
    from torch.distributed.tensor import DTensor, distribute_tensor

    if isinstance(like, DTensor) and isinstance(value, Tensor) and value.shape == like.shape:
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
    return value
