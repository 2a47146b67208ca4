"""Where a trainer runs and whom it tells: device, dtype, processes, logs, checkpoints, stop requests.

One `Runtime` is made by whoever starts a trainer (the pipeline, a notebook, a test) and handed in.
`accelerate` is the engine underneath, so the same loop runs in one process or many; with one process
it adds nothing. Weights are replicated, or cut over the processes by FSDP2 when `accelerate launch` is
given such a configuration (`trainer.sharding`). This file knows no algorithm, no loss and no data.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from torch import Tensor, nn

from modern_rlhf.checkpoint.store import CheckpointStore
from modern_rlhf.errors import ConfigError, TrainingError
from modern_rlhf.tracking import RunTracker
from modern_rlhf.trainer.processes import Processes
from modern_rlhf.trainer.sharding import cut_like, gathered, is_sharded, shard, whole, zero_as_fsdp

T = TypeVar("T")

PATIENCE = timedelta(hours=2)
"""How long processes wait for one that lives: the main one may be writing or judging. One that died is
noticed at once, by its connection or by the launcher."""


class StopSignal(Protocol):
    """Whether somebody asked the run to stop (Ctrl-C, SIGTERM)."""

    requested: bool


@dataclass
class NeverStop:
    """The stop signal of a trainer nobody can interrupt."""

    requested: bool = False


def deterministic_kernels() -> None:
    """`training.deterministic`: kernels that give the same result every time, where torch has them.

    A warning names those that do not. For the whole process, and for good; best before the first use
    of the GPU, since cuBLAS reads its setting once.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False


Evaluate = Callable[[int, float], Mapping[str, float | None]]
"""`evaluate(step, epoch)`: metrics of the current model; the key `score` ranks checkpoints."""

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass
class Runtime:
    """What a trainer needs beside model, data and hyper-parameters.

    Attributes:
        device: `cpu`, `cuda`, `cuda:N` or `mps`.
        dtype: compute dtype of forwards: `bf16`, `fp16` or `fp32`; parameters stay float32.
        tracker, store: logs and checkpoints; None keeps nothing. Only the main process writes: every
            process may be given both, the others drop the tracker and only read the store.
        stop: polled after every step.
        resume: continue from the newest good checkpoint of `store`.
        progress: show tqdm bars.
        processes: all processes of this run (made here).
        sharded: FSDP2 cuts weights, gradients and optimiser state over the processes.
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
        zero_as_fsdp(os.environ)
        self.accelerator = Accelerator(
            cpu=self.device == "cpu",
            mixed_precision="no",
            kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
        )
        self.sharded = is_sharded(self.accelerator, self.dtype)
        self.processes = Processes(
            rank=int(self.accelerator.process_index),
            count=int(self.accelerator.num_processes),
            device=self.accelerator.device,
        )
        self._cut: list[nn.Module] = []
        if not self.processes.is_main:
            self.tracker, self.progress = None, False
        enabled = self.dtype == "fp16" and self.device.startswith("cuda")
        self.scaler = torch.amp.GradScaler(enabled=enabled)

    @property
    def compute_dtype(self) -> torch.dtype:
        return DTYPES[self.dtype]

    def autocast(self) -> Any:
        """Forward passes run in the compute dtype; float32 needs no context."""
        if self.dtype == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(torch.device(self.device).type, dtype=self.compute_dtype)

    def prepare(self, module: nn.Module) -> nn.Module:
        """Move to the device; cut the weights over the processes where FSDP2 was asked for.

        The optimiser has to be made of the returned module's parameters.
        """
        module.to(self.device)
        if self.sharded:
            self._cut.append(shard(self.accelerator, module))
        return module

    @contextlib.contextmanager
    def whole_weights(self) -> Iterator[None]:
        """Inside, every process has all weights of what it prepared, and forwards need no other.

        For sampling and evaluation, where processes do not keep in step. Nothing to do without FSDP.
        """
        with contextlib.ExitStack() as stack:
            for module in self._cut:
                stack.enter_context(gathered(module))
            yield

    def shared_rows(self, rows: Sequence[int]) -> Sequence[int]:
        """This process's part of the rows of an optimiser batch; it may be empty.

        Raises:
            ConfigError: there are fewer rows than processes that have to keep in step (FSDP).
        """
        if self.sharded and len(rows) < self.processes.count:
            raise ConfigError(
                f"{len(rows)} rows an optimiser step cannot be shared by {self.processes.count} "
                "processes: raise training.batch_size (or rollout_batch_size), or start fewer"
            )
        part = self.processes.share(len(rows))
        return rows[part.start : part.stop]

    def in_step(self, groups: Sequence[T]) -> Iterator[tuple[T, float]]:
        """(micro-batch, weight of its loss): every process gets the same number of forward passes.

        Where weights are cut over the processes each pass needs all of them; a process that is done
        repeats its last micro-batch with weight 0.
        """
        yield from ((group, 1.0) for group in groups)
        if self.sharded:
            most = max(self.processes.gather(len(groups)))
            yield from ((groups[-1], 0.0) for _ in range(most - len(groups)))

    def backward(self, loss: Tensor) -> None:
        """Accumulate gradients of this process's part of a loss whose denominator is the whole batch's."""
        self.scaler.scale(loss).backward()

    def step(
        self,
        optimizer: torch.optim.Optimizer,
        parameters: Sequence[nn.Parameter],
        norm: float,
        *,
        parts: Sequence[nn.Parameter] | None = None,
    ) -> float:
        """Add up the processes' gradients, clip their global norm, step, clear; the norm (D29).

        Args:
            parts: for a replicated model, the parameters of whose gradient each process holds a part;
                the others have their whole gradient in every process. None: what `prepare` returned.

        Raises:
            TrainingError: the norm is NaN or infinite; no weight was touched.
        """
        if parts is not None:
            self.processes.sum_gradients(parts)
        elif not self.sharded:
            self.processes.sum_gradients(parameters)
        if all(parameter.grad is None for parameter in parameters):
            return 0.0  # nothing to learn from, as where online DPO finds no pair
        self.scaler.unscale_(optimizer)
        total = torch.nn.utils.clip_grad_norm_(parameters, norm if norm > 0 else float("inf"))
        found = float(whole(total))
        if not math.isfinite(found) and not self.scaler.is_enabled():
            # A finite loss may have such a gradient; fp16's scaler leaves the step out by itself.
            raise TrainingError(
                f"the norm of the gradient is {found} at this step, which was not taken; lower "
                "training.learning_rate (in SFT training.sft_learning_rate, for the reward model "
                "training.reward_learning_rate) or use --set training.mixed_precision=no"
            )
        self.scaler.step(optimizer)
        self.scaler.update()
        optimizer.zero_grad(set_to_none=True)
        return found

    def state_of(self, holder: nn.Module | torch.optim.Optimizer) -> dict[str, Any]:
        """The state of a module or an optimiser, whole in every process.

        The same whether one process made it or many: a checkpoint of two processes serves one too.
        """
        state: dict[str, Any] = holder.state_dict()
        return whole(state) if self.sharded else state

    def load(self, holder: nn.Module | torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
        """Take back what `state_of` gave."""
        if self.sharded:
            state = cut_like(holder, state)
        holder.load_state_dict(state)  # type: ignore[arg-type]
