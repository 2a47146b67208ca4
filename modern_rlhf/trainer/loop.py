"""What every training loop shares, as functions and small objects: no algorithm, no loss.

* `EpochSampler`: which items step s uses, as a pure function of (seed, cursor).
* `linear_schedule`: warm-up, then linear to 0 at the last step (D6), a pure function of the step.
* `make_optimizer`, `MetricSums`, `Progress`: an AdamW, means over micro-batches, a bar and the logs.
* `Keeper`: checkpoints, resume, early stopping and the answer to a stop request.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from modern_rlhf.checkpoint.state import random_state, restore_random_state
from modern_rlhf.config.sections import TrainingConfig
from modern_rlhf.data_loader.batches import token_budget_batches
from modern_rlhf.errors import StopRequested, TrainingError
from modern_rlhf.trainer.runtime import Evaluate, Runtime


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


class MetricSums:
    """Adds up metrics that micro-batches report already divided by the global denominator."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def add(self, metrics: Mapping[str, Tensor], *, scale: float = 1.0) -> None:
        for name, value in metrics.items():
            value = value.detach().float() * scale
            self._sums[name] = self._sums[name] + value if name in self._sums else value

    def result(self, runtime: Runtime) -> dict[str, float]:
        """Sums over all micro-batches and processes."""
        if not self._sums:
            return {}
        names = sorted(self._sums)
        stacked = torch.stack([self._sums[name].reshape(()) for name in names])
        return dict(zip(names, runtime.sum_over_processes(stacked).tolist(), strict=True))


def check_finite(value: float, *, what: str, step: int, remedy: str) -> None:
    """Stop on NaN or infinity, in one line.

    Raises:
        TrainingError: naming the quantity, the step and the remedy.
    """
    if not math.isfinite(value):
        raise TrainingError(f"{what} is {value} at step {step}; {remedy}")


@dataclass
class TrainResult:
    """What `train()` returns: steps done, the last logged metrics, and whether it stopped early."""

    steps: int
    metrics: dict[str, float]
    seconds: float
    tokens: int
    stopped_early: bool = False


@dataclass
class Keeper:
    """Checkpoints, resume, periodic evaluation, early stopping, stop requests: one for each loop.

    `state` returns everything the loop must survive with, `restore` takes it back; the loop calls
    `begin` once and `after_step` after every step.
    """

    stage: str
    training: TrainingConfig
    runtime: Runtime
    total_steps: int
    state: Callable[[], dict[str, Any]]
    restore: Callable[[Mapping[str, Any]], None]
    evaluate: Evaluate | None = None
    best: float | None = None
    bad_evaluations: int = 0
    tokens: int = 0
    last_metrics: dict[str, float] = field(default_factory=dict)
    _bar: Any = None
    _began: float = 0.0
    _step_began: float = 0.0
    _saved_step: int = -1
    _score: float | None = None

    def begin(self) -> int:
        """Restore the newest checkpoint when resuming; the step to continue from."""
        step = 0
        runtime = self.runtime
        if runtime.resume and runtime.store is not None:
            loaded = runtime.store.load_latest({"model": self.state()["model"]})
            if loaded is not None:
                self.restore(loaded.state)
                keeper = loaded.state["keeper"]
                self.best, self.bad_evaluations = keeper["best"], keeper["bad_evaluations"]
                self.tokens = keeper["tokens"]
                if runtime.tracker is not None:
                    runtime.tracker.truncate_to(keeper["offsets"])
                restore_random_state(loaded.state["random"])
                step = self._saved_step = loaded.step
        self._began = self._step_began = time.monotonic()
        self._bar = tqdm(
            total=self.total_steps,
            initial=step,
            desc=self.stage,
            unit="step",
            disable=not (runtime.progress and runtime.is_main),
            dynamic_ncols=True,
        )
        if runtime.tracker is not None:
            runtime.tracker.status(
                state="running", stage=self.stage, step=step, total_steps=self.total_steps
            )
        if step == 0 and self.evaluate is not None:
            self._evaluate(0, 0.0)
        return step

    def after_step(
        self,
        step: int,
        metrics: Mapping[str, float],
        *,
        epoch: float,
        tokens: int,
        shown: Mapping[str, str],
    ) -> bool:
        """Log, evaluate, save, and say whether to go on. `step` counts finished steps.

        Raises:
            StopRequested: somebody asked to stop; a checkpoint has been written.
        """
        runtime, training = self.runtime, self.training
        self.tokens += tokens
        self.last_metrics = dict(metrics)
        seconds = time.monotonic() - self._step_began
        if runtime.tracker is not None:
            runtime.tracker.log(self.stage, step, metrics, epoch=epoch)
            runtime.tracker.log_timing(
                self.stage,
                step,
                {"seconds": seconds, "tokens_per_second": tokens / max(seconds, 1e-9)},
            )
            runtime.tracker.status(
                state="running",
                stage=self.stage,
                step=step,
                total_steps=self.total_steps,
                epoch=epoch,
            )
        self._bar.update(1)
        self._bar.set_postfix(shown, refresh=False)
        go_on = True
        last = step >= self.total_steps
        self._score = None
        if self.evaluate is not None and (last or _due(step, training.eval_steps)):
            go_on = self._evaluate(step, epoch)
        if runtime.stop.requested:
            self.save(step)
            self._bar.close()
            if runtime.tracker is not None:
                runtime.tracker.status(
                    state="interrupted", message="stopped by request; use --resume"
                )
            raise StopRequested(
                f"stopped by request in stage {self.stage} after step {step}; "
                "run the same command with --resume to go on from there"
            )
        if _due(step, training.save_steps) and not last:
            self.save(step)
        self._step_began = time.monotonic()
        return go_on

    def _evaluate(self, step: int, epoch: float) -> bool:
        assert self.evaluate is not None
        values = dict(self.evaluate(step, epoch))
        score = values.pop("score", None)
        if self.runtime.tracker is not None:
            self.runtime.tracker.log(self.stage, step, values, epoch=epoch, kind="eval")
        self._score = score
        if score is None:
            return True
        if self.best is None or score > self.best:
            self.best, self.bad_evaluations = score, 0
        else:
            self.bad_evaluations += 1
        patience = self.training.early_stopping_patience
        return not (patience and self.bad_evaluations >= patience)

    def save(self, step: int) -> None:
        """Write a checkpoint of everything (main process only)."""
        store, tracker = self.runtime.store, self.runtime.tracker
        if store is None or not self.runtime.is_main or step == self._saved_step:
            return
        state = self.state()
        state["random"] = random_state()
        state["keeper"] = {
            "best": self.best,
            "bad_evaluations": self.bad_evaluations,
            "tokens": self.tokens,
            "offsets": tracker.offsets() if tracker is not None else {},
        }
        store.save(step, state, metric=self._score)
        self._saved_step = step

    def finish(self, step: int, *, stopped_early: bool) -> TrainResult:
        """Save the end state and close the bar."""
        self.save(step)
        self._bar.close()
        return TrainResult(
            steps=step,
            metrics=self.last_metrics,
            seconds=time.monotonic() - self._began,
            tokens=self.tokens,
            stopped_early=stopped_early,
        )


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
