"""The clipped value loss against a naive loop, its gradient, and explained variance."""

from __future__ import annotations

import pytest
import torch
from helpers_numeric import (
    EXACT,
    FLOAT64,
    assert_close,
    gradients,
    properties,
    randn,
    right_padded,
)
from hypothesis import given
from hypothesis import strategies as st

from modern_rlhf.losses.value import clipped_value_loss, explained_variance


@properties
@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    clip=st.sampled_from([0.2, 0.5, None]),
    seed=st.integers(0, 999),
)
def test_value_loss_equals_the_naive_loop(
    lengths: list[int], clip: float | None, seed: int
) -> None:
    rows = len(lengths)
    values, old, returns = (randn(rows, 5, seed=seed + i) for i in range(3))
    loss, metrics = clipped_value_loss(
        values=values,
        old_values=old,
        returns=returns,
        mask=right_padded(lengths, 5),
        clip=clip,
    )
    total = cut = errors = 0.0
    for i, length in enumerate(lengths):
        for t in range(length):
            v, o, r = float(values[i, t]), float(old[i, t]), float(returns[i, t])
            error = clipped_error = (v - r) ** 2
            if clip is not None:
                clipped_error = (min(max(v, o - clip), o + clip) - r) ** 2
            total += 0.5 * max(error, clipped_error)
            cut += clipped_error > error
            errors += error
    n = sum(lengths)
    assert_close(loss, total / n, tolerance=FLOAT64)
    assert_close(metrics["value_clip_fraction"], cut / n, tolerance=FLOAT64)
    assert_close(metrics["value_error"], errors / n, tolerance=FLOAT64)


@pytest.mark.parametrize(
    ("value", "target", "flows"),
    [
        (1.0, 5.0, False),  # left the range towards the return: enough for this rollout
        (1.0, -5.0, True),  # left it away from the return: pulled back
        (-1.0, -5.0, False),
        (-1.0, 5.0, True),
        (0.1, 5.0, True),  # inside
    ],
)
def test_the_clip_stops_the_gradient_on_one_side_only(
    value: float, target: float, flows: bool
) -> None:
    one = torch.ones(1, 1, dtype=torch.float64)

    def loss(x: torch.Tensor) -> torch.Tensor:
        return clipped_value_loss(
            values=x, old_values=0 * one, returns=target * one, mask=one, clip=0.2
        )[0]

    expected = value - target if flows else 0.0
    assert_close(gradients(loss, value * one)[0], [[expected]], tolerance=FLOAT64)


def test_means_are_reported() -> None:
    values, returns = torch.tensor([[1.0, 3.0, 50.0]]), torch.tensor([[2.0, 6.0, 50.0]])
    _, metrics = clipped_value_loss(
        values=values, old_values=values, returns=returns, mask=right_padded([2], 3), clip=0.2
    )
    assert_close(metrics["value_mean"], 2.0, tolerance=EXACT)
    assert_close(metrics["return_mean"], 4.0, tolerance=EXACT)


def test_explained_variance() -> None:
    returns, mask = randn(3, 4, seed=1), right_padded([4, 3, 2], 4)
    dirty = returns.masked_fill(~mask, 1e6)

    def of(values: torch.Tensor) -> torch.Tensor:
        return explained_variance(values=values, returns=dirty, mask=mask)

    assert_close(of(returns), 1.0, tolerance=FLOAT64)
    assert_close(of(returns + 7.0), 1.0, tolerance=FLOAT64)  # an offset is not variance
    assert_close(of(torch.zeros_like(returns)), 0.0, tolerance=FLOAT64)
    assert_close(of(-returns), -3.0, tolerance=FLOAT64)  # residual 2R: 1 - 4
    constant = torch.full((3, 4), 2.0)
    assert bool(explained_variance(values=returns, returns=constant, mask=mask).isnan())
