"""Where a trainer runs and whom it tells: device, dtype, processes, logs, checkpoints, stop requests.

One `Runtime` is made by whoever starts a trainer (the pipeline, a notebook, a test) and handed in.
`accelerate` is the engine underneath, so the same loop runs in one process or many; with one process
it adds nothing. This file knows no algorithm, no loss and no data.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from modern_rlhf.checkpoint.store import CheckpointStore
from modern_rlhf.errors import ConfigError
from modern_rlhf.tracking import RunTracker


class StopSignal(Protocol):
    """Whether somebody asked the run to stop (Ctrl-C, SIGTERM)."""

    requested: bool


@dataclass
class NeverStop:
    """The stop signal of a trainer nobody can interrupt."""

    requested: bool = False


Evaluate = Callable[[int, float], Mapping[str, float | None]]
"""`evaluate(step, epoch)`: metrics of the current model; the key `score` ranks checkpoints."""

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass
class Runtime:
    """What a trainer needs beside model, data and hyper-parameters.

    Attributes:
        device: `cpu`, `cuda`, `cuda:N` or `mps`.
        dtype: compute dtype of forwards: `bf16`, `fp16` or `fp32`; parameters stay float32.
        tracker, store: logs and checkpoints; None keeps nothing.
        stop: polled after every step.
        resume: continue from the newest good checkpoint of `store`.
        progress: show tqdm bars.
    """

    device: str = "cpu"
    dtype: str = "fp32"
    tracker: RunTracker | None = None
    store: CheckpointStore | None = None
    stop: StopSignal = field(default_factory=NeverStop)
    resume: bool = False
    progress: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ConfigError(f"dtype {self.dtype!r} is not one of {', '.join(DTYPES)}")
        self.accelerator = Accelerator(cpu=self.device == "cpu", mixed_precision="no")
        enabled = self.dtype == "fp16" and self.device.startswith("cuda")
        self.scaler = torch.amp.GradScaler(enabled=enabled)

    @property
    def compute_dtype(self) -> torch.dtype:
        return DTYPES[self.dtype]

    @property
    def is_main(self) -> bool:
        return bool(self.accelerator.is_main_process)

    @property
    def world_size(self) -> int:
        return int(self.accelerator.num_processes)

    @property
    def rank(self) -> int:
        return int(self.accelerator.process_index)

    def autocast(self) -> Any:
        """Forward passes run in the compute dtype; float32 needs no context."""
        if self.dtype == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(torch.device(self.device).type, dtype=self.compute_dtype)

    def prepare(self, module: nn.Module) -> nn.Module:
        """Move to the device and wrap for several processes where there are several."""
        module.to(self.device)
        if self.world_size == 1:
            return module
        prepared: nn.Module = self.accelerator.prepare_model(module)
        return prepared

    def backward(self, loss: Tensor) -> None:
        """Accumulate gradients of a loss whose denominator is the global batch.

        Data-parallel wrappers average over processes, so the sum over them is restored here.
        """
        self.accelerator.backward(self.scaler.scale(loss * self.world_size))

    def step(
        self, optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], norm: float
    ) -> float:
        """Clip the global gradient norm, take one optimiser step, clear gradients; the norm (D29)."""
        self.scaler.unscale_(optimizer)
        total = torch.nn.utils.clip_grad_norm_(parameters, norm if norm > 0 else float("inf"))
        self.scaler.step(optimizer)
        self.scaler.update()
        optimizer.zero_grad(set_to_none=True)
        return float(total)

    def sum_over_processes(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        if self.world_size == 1:
            return value
        summed: Tensor = self.accelerator.reduce(value.to(self.device), reduction="sum")
        return summed

    def unwrap(self, module: nn.Module) -> nn.Module:
        inner: nn.Module = self.accelerator.unwrap_model(module)
        return inner
