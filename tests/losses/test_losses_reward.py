"""Bradley-Terry, pointwise regression and the ordinal head."""

from __future__ import annotations

import math

import pytest
import torch
from helpers_numeric import EXACT, FLOAT64, assert_close, gradients, properties, randn
from hypothesis import given
from hypothesis import strategies as st

from modern_rlhf.losses.reward import (
    bradley_terry,
    ordinal_cross_entropy,
    ordinal_expectation,
    pointwise_regression,
)


@properties
@given(
    seed=st.integers(0, 999),
    coefficient=st.sampled_from([0.0, 0.01]),
    with_margin=st.booleans(),
    shape=st.sampled_from([(5,), (4, 3)]),
)
def test_bradley_terry_equals_its_formula(
    seed: int, coefficient: float, with_margin: bool, shape: tuple[int, ...]
) -> None:
    chosen, rejected, margin = (randn(*shape, seed=seed + i) for i in range(3))
    loss, metrics = bradley_terry(
        chosen=chosen,
        rejected=rejected,
        margin=margin if with_margin else None,
        center_coefficient=coefficient,
    )
    total = wins = 0.0
    rows = zip(*(x.flatten().tolist() for x in (chosen, rejected, margin)), strict=True)
    for c, r, m in rows:
        gap = c - r - (m if with_margin else 0.0)
        total += math.log(1.0 + math.exp(-gap)) + coefficient * (c + r) ** 2
        wins += c > r
    assert_close(loss, total / chosen.numel(), tolerance=FLOAT64)
    assert_close(metrics["accuracy"], wins / chosen.numel(), tolerance=1e-7)
    assert_close(metrics["score_margin"], (chosen - rejected).mean(), tolerance=FLOAT64)


@properties
@given(constant=st.floats(-100, 100), seed=st.integers(0, 999))
def test_adding_a_constant_to_both_scores_changes_nothing(constant: float, seed: int) -> None:
    chosen, rejected = randn(6, seed=seed), randn(6, seed=seed + 1)
    loss, _ = bradley_terry(chosen=chosen, rejected=rejected)
    shifted, _ = bradley_terry(chosen=chosen + constant, rejected=rejected + constant)
    assert_close(shifted, loss, tolerance=1e-9)


def test_the_centring_term_does_see_the_constant() -> None:
    chosen, rejected = torch.tensor([3.0]), torch.tensor([1.0])
    plain, _ = bradley_terry(chosen=chosen, rejected=rejected)
    centred, _ = bradley_terry(chosen=chosen, rejected=rejected, center_coefficient=0.5)
    assert_close(centred - plain, 0.5 * 16.0, tolerance=1e-6)


@pytest.mark.parametrize("garbage", [1e4, float("nan"), float("inf")])
def test_entries_of_weight_zero_take_no_part(garbage: float) -> None:
    weights = torch.tensor([[1.0, 0.0], [0.5, 1.0]], dtype=torch.float64)
    scores, targets = randn(2, 2, seed=1), randn(2, 2, seed=2)
    dirty = targets.masked_fill(weights == 0, garbage)
    dirty_scores = scores.masked_fill(weights == 0, garbage)
    logits = randn(2, 2, 5, seed=3)
    losses = {
        "pairs": lambda s, t: bradley_terry(chosen=s, rejected=t, margin=t, weights=weights)[0],
        "numbers": lambda s, t: pointwise_regression(predictions=s, targets=t, weights=weights)[0],
        "classes": lambda s, t: ordinal_cross_entropy(logits * s[..., None], t, weights)[0],
    }
    for name, loss in losses.items():
        assert_close(loss(dirty_scores, dirty), loss(scores, targets), tolerance=EXACT, what=name)
        if name != "classes":  # there the logits' factor is part of the test, not of the loss
            (gradient,) = gradients(lambda s, f=loss: f(s, dirty), dirty_scores)
            (clean,) = gradients(lambda s, f=loss: f(s, targets), scores)
            assert_close(gradient, clean, tolerance=EXACT, what=name)
    (gradient,) = gradients(
        lambda x: ordinal_cross_entropy(x, dirty, weights)[0],
        logits.masked_fill((weights == 0)[..., None], garbage),
    )
    (clean,) = gradients(lambda x: ordinal_cross_entropy(x, targets, weights)[0], logits)
    assert_close(gradient, clean, tolerance=EXACT)


def test_pointwise_regression_by_hand() -> None:
    # errors 1 and -2, weights 3 and 1: (3*1 + 1*4)/4, (3*1 + 1*2)/4
    loss, metrics = pointwise_regression(
        predictions=torch.tensor([2.0, 0.0]),
        targets=torch.tensor([1.0, 2.0]),
        weights=torch.tensor([3.0, 1.0]),
    )
    assert_close(loss, 1.75, tolerance=EXACT)
    assert_close(metrics["absolute_error"], 1.25, tolerance=EXACT)


