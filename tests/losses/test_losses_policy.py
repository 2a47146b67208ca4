"""The clipped surrogate, REINFORCE, the KL penalty and the entropy bonus."""

from __future__ import annotations

import math

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

from modern_rlhf.errors import ConfigError
from modern_rlhf.losses.policy import clipped_surrogate, entropy_bonus, kl_penalty, reinforce


def naive_surrogate(
    log_probs: list, old: list, advantages: list, lengths: list, low: float, high: float
) -> dict[str, float]:
    """The definition, token by token in Python floats, as token means."""
    loss = clipped_low = clipped_high = ratios = kl = 0.0
    for i, length in enumerate(lengths):
        for t in range(length):
            ratio = math.exp(log_probs[i][t] - old[i][t])
            cut = min(max(ratio, 1 - low), 1 + high)
            loss += -min(ratio * advantages[i][t], cut * advantages[i][t])
            clipped_low += ratio < 1 - low and advantages[i][t] < 0
            clipped_high += ratio > 1 + high and advantages[i][t] > 0
            ratios += ratio
            kl += ratio - 1 - math.log(ratio)
    n = max(sum(lengths), 1)
    return {
        "loss": loss / n,
        "clip_fraction_low": clipped_low / n,
        "clip_fraction_high": clipped_high / n,
        "clip_fraction": (clipped_low + clipped_high) / n,
        "ratio_mean": ratios / n,
        "approx_kl": kl / n,
    }


@properties
@given(
    lengths=st.lists(st.integers(0, 5), min_size=1, max_size=4),
    low=st.sampled_from([0.1, 0.2]),
    high=st.sampled_from([0.2, 0.28]),
    seed=st.integers(0, 999),
)
def test_surrogate_equals_the_naive_loop(
    lengths: list[int], low: float, high: float, seed: int
) -> None:
    rows = len(lengths)
    log_probs, old = 0.3 * randn(rows, 5, seed=seed), 0.3 * randn(rows, 5, seed=seed + 1)
    advantages = randn(rows, 5, seed=seed + 2)
    loss, metrics = clipped_surrogate(
        log_probs=log_probs,
        old_log_probs=old,
        advantages=advantages,
        mask=right_padded(lengths, 5),
        clip_low=low,
        clip_high=high,
        how="token_mean",
    )
    expected = naive_surrogate(
        log_probs.tolist(), old.tolist(), advantages.tolist(), lengths, low, high
    )
    assert_close(loss, expected.pop("loss"), tolerance=FLOAT64)
    assert set(metrics) == set(expected)
    for name, value in expected.items():
        assert_close(metrics[name], value, tolerance=FLOAT64, what=name)


@pytest.mark.parametrize(
    ("ratio", "advantage", "gradient_flows"),
    [
        (1.5, 1.0, False),  # above the range and pushed further up: cut
        (1.5, -1.0, True),  # above it and pushed back
        (0.5, -1.0, False),  # below the range and pushed further down: cut
        (0.5, 1.0, True),
        (1.1, 1.0, True),  # inside
        (0.9, -1.0, True),
    ],
)
def test_the_clip_stops_the_gradient_on_one_side_only(
    ratio: float, advantage: float, gradient_flows: bool
) -> None:
    log_ratio = torch.tensor([[math.log(ratio)]], dtype=torch.float64)

    def loss(x: torch.Tensor) -> torch.Tensor:
        return clipped_surrogate(
            log_probs=x,
            old_log_probs=torch.zeros(1, 1, dtype=torch.float64),
            advantages=torch.tensor([[advantage]], dtype=torch.float64),
            mask=torch.ones(1, 1),
            clip_low=0.2,
            clip_high=0.2,
            how="token_mean",
        )[0]

    (gradient,) = gradients(loss, log_ratio)
    assert_close(gradient, [[-advantage * ratio if gradient_flows else 0.0]], tolerance=FLOAT64)


def test_the_two_widths_of_the_range_are_their_own() -> None:
    # A = 1 and ratio 1.25: cut at 1.2, not cut at 1.28
    log_ratio = torch.tensor([[math.log(1.25)]], dtype=torch.float64)
    for high, expected in ((0.2, -1.2), (0.28, -1.25)):
        loss, metrics = clipped_surrogate(
            log_probs=log_ratio,
            old_log_probs=torch.zeros_like(log_ratio),
            advantages=torch.ones(1),
            mask=torch.ones(1, 1),
            clip_low=0.1,
            clip_high=high,
            how="token_mean",
        )
        assert_close(loss, expected, tolerance=FLOAT64)
        assert_close(metrics["clip_fraction_high"], float(high == 0.2), tolerance=EXACT)


