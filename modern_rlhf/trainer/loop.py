"""What every training loop shares, as functions and small objects: no algorithm, no loss.

* `EpochSampler`: which items step s uses, as a pure function of (seed, cursor).
* `linear_schedule`: warm-up, then linear to 0 at the last step (D6), a pure function of the step.
* `make_optimizer`, `MetricSums`, `Progress`: an AdamW, means over micro-batches, a bar and the logs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modern_rlhf.config.training import TrainingConfig
from modern_rlhf.data_loader.batches import token_budget_batches
from modern_rlhf.errors import TrainingError
from modern_rlhf.trainer.runtime import Runtime


class EpochSampler:
    """An endless stream of item indices: a fresh permutation every epoch, nothing stored.

    Epoch e is `torch.randperm` seeded by (seed, e), so `take` needs only the cursor, and a resumed
    run sees what the uninterrupted one would have.
    """

    def __init__(self, size: int, *, seed: int) -> None:
        if size < 1:
            raise TrainingError("there is nothing to sample from: the data has no usable row")
        self.size = size
        self.seed = seed

    def take(self, cursor: int, count: int) -> list[int]:
        """Indices of the items number `cursor` to `cursor + count` of the stream."""
        taken: list[int] = []
        while len(taken) < count:
            epoch, offset = divmod(cursor + len(taken), self.size)
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            order = torch.randperm(self.size, generator=generator).tolist()
            taken += order[offset : offset + count - len(taken)]
        return taken


def linear_schedule(step: int, *, total: int, warmup: int) -> float:
    """Factor on the peak learning rate at 0-based `step`: up over `warmup`, then to 0 (D6).

    The last step trains with 1 / (total - warmup) of the peak; after it the rate would be 0.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return max(0.0, (total - step) / max(1, total - warmup))


def make_optimizer(
    groups: Sequence[tuple[Iterable[nn.Parameter], float]], training: TrainingConfig
) -> torch.optim.AdamW:
    """AdamW over (parameters, peak learning rate) groups, epsilon as configured (D21)."""
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.requires_grad], "lr": rate, "peak_lr": rate}
            for parameters, rate in groups
        ],
        eps=training.adam_epsilon,
        betas=(0.9, training.adam_beta2),
        weight_decay=training.weight_decay,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Scale every group's peak; returns the first group's rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
    return float(optimizer.param_groups[0]["lr"])


def micro_batches(
    rows: Sequence[int], lengths: Sequence[int], *, max_tokens: int
) -> list[list[int]]:
    """Split rows into groups of similar length whose padded size stays within a token budget.

    The loss does not depend on the split:
    denominators come from the whole optimiser batch (D34).
    """
    groups = token_budget_batches([lengths[row] for row in rows], max_tokens=max_tokens)
    return [[rows[index] for index in group] for group in groups]


def even_runs(order: list[int], parts: int) -> list[list[int]]:
    """`order` in at most `parts` runs whose sizes differ by at most one."""
    size, rest = divmod(len(order), parts)
    runs, start = [], 0
    for index in range(parts):
        end = start + size + (index < rest)
        if end > start:
            runs.append(order[start:end])
        start = end
    return runs


class MetricSums:
    """Adds up metrics that micro-batches report already divided by the global denominator."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def add(self, metrics: Mapping[str, Tensor], *, scale: float = 1.0) -> None:
        for name, value in metrics.items():
            value = value.detach().float() * scale
            self._sums[name] = self._sums[name] + value if name in self._sums else value

    def result(self, runtime: Runtime) -> dict[str, float]:
        """Sums over all micro-batches and processes; a process without rows has no names to add."""
        total: dict[str, float] = {}
        for own in runtime.processes.gather(self.own()):
            for name, value in own.items():
                total[name] = total.get(name, 0.0) + value
        return dict(sorted(total.items()))

    def own(self) -> dict[str, float]:
        """Sums over this process's micro-batches: for a loop that does the same in every process."""
        if not self._sums:
            return {}
        names = sorted(self._sums)
        stacked = torch.stack([self._sums[name].reshape(()) for name in names])
        return dict(zip(names, stacked.tolist(), strict=True))


def check_finite(value: float, *, what: str, step: int, remedy: str) -> None:
    """Stop on NaN or infinity, in one line.

    Raises:
        TrainingError: naming the quantity, the step and the remedy.
    """
    if not math.isfinite(value):
        raise TrainingError(f"{what} is {value} at step {step}; {remedy}")


@dataclass
class TrainResult:
    """What `train()` returns: steps done, the last logged metrics, and whether it stopped early.

    `model_step` is the step whose weights the trainer holds in the end: the last one, or with
    `load_best_model_at_end` the one whose evaluation was best. `tokens` are all that the stage has
    read, `seconds` are this session's; `earlier_tokens` were read before a resume.
    """

    steps: int
    metrics: dict[str, float]
    seconds: float
    tokens: int
    stopped_early: bool = False
    model_step: int | None = None
    earlier_tokens: int = 0

    @property
    def tokens_per_second(self) -> float:
        """The rate of this session: what earlier ones read is not in its seconds."""
        return (self.tokens - self.earlier_tokens) / max(self.seconds, 1e-9)
