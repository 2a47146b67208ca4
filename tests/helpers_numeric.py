"""The one tolerance helper of the numeric tests, and the settings of their property tests.

Every comparison of floats in the suite goes through `assert_close` with one of the named tolerances:
|actual - expected| <= tolerance * max(1, |expected|), element by element, shapes equal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import HealthCheck, settings
from torch import Tensor

EXACT = 0.0
FLOAT64 = 1e-10
"""Two float64 computations of the same thing in a different order."""
FLOAT32 = 1e-5
"""A float32 computation against a float64 definition, or parity between two float32 ones."""
PRINTED = 1e-5
"""Against numbers printed with five decimals."""
BF16 = 2e-2
"""A bf16 matrix product against a float32 one."""

properties = settings(
    deadline=None,  # a loaded machine must not fail a test
    max_examples=25,
    derandomize=True,  # the same cases in every run
    suppress_health_check=[HealthCheck.too_slow],
)


def assert_close(actual: Any, expected: Any, *, tolerance: float, what: str = "") -> None:
    """Fail with the largest deviation unless `actual` equals `expected` within `tolerance`."""
    a, e = (torch.as_tensor(x, dtype=torch.float64).detach() for x in (actual, expected))
    assert a.shape == e.shape, f"{what} shape {tuple(a.shape)} instead of {tuple(e.shape)}"
    assert bool(torch.isfinite(a).all()), f"{what} not finite: {a}"
    excess = ((a - e).abs() - tolerance * e.abs().clamp(min=1.0)).clamp(min=0.0)
    assert not bool((excess > 0).any()), (
        f"{what} off by {float((a - e).abs().max()):.3g} at most, tolerance {tolerance}:\n"
        f"{a}\ninstead of\n{e}"
    )


def gradients(function: Callable[..., Tensor], *inputs: Tensor) -> tuple[Tensor, ...]:
    """Gradients of a scalar function with regard to fresh leaf copies of its inputs."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    return torch.autograd.grad(function(*leaves), leaves)


def right_padded(lengths: list[int], width: int) -> Tensor:
    """The mask (len(lengths), width) of right-padded rows, bool."""
    return torch.arange(width)[None, :] < torch.tensor(lengths)[:, None]


def generator(seed: int) -> torch.Generator:
    """A torch generator; tests never touch the global one."""
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard normal numbers from a seed."""
    return torch.randn(*shape, generator=generator(seed), dtype=dtype)