def test_an_unmoved_policy_has_ratio_one_and_the_reinforce_gradient() -> None:
    log_probs, mask, advantages = randn(3, 4, seed=0), right_padded([4, 2, 3], 4), randn(3, seed=1)

    def surrogate(x: torch.Tensor) -> torch.Tensor:
        return clipped_surrogate(
            log_probs=x,
            old_log_probs=log_probs,
            advantages=advantages,
            mask=mask,
            clip_low=0.2,
            clip_high=0.2,
            how="sequence_mean",
        )[0]

    def plain(x: torch.Tensor) -> torch.Tensor:
        return reinforce(log_probs=x, advantages=advantages, mask=mask, how="sequence_mean")[0]

    assert_close(
        gradients(surrogate, log_probs)[0], gradients(plain, log_probs)[0], tolerance=FLOAT64
    )


def test_a_log_ratio_of_a_hundred_stays_finite() -> None:
    for gap in (100.0, -100.0, 1e4):
        values = torch.tensor([[gap, 0.0]])

        def loss(x: torch.Tensor) -> torch.Tensor:
            return clipped_surrogate(
                log_probs=x,
                old_log_probs=torch.zeros(1, 2),
                advantages=torch.tensor([[-1.0, 1.0]]),
                mask=torch.ones(1, 2),
                clip_low=0.2,
                clip_high=0.2,
                how="token_mean",
            )[0]

        assert bool(torch.isfinite(loss(values)))
        assert bool(torch.isfinite(gradients(loss, values)[0]).all())


def test_reinforce_of_a_whole_completion_is_the_advantage_times_the_sum() -> None:
    # -(2 * (-1 - 3) + -1 * (-5)) / 2 = 3/2
    loss, metrics = reinforce(
        log_probs=torch.tensor([[-1.0, -3.0], [-5.0, 77.0]]),
        advantages=torch.tensor([2.0, -1.0]),
        mask=right_padded([2, 1], 2),
        how="constant_length",
        constant_length=1,
    )
    assert_close(loss, 1.5, tolerance=EXACT)
    # the metric stays a mean per token: ((-1 - 3)/2 - 5)/2
    assert_close(metrics["log_prob_mean"], -3.5, tolerance=EXACT)


def test_advantages_carry_no_gradient() -> None:
    advantages = torch.ones(1, 1, requires_grad=True)
    loss, _ = reinforce(
        log_probs=torch.zeros(1, 1, requires_grad=True),
        advantages=advantages,
        mask=torch.ones(1, 1),
        how="token_mean",
    )
    loss.backward()
    assert advantages.grad is None


def test_kl_penalty_is_zero_for_the_reference_itself() -> None:
    log_probs, mask = randn(2, 3, seed=4), right_padded([3, 2], 3)
    for kind in ("k2", "k3"):
        loss, metrics = kl_penalty(
            log_probs=log_probs, ref_log_probs=log_probs, mask=mask, kind=kind, how="token_mean"
        )
        assert_close(loss, 0.0, tolerance=EXACT)
        assert_close(metrics["kl"], 0.0, tolerance=EXACT)


def test_kl_penalty_by_hand_and_its_metric() -> None:
    # d = ln 2 at the one token: k3 = .1931; with the ratio e^{ln 2 - 0} = 2 in front: .3863
    d = torch.tensor([[math.log(2.0)]], dtype=torch.float64)
    zeros, mask = torch.zeros_like(d), torch.ones(1, 1)
    plain, metrics = kl_penalty(
        log_probs=d, ref_log_probs=zeros, mask=mask, kind="k3", how="token_mean"
    )
    assert_close(plain, math.log(2.0) - 0.5, tolerance=FLOAT64)
    weighted, again = kl_penalty(
        log_probs=d,
        ref_log_probs=zeros,
        mask=mask,
        kind="k3",
        how="token_mean",
        old_log_probs=zeros,
    )
    assert_close(weighted, 2 * (math.log(2.0) - 0.5), tolerance=FLOAT64)
    assert_close(metrics["kl"], again["kl"], tolerance=EXACT)


def test_k1_as_a_loss_needs_the_ratio() -> None:
    zeros = torch.zeros(1, 1)
    with pytest.raises(ConfigError, match="old_log_probs"):
        kl_penalty(log_probs=zeros, ref_log_probs=zeros, mask=zeros, kind="k1", how="token_mean")


def test_entropy_bonus_is_minus_the_mean() -> None:
    entropy, mask = torch.tensor([[1.0, 2.0], [6.0, 9.0]]), right_padded([2, 1], 2)
    loss, metrics = entropy_bonus(entropy, mask)
    assert_close(loss, -3.0, tolerance=EXACT)
    assert_close(metrics["entropy"], 3.0, tolerance=EXACT)


def test_advantages_of_the_wrong_length_are_refused() -> None:
    with pytest.raises(AssertionError, match="advantages for a mask"):
        reinforce(
            log_probs=torch.zeros(2, 3),
            advantages=torch.zeros(3),
            mask=torch.ones(2, 3),
            how="token_mean",
        )
