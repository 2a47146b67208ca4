"""Running mean and standard deviation of a stream of rewards, and clipping (D26).

Welford's update in the pairwise form of Chan, Golub and LeVeque (1979): batches are merged as
(count, mean, m2) with m2 the sum of squared deviations. Kept as Python floats (float64), so that a
state written to JSON and read back is the same to the bit.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from modern_rlhf.errors import CheckpointError, TrainingError


class RunningMoments:
    """Mean and standard deviation of all values seen so far.

    Attributes:
        count: how many values were seen.
        mean: their mean, 0 before the first.
        m2: the sum of their squared deviations from the mean.
        unbiased: whether `std` divides by count - 1 (D16).
    """

    def __init__(self, *, unbiased: bool = True) -> None:
        self.unbiased = unbiased
        self.count = 0
        self.mean = 0.0
        self.m2 = 0.0

    @property
    def std(self) -> float:
        """Standard deviation; 1 while fewer than two values, or only equal ones, were seen."""
        degrees = self.count - int(self.unbiased)
        if self.count < 2 or self.m2 <= 0.0:
            return 1.0
        return math.sqrt(self.m2 / degrees)

    def update(self, values: Tensor) -> None:
        """Take in `values` of any shape.

        Raises:
            TrainingError: a value is NaN or infinite, which would spoil the moments for good.
        """
        flat = values.detach().to(device="cpu", dtype=torch.float64).flatten()
        if flat.numel() == 0:
            return
        if not bool(torch.isfinite(flat).all()):
            raise TrainingError(
                "running moments were given NaN or infinity: mask unscorable samples"
            )
        mean = float(flat.mean())
        self.merge(count=flat.numel(), mean=mean, m2=float(((flat - mean) ** 2).sum()))

    def merge(self, *, count: int, mean: float, m2: float) -> None:
        """Take in another set of values by its moments (another process's, say)."""
        if count == 0:
            return
        total = self.count + count
        delta = mean - self.mean
        self.mean += delta * count / total
        self.m2 += m2 + delta * delta * self.count * count / total
        self.count = total

    def state_dict(self) -> dict[str, float | int]:
        """`{"count", "mean", "m2"}`."""
        return {"count": self.count, "mean": self.mean, "m2": self.m2}

    def load_state_dict(self, state: dict[str, float | int]) -> None:
        """Restore from `state_dict`. Raises CheckpointError when keys are missing or unknown."""
        if set(state) != {"count", "mean", "m2"}:
            raise CheckpointError(
                f"state of running moments: expected count, mean and m2, got {sorted(state)}"
            )
        self.count = int(state["count"])
        self.mean = float(state["mean"])
        self.m2 = float(state["m2"])


def clip(values: Tensor, limit: float) -> Tensor:
    """`values` cut to [-limit, limit], same shape. `limit` must be positive."""
    assert limit > 0, f"limit={limit}: must be positive"
    return values.clamp(-limit, limit)
