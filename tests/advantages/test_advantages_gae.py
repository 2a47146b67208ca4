"""GAE against its definition as a double sum in Python floats, and its two limits."""

from __future__ import annotations

import torch
from helpers_numeric import EXACT, FLOAT64, assert_close, properties, randn, right_padded
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from modern_rlhf.advantages import gae, whiten_advantages
from modern_rlhf.ops.masking import masked_mean, masked_var

LENGTHS = st.lists(st.integers(0, 7), min_size=1, max_size=4)


def definition(rewards: Tensor, values: Tensor, length: int, gamma: float, lam: float) -> list:
    """A_t = sum_k (gamma lam)^k delta_{t+k}, O(T^2), one row."""
    r, v = rewards.tolist(), values.tolist()
    deltas = [r[t] + gamma * (v[t + 1] if t + 1 < length else 0.0) - v[t] for t in range(length)]
    return [
        sum((gamma * lam) ** (k - t) * deltas[k] for k in range(t, length)) for t in range(length)
    ]


def test_gae_by_hand() -> None:
    # gamma .5, lam .5; deltas: 1 + .5*2 - 1 = 1, 0 + .5*4 - 2 = 0, 8 - 4 = 4
    # A_2 = 4, A_1 = 0 + .25*4 = 1, A_0 = 1 + .25*1 = 1.25
    advantages, returns = gae(
        rewards=torch.tensor([[1.0, 0.0, 8.0, 99.0]]),
        values=torch.tensor([[1.0, 2.0, 4.0, 99.0]]),
        mask=right_padded([3], 4),
        gamma=0.5,
        lam=0.5,
    )
    assert_close(advantages, [[1.25, 1.0, 4.0, 0.0]], tolerance=EXACT)
    assert_close(returns, [[2.25, 3.0, 8.0, 0.0]], tolerance=EXACT)


@properties
@given(
    lengths=LENGTHS, gamma=st.floats(0.0, 1.0), lam=st.floats(0.0, 1.0), seed=st.integers(0, 999)
)
def test_gae_equals_its_definition(lengths: list[int], gamma: float, lam: float, seed: int) -> None:
    rewards, values = randn(len(lengths), 7, seed=seed), randn(len(lengths), 7, seed=seed + 1)
    mask = right_padded(lengths, 7)
    advantages, returns = gae(rewards=rewards, values=values, mask=mask, gamma=gamma, lam=lam)
    expected = torch.zeros_like(rewards)
    for i, length in enumerate(lengths):
        row = definition(rewards[i], values[i], length, gamma, lam)
        expected[i, :length] = torch.tensor(row, dtype=torch.float64)
    assert_close(advantages, expected, tolerance=FLOAT64)
    assert_close(returns, expected + torch.where(mask, values, 0.0), tolerance=FLOAT64)


@properties
@given(lengths=LENGTHS, seed=st.integers(0, 999))
def test_lambda_one_is_the_sum_of_later_rewards_minus_the_value(
    lengths: list[int], seed: int
) -> None:
    rewards, values = randn(len(lengths), 7, seed=seed), randn(len(lengths), 7, seed=seed + 1)
    mask = right_padded(lengths, 7)
    advantages, _ = gae(rewards=rewards, values=values, mask=mask, gamma=1.0, lam=1.0)
    for i, length in enumerate(lengths):
        for t in range(length):
            later = sum(rewards[i, t:length].tolist())
            assert_close(advantages[i, t], later - float(values[i, t]), tolerance=FLOAT64)


@properties
@given(lengths=LENGTHS, seed=st.integers(0, 999))
def test_lambda_zero_is_the_one_step_error(lengths: list[int], seed: int) -> None:
    rewards, values = randn(len(lengths), 7, seed=seed), randn(len(lengths), 7, seed=seed + 1)
    mask = right_padded(lengths, 7)
    advantages, _ = gae(rewards=rewards, values=values, mask=mask, gamma=0.9, lam=0.0)
    for i, length in enumerate(lengths):
        for t in range(length):
            following = float(values[i, t + 1]) if t + 1 < length else 0.0
            expected = float(rewards[i, t]) + 0.9 * following - float(values[i, t])
            assert_close(advantages[i, t], expected, tolerance=FLOAT64)


def test_padding_width_place_and_content_do_not_matter() -> None:
    rewards, values = randn(1, 4, seed=5), randn(1, 4, seed=6)
    mask = torch.ones(1, 4)
    plain, _ = gae(rewards=rewards, values=values, mask=mask, gamma=0.9, lam=0.8)
    columns = torch.tensor([1, 2, 5, 7])
    wide_rewards, wide_values = (
        torch.full((1, 9), float("nan"), dtype=torch.float64) for _ in range(2)
    )
    wide_mask = torch.zeros(1, 9)
    wide_rewards[:, columns], wide_values[:, columns] = rewards, values
    wide_mask[:, columns] = 1.0
    wide, returns = gae(
        rewards=wide_rewards, values=wide_values, mask=wide_mask, gamma=0.9, lam=0.8
    )
    assert_close(wide[:, columns], plain, tolerance=EXACT)
    assert_close(wide.sum(), plain.sum(), tolerance=FLOAT64)
    assert bool(torch.isfinite(returns).all())


def test_perfect_values_leave_no_advantage() -> None:
    rewards = randn(2, 6, seed=7)
    values = rewards.flip(1).cumsum(1).flip(1)  # undiscounted sums of the rewards to come
    for lam in (0.0, 0.5, 1.0):
        advantages, returns = gae(
            rewards=rewards, values=values, mask=torch.ones(2, 6), gamma=1.0, lam=lam
        )
        assert_close(advantages, torch.zeros(2, 6), tolerance=FLOAT64)
        assert_close(returns, values, tolerance=FLOAT64)


def test_no_gradient_goes_through_values() -> None:
    values = torch.zeros(1, 2, requires_grad=True)
    advantages, returns = gae(
        rewards=torch.ones(1, 2), values=values, mask=torch.ones(1, 2), gamma=1.0, lam=0.95
    )
    assert not advantages.requires_grad and not returns.requires_grad


def test_whitened_advantages_are_centred() -> None:
    advantages, mask = 3 + 5 * randn(4, 5, seed=8), right_padded([5, 4, 2, 3], 5)
    white = whiten_advantages(advantages, mask, unbiased=True)
    assert_close(masked_mean(white, mask), 0.0, tolerance=FLOAT64)
    assert_close(masked_var(white, mask, unbiased=True), 1.0, tolerance=1e-8)
