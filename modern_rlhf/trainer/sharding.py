"""FSDP2: weights, gradients and optimiser state cut over the processes, as `accelerate` is told to.

`accelerate launch` with `fsdp_version: 2` (see examples/accelerate/) turns it on; without it nothing here
acts. States are kept whole in checkpoints and cut again on loading, so they fit any number of processes.
A model is cut as a whole module whose `forward` does everything (`models.forward.Policy`), since gathering
happens at its door.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn

from modern_rlhf.errors import ConfigError


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
            f"accelerate was launched with {found}; the trainers know plain data-parallel processes "
            "and FSDP 2: set fsdp_version: 2 in the accelerate configuration (examples/accelerate/)"
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

    def asked(name: str, default: str) -> bool:
        return os.environ.get(name, default).lower() in ("true", "1")

    offload = asked("FSDP_OFFLOAD_PARAMS", "false")
    options: dict[str, Any] = {
        "mesh": init_device_mesh(accelerator.device.type, (accelerator.num_processes,)),
        "reshard_after_forward": asked("FSDP_RESHARD_AFTER_FORWARD", "true"),
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
            unit.set_reshard_after_forward(True, recurse=False)
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
