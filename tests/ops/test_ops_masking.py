"""Masked statistics and aggregation: golden values, padding garbage, micro-batching."""

from __future__ import annotations

import pytest
import torch
from helpers_numeric import (
    EXACT,
    FLOAT64,
    PRINTED,
    assert_close,
    gradients,
    properties,
    randn,
    right_padded,
)
from hypothesis import given
from hypothesis import strategies as st

from modern_rlhf.errors import ConfigError
from modern_rlhf.ops.masking import (
    AGGREGATIONS,
    aggregate,
    assert_same_shape,
    batch_denominator,
    divide,
    masked_mean,
    masked_sum,
    masked_var,
    metric_mean,
    whiten,
)

GARBAGE = [1e4, float("nan"), float("inf"), float("-inf")]
LENGTH = {"token_mean": None, "sequence_mean": None, "constant_length": 6}


def test_whiten_without_centring_matches_published_numbers() -> None:
    # mean 1.6, biased variance .6/9 = .06667, std .258199: (1.2 - 1.6)/.258199 + 1.6 = .05081
    values = torch.tensor([[1.2, 1.3, 1.4], [1.5, 1.6, 1.7], [1.8, 1.9, 2.0]])
    mask = torch.ones_like(values)
    biased = whiten(values, mask, center=False, unbiased=False)
    assert_close(biased[0], [0.05081, 0.43811, 0.82540], tolerance=PRINTED)
    # unbiased variance .6/8 = .075, std .273861
    unbiased = whiten(values, mask, center=False, unbiased=True)
    assert_close(unbiased[0], [0.13941, 0.50455, 0.86970], tolerance=PRINTED)


def test_whiten_with_centring_has_mean_zero_and_variance_one() -> None:
    values, mask = 3.0 + 2.0 * randn(4, 7, seed=0), right_padded([7, 3, 1, 5], 7)
    for unbiased in (False, True):
        white = whiten(values, mask, center=True, unbiased=unbiased)
        assert_close(masked_mean(white, mask), 0.0, tolerance=FLOAT64)
        # 1e-8 is added to the variance of about 4 before the root: off by 1e-8 / 4
        assert_close(masked_var(white, mask, unbiased=unbiased), 1.0, tolerance=1e-8)
        assert_close(white[~mask], torch.zeros(12), tolerance=EXACT)


def test_variance_conventions() -> None:
    # 1, 2, 6: mean 3, squares 4 + 1 + 9 = 14
    values, mask = torch.tensor([[1.0, 2.0, 6.0, 99.0]]), right_padded([3], 4)
    assert_close(masked_var(values, mask, unbiased=False), 14 / 3, tolerance=1e-6)
    assert_close(masked_var(values, mask, unbiased=True), 7.0, tolerance=EXACT)
    one = right_padded([1], 4)
    assert_close(masked_var(values, one, unbiased=True), 0.0, tolerance=EXACT)


def test_sums_and_means_along_a_dimension() -> None:
    values = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])
    mask = right_padded([2, 3, 0], 3)
    assert_close(masked_sum(values, mask, dim=-1), [3.0, 15.0, 0.0], tolerance=EXACT)
    assert_close(masked_mean(values, mask, dim=-1), [1.5, 5.0, 0.0], tolerance=EXACT)
    assert_close(masked_sum(values, mask), 18.0, tolerance=EXACT)
    assert_close(masked_mean(values, mask.float()), 18 / 5, tolerance=1e-6)


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_in_padding_changes_nothing(garbage: float) -> None:
    values, mask = randn(3, 5, seed=2), right_padded([5, 2, 3], 5)
    dirty = values.masked_fill(~mask, garbage)
    functions = {
        "sum": lambda v: masked_sum(v, mask),
        "mean": lambda v: masked_mean(v, mask),
        "variance": lambda v: masked_var(v, mask, unbiased=True),
        "whiten": lambda v: (
            whiten(v, mask, center=True, unbiased=False) * v.detach().cos().masked_fill(~mask, 0.0)
        ).sum(),
        **{
            how: lambda v, how=how: aggregate(v, mask, how=how, constant_length=LENGTH[how])
            for how in AGGREGATIONS
        },
    }
    for name, function in functions.items():
        assert_close(function(dirty), function(values), tolerance=EXACT, what=name)
        (clean_gradient,), (gradient,) = gradients(function, values), gradients(function, dirty)
        assert_close(gradient, clean_gradient, tolerance=EXACT, what=f"gradient of {name}")
        assert_close(gradient[~mask], torch.zeros(5), tolerance=EXACT, what=name)


