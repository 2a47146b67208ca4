"""KTO against its formula in Python floats, its weights and its KL estimate."""

from __future__ import annotations

import math

import pytest
import torch
from helpers_numeric import EXACT, FLOAT64, assert_close, gradients, properties, randn
from hypothesis import given
from hypothesis import strategies as st

from modern_rlhf.errors import DataError
from modern_rlhf.losses.kto import kto_balanced_weights, kto_kl, kto_loss

LABELS = torch.tensor([True, False, True, True, False])


@properties
@given(
    seed=st.integers(0, 999),
    beta=st.sampled_from([0.1, 0.5]),
    kl=st.floats(0.0, 3.0),
    lambdas=st.sampled_from([(1.0, 1.0), (1.0, 1.33), (2.0, 1.0)]),
)
def test_kto_equals_its_formula(
    seed: int, beta: float, kl: float, lambdas: tuple[float, float]
) -> None:
    policy, reference = randn(5, seed=seed), randn(5, seed=seed + 1)
    loss, metrics = kto_loss(
        policy=policy,
        reference=reference,
        labels=LABELS,
        kl=torch.tensor(kl, dtype=torch.float64),
        beta=beta,
        desirable_weight=lambdas[0],
        undesirable_weight=lambdas[1],
    )
    total = good = bad = 0.0
    for p, r, label in zip(policy.tolist(), reference.tolist(), LABELS.tolist(), strict=True):
        sign = 1.0 if label else -1.0
        value = 1.0 / (1.0 + math.exp(-sign * beta * (p - r - kl)))
        total += lambdas[0 if label else 1] * (1.0 - value)
        good += beta * (p - r) if label else 0.0
        bad += 0.0 if label else beta * (p - r)
    assert_close(loss, total / 5, tolerance=FLOAT64)
    assert_close(metrics["rewards_desirable"], good / 5, tolerance=FLOAT64)
    assert_close(metrics["rewards_undesirable"], bad / 5, tolerance=FLOAT64)
    assert_close(metrics["desirable_fraction"], 3 / 5, tolerance=1e-7)
    assert_close(metrics["kl"], kl, tolerance=FLOAT64)


def test_policy_equal_to_the_reference_gives_one_half() -> None:
    policy = randn(5, seed=1)
    kl = kto_kl(policy_mismatched=policy, reference_mismatched=policy)
    loss, _ = kto_loss(policy=policy, reference=policy, labels=LABELS, kl=kl, beta=0.1)
    assert_close(loss, 0.5, tolerance=FLOAT64)


def test_descent_raises_desirable_and_lowers_undesirable_answers() -> None:
    policy, reference = randn(5, seed=2), randn(5, seed=3)
    (gradient,) = gradients(
        lambda p: kto_loss(policy=p, reference=reference, labels=LABELS, kl=0.3, beta=0.1)[0],
        policy,
    )
    assert bool((gradient[LABELS] < 0).all()) and bool((gradient[~LABELS] > 0).all())


def test_no_gradient_goes_through_the_reference_or_the_kl() -> None:
    policy, reference, kl = (randn(5, seed=i).requires_grad_() for i in range(3))
    mean = kl.mean()
    kto_loss(policy=policy, reference=reference, labels=LABELS, kl=mean, beta=0.1)[0].backward()
    assert policy.grad is not None and reference.grad is None and kl.grad is None


def test_the_kl_estimate_is_a_mean_cut_at_zero() -> None:
    policy, reference = torch.tensor([-1.0, -2.0]), torch.tensor([-3.0, -2.5])
    kl = kto_kl(policy_mismatched=policy.requires_grad_(), reference_mismatched=reference)
    assert_close(kl, 1.25, tolerance=EXACT)
    assert not kl.requires_grad
    negative = kto_kl(policy_mismatched=reference, reference_mismatched=policy)
    assert_close(negative, 0.0, tolerance=EXACT)


@properties
@given(good=st.integers(1, 500), bad=st.integers(1, 500))
def test_balanced_weights_make_the_two_labels_count_alike(good: int, bad: int) -> None:
    desirable, undesirable = kto_balanced_weights(good, bad)
    assert_close(desirable * good, undesirable * bad, tolerance=FLOAT64)
    assert min(desirable, undesirable) == 1.0


def test_one_sided_data_is_refused() -> None:
    with pytest.raises(DataError, match="3 desirable and 0 undesirable"):
        kto_balanced_weights(3, 0)


def test_micro_batches_add_up() -> None:
    policy, reference = randn(5, seed=4), randn(5, seed=5)
    weights = torch.tensor([1.0, 2.0, 0.0, 0.5, 1.0], dtype=torch.float64)
    whole, whole_metrics = kto_loss(
        policy=policy, reference=reference, labels=LABELS, kl=0.2, beta=0.1, weights=weights
    )
    parts = [
        kto_loss(
            policy=policy[part],
            reference=reference[part],
            labels=LABELS[part],
            kl=0.2,
            beta=0.1,
            weights=weights[part],
            denominator=4.5,
        )
        for part in (slice(0, 2), slice(2, 5))
    ]
    assert_close(sum(loss for loss, _ in parts), whole, tolerance=FLOAT64)
    for name, value in whole_metrics.items():
        assert_close(sum(m[name] for _, m in parts), value, tolerance=FLOAT64, what=name)


def test_extreme_log_ratios_stay_finite() -> None:
    policy = torch.tensor([-1e4, 1e4, 0.0, 1e4, -1e4])
    (gradient,) = gradients(
        lambda p: kto_loss(policy=p, reference=torch.zeros(5), labels=LABELS, kl=0.0, beta=1.0)[0],
        policy,
    )
    assert bool(torch.isfinite(gradient).all())