@pytest.mark.parametrize(
    ("target", "above"),
    [
        (-2.0, [0, 0, 0, 0]),
        (-1.0, [1, 0, 0, 0]),
        (2.0, [1, 1, 1, 1]),
        (0.25, [1, 1, 0.25, 0]),
        (-1.5, [0.5, 0, 0, 0]),
    ],
)
def test_every_threshold_is_a_yes_or_no_question(target: float, above: list[float]) -> None:
    logits = randn(3, 5, seed=4)
    loss, _ = ordinal_cross_entropy(logits, torch.full((3,), target, dtype=torch.float64))
    p = logits.softmax(-1)
    yes = torch.stack([p[:, 1:].sum(-1), p[:, 2:].sum(-1), p[:, 3:].sum(-1), p[:, 4]], dim=-1)
    goal = torch.tensor(above, dtype=torch.float64).expand(3, 4)
    expected = torch.nn.functional.binary_cross_entropy(yes, goal, reduction="sum") / 3
    assert_close(loss, expected, tolerance=FLOAT64)


def test_a_prediction_costs_more_the_more_levels_it_is_off_by() -> None:
    sure = 8.0 * torch.eye(5, dtype=torch.float64)  # row k is nearly sure of level k - 2
    costs = [
        float(ordinal_cross_entropy(row[None], torch.tensor([-2.0], dtype=torch.float64))[0])
        for row in sure
    ]
    gaps = [after - before for before, after in zip(costs, costs[1:], strict=False)]
    assert min(gaps) > 6.0, costs  # plain cross-entropy: 0, then the same for all four


@pytest.mark.parametrize(("sure_of", "target"), [(4, -2.0), (0, 2.0)])
def test_a_prediction_sure_of_the_wrong_end_has_a_finite_loss_and_gradient(
    sure_of: int, target: float
) -> None:
    logits = 300.0 * torch.eye(5)[sure_of][None]
    (gradient,) = gradients(lambda x: ordinal_cross_entropy(x, torch.tensor([target]))[0], logits)
    loss, _ = ordinal_cross_entropy(logits, torch.tensor([target]))
    assert 1000.0 < float(loss) < 1300.0 and bool(torch.isfinite(gradient).all())


@pytest.mark.parametrize(
    ("target", "best"),
    [
        (0.25, [0, 0, 0.75, 0.25, 0]),
        (-1.5, [0.5, 0.5, 0, 0, 0]),
        (1.9, [0, 0, 0, 0.1, 0.9]),
        (1.0, [0, 0, 0, 1, 0]),
    ],
)
def test_the_best_prediction_expects_the_target(target: float, best: list[float]) -> None:
    logits = (torch.tensor([best], dtype=torch.float64) + 1e-15).log()
    goal = torch.tensor([target], dtype=torch.float64)
    (gradient,) = gradients(lambda x: ordinal_cross_entropy(x, goal)[0], logits)
    assert_close(gradient, torch.zeros(1, 5), tolerance=FLOAT64)
    assert_close(ordinal_expectation(logits), goal, tolerance=FLOAT64)


def test_expectation_of_certain_and_uniform_predictions() -> None:
    logits = torch.zeros(2, 5)
    logits[1, 4] = 100.0
    assert_close(ordinal_expectation(logits), [0.0, 2.0], tolerance=1e-6)


def test_ordinal_metrics_by_hand() -> None:
    logits = torch.zeros(2, 5)
    logits[0, 4], logits[1, 0] = 100.0, 100.0  # predicts 2 and -2
    _, metrics = ordinal_cross_entropy(logits, torch.tensor([1.5, 1.0]))
    assert_close(metrics["absolute_error"], (0.5 + 3.0) / 2, tolerance=1e-6)
    assert_close(metrics["accuracy"], 0.5, tolerance=EXACT)  # half a class off is still nearest


def test_targets_beyond_the_scale_count_as_its_end() -> None:
    logits = randn(1, 5, seed=6)
    beyond, _ = ordinal_cross_entropy(logits, torch.tensor([7.0]))
    end, _ = ordinal_cross_entropy(logits, torch.tensor([2.0]))
    assert_close(beyond, end, tolerance=EXACT)


def test_micro_batches_add_up() -> None:
    scores, targets = randn(4, 2, seed=7), randn(4, 2, seed=8)
    logits = randn(4, 2, 5, seed=9)
    weights = randn(4, 2, seed=10).abs()
    functions = {
        "pairs": lambda i, d: bradley_terry(
            chosen=scores[i],
            rejected=targets[i],
            weights=weights[i],
            center_coefficient=0.1,
            denominator=d,
        ),
        "numbers": lambda i, d: pointwise_regression(
            predictions=scores[i], targets=targets[i], weights=weights[i], denominator=d
        ),
        "classes": lambda i, d: ordinal_cross_entropy(
            logits[i], targets[i], weights[i], denominator=d
        ),
    }
    for name, function in functions.items():
        whole, whole_metrics = function(slice(None), None)
        parts = [function(slice(i, i + 1), weights.sum()) for i in range(4)]
        assert_close(sum(loss for loss, _ in parts), whole, tolerance=FLOAT64, what=name)
        for key, value in whole_metrics.items():
            assert_close(sum(m[key] for _, m in parts), value, tolerance=FLOAT64, what=key)


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(AssertionError, match="one shape"):
        bradley_terry(chosen=torch.zeros(3), rejected=torch.zeros(3, 1))
    with pytest.raises(AssertionError):
        ordinal_cross_entropy(torch.zeros(3, 5), torch.zeros(3, 1))