def test_aggregations_by_hand() -> None:
    values, mask = torch.tensor([[1.0, 2.0, 3.0], [10.0, 0.0, 0.0]]), right_padded([3, 1], 3)
    # token mean (1+2+3+10)/4; sequence mean (2 + 10)/2; constant length (6 + 10)/(2*8)
    assert_close(aggregate(values, mask, how="token_mean"), 4.0, tolerance=EXACT)
    assert_close(aggregate(values, mask, how="sequence_mean"), 6.0, tolerance=EXACT)
    constant = aggregate(values, mask, how="constant_length", constant_length=8)
    assert_close(constant, 1.0, tolerance=EXACT)
    # the whole completion as one action: mean of the sums
    action = aggregate(values, mask, how="constant_length", constant_length=1)
    assert_close(action, 8.0, tolerance=EXACT)


def test_masked_out_sequences_are_not_counted() -> None:
    values, mask = torch.tensor([[1.0, 3.0], [5.0, 7.0]]), right_padded([2, 0], 2)
    assert_close(aggregate(values, mask, how="sequence_mean"), 2.0, tolerance=EXACT)
    constant = aggregate(values, mask, how="constant_length", constant_length=2)
    assert_close(constant, 2.0, tolerance=EXACT)


@pytest.mark.parametrize("how", AGGREGATIONS)
def test_nothing_real_gives_zero_loss_and_gradient(how: str) -> None:
    mask = torch.zeros(2, 3, dtype=torch.bool)
    function = lambda v: aggregate(v, mask, how=how, constant_length=LENGTH[how])  # noqa: E731
    assert_close(function(torch.ones(2, 3)), 0.0, tolerance=EXACT)
    assert_close(gradients(function, torch.ones(2, 3))[0], torch.zeros(2, 3), tolerance=EXACT)


@properties
@given(
    lengths=st.lists(st.integers(0, 6), min_size=4, max_size=4),
    how=st.sampled_from(AGGREGATIONS),
    pieces=st.sampled_from([1, 2, 4]),
    seed=st.integers(0, 99),
)
def test_micro_batches_add_up(lengths: list[int], how: str, pieces: int, seed: int) -> None:
    values, mask = randn(4, 6, seed=seed), right_padded(lengths, 6)
    whole = batch_denominator(mask, how=how, constant_length=LENGTH[how])

    def total(v: torch.Tensor) -> torch.Tensor:
        parts = zip(v.chunk(pieces), mask.chunk(pieces), strict=True)
        return sum(
            aggregate(a, m, how=how, denominator=whole, constant_length=LENGTH[how])
            for a, m in parts
        )

    def at_once(v: torch.Tensor) -> torch.Tensor:
        return aggregate(v, mask, how=how, constant_length=LENGTH[how])

    assert_close(total(values), at_once(values), tolerance=FLOAT64)
    assert_close(gradients(total, values)[0], gradients(at_once, values)[0], tolerance=FLOAT64)
    metric = sum(
        metric_mean(a, m, how=how, denominator=whole, constant_length=LENGTH[how])
        for a, m in zip(values.chunk(pieces), mask.chunk(pieces), strict=True)
    )
    expected = masked_mean(values, mask)
    if how != "token_mean":  # mean over non-empty sequences of their token means
        filled = mask.any(-1)
        expected = masked_mean(masked_mean(values, mask, dim=-1), filled)
    assert_close(metric, expected, tolerance=FLOAT64, what="metric")


def test_batch_denominators_by_hand() -> None:
    mask = right_padded([3, 1, 0], 3)
    assert_close(batch_denominator(mask, how="token_mean"), 4.0, tolerance=EXACT)
    assert_close(batch_denominator(mask, how="sequence_mean"), 2.0, tolerance=EXACT)
    constant = batch_denominator(mask, how="constant_length", constant_length=5)
    assert_close(constant, 10.0, tolerance=EXACT)


def test_unusable_aggregations_are_refused_by_name() -> None:
    values = mask = torch.ones(1, 2)
    with pytest.raises(ConfigError, match="token_sum.*sequence_mean"):
        aggregate(values, mask, how="token_sum")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="constant_length=None"):
        aggregate(values, mask, how="constant_length")
    with pytest.raises(ConfigError, match="constant_length=4"):
        aggregate(values, mask, how="token_mean", constant_length=4, denominator=1.0)
    with pytest.raises(ConfigError, match="constant_length=0"):
        batch_denominator(mask, how="constant_length", constant_length=0)


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(AssertionError, match=r"values.*\(2, 1\).*mask.*\(2, 3\)"):
        masked_sum(torch.ones(2, 1), torch.ones(2, 3))
    assert_same_shape(a=torch.ones(2), b=None, c=torch.ones(2))


def test_division_keeps_the_totals_dtype() -> None:
    total = torch.tensor(3.0, dtype=torch.float32)
    assert divide(total, torch.tensor(2.0, dtype=torch.float64)).dtype == torch.float32
    assert_close(divide(total, 2.0), 1.5, tolerance=EXACT)
