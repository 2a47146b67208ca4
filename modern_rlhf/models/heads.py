"""Value heads and how they start (D4). Knows tensors and modules only.

A value head is one linear layer H -> 1 on the hidden state before a response token. `zero` starts it
at V = 0 everywhere; `random` draws N(0, 1/sqrt(H+1)) (D3), for tests and ablations.
"""

from __future__ import annotations

import math

import torch
from torch import nn


def reward_head_std(features: int) -> float:
    """Standard deviation of a fresh scalar head over `features` inputs: 1/sqrt(d+1) (D3)."""
    return 1.0 / math.sqrt(features + 1)


def linear_value_head(
    hidden_size: int, *, init: str = "zero", generator: torch.Generator | None = None
) -> nn.Linear:
    """A fresh `H -> 1` head; `init` is `zero` or `random`."""
    head = nn.Linear(hidden_size, 1)
    with torch.no_grad():
        head.bias.zero_()
        if init == "zero":
            head.weight.zero_()
        elif init == "random":
            head.weight.normal_(0.0, reward_head_std(hidden_size), generator=generator)
        else:
            raise ValueError(f"unknown value head init {init!r}; expected 'zero' or 'random'")
    return head
