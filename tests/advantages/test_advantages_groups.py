"""Leave-one-out, group-relative and moving-average advantages."""

from __future__ import annotations

import math

import pytest
import torch
from helpers_numeric import EXACT, FLOAT64, assert_close, properties, randn
from hypothesis import given
from hypothesis import strategies as st

from modern_rlhf.advantages import group_advantages, leave_one_out, moving_average_baseline
from modern_rlhf.errors import ConfigError

NAN = float("nan")
KINDS = ["grpo", "dr_grpo", "dapo"]
SHAPES = st.tuples(st.integers(1, 4), st.integers(2, 6))


def test_leave_one_out_by_hand() -> None:
    # 1 - (2+6)/2 = -3; 2 - (1+6)/2 = -1.5; 6 - (1+2)/2 = 4.5
    scores = torch.tensor([[1.0, 2.0, 6.0]])
    assert_close(leave_one_out(scores), [[-3.0, -1.5, 4.5]], tolerance=1e-6)


@properties
@given(shape=SHAPES, seed=st.integers(0, 999))
def test_leave_one_out_is_the_definition_and_the_closed_form(
    shape: tuple[int, int], seed: int
) -> None:
    scores = randn(*shape, seed=seed)
    advantages = leave_one_out(scores)
    k = shape[1]
    for p, row in enumerate(scores.tolist()):
        for i, score in enumerate(row):
            others = [other for j, other in enumerate(row) if j != i]
            assert_close(advantages[p, i], score - sum(others) / len(others), tolerance=FLOAT64)
            closed = k / (k - 1) * (score - sum(row) / k)
            assert_close(advantages[p, i], closed, tolerance=FLOAT64)
    assert_close(advantages.sum(1), torch.zeros(shape[0]), tolerance=FLOAT64)


def test_group_advantages_by_hand() -> None:
    # mean 3, deviations -2 -1 3, unbiased variance (4 + 1 + 9)/2 = 7
    scores = torch.tensor([[1.0, 2.0, 6.0]], dtype=torch.float64)
    centred = torch.tensor([[-2.0, -1.0, 3.0]], dtype=torch.float64)
    assert_close(group_advantages(scores, kind="dr_grpo"), centred, tolerance=EXACT)
    for kind in ("grpo", "dapo"):
        ours = group_advantages(scores, kind=kind, eps=0.25)
        assert_close(ours, centred / (math.sqrt(7.0) + 0.25), tolerance=FLOAT64)


def functions() -> dict:
    return {
        "rloo": leave_one_out,
        **{
            kind: (lambda s, v=None, kind=kind: group_advantages(s, kind=kind, valid=v))
            for kind in KINDS
        },
    }


@properties
@given(
    shape=SHAPES,
    constant=st.sampled_from([1.0, -3.5, 1000.0]),
    name=st.sampled_from(["rloo", *KINDS]),
    seed=st.integers(0, 999),
)
def test_adding_a_constant_to_all_rewards_changes_nothing(
    shape: tuple[int, int], constant: float, name: str, seed: int
) -> None:
    scores = randn(*shape, seed=seed)
    function = functions()[name]
    assert_close(function(scores + constant), function(scores), tolerance=1e-8)


@properties
@given(
    value=st.floats(-1e6, 1e6, width=32),
    size=st.integers(1, 9),
    name=st.sampled_from(["rloo", *KINDS]),
)
def test_equal_scores_give_exact_zeros(value: float, size: int, name: str) -> None:
    scores = torch.full((2, size), value, dtype=torch.float32)
    assert_close(functions()[name](scores), torch.zeros(2, size), tolerance=EXACT)


@pytest.mark.parametrize("name", ["rloo", *KINDS])
def test_samples_may_be_permuted(name: str) -> None:
    scores = randn(2, 5, seed=1)
    order = torch.tensor([3, 1, 4, 0, 2])
    function = functions()[name]
    assert_close(function(scores[:, order]), function(scores)[:, order], tolerance=FLOAT64)


@pytest.mark.parametrize("name", ["rloo", *KINDS])
@pytest.mark.parametrize("dead", [NAN, 0.0, -1e9])
def test_unscorable_samples_are_left_out(name: str, dead: float) -> None:
    function = functions()[name]
    scores = torch.tensor([[1.0, dead, 2.0, 6.0]], dtype=torch.float64)
    valid = torch.tensor([[True, False, True, True]])
    advantages = function(scores, valid)
    alone = function(scores[:, [0, 2, 3]])
    assert_close(advantages[:, [0, 2, 3]], alone, tolerance=FLOAT64)
    assert_close(advantages[:, 1], [0.0], tolerance=EXACT)


@pytest.mark.parametrize("name", ["rloo", *KINDS])
def test_a_dead_executor_pushes_nothing(name: str) -> None:
    function = functions()[name]
    scores = torch.full((2, 4), NAN)
    none = torch.zeros(2, 4, dtype=torch.bool)
    assert_close(function(scores, none), torch.zeros(2, 4), tolerance=EXACT)
    # one scorable sample has nothing to be compared with
    one = none.clone()
    one[:, 2] = True
    scores[:, 2] = 3.0
    assert_close(function(scores, one), torch.zeros(2, 4), tolerance=EXACT)


def test_group_scores_need_two_dimensions_and_a_known_kind() -> None:
    with pytest.raises(AssertionError, match="prompts, samples"):
        leave_one_out(torch.zeros(4))
    with pytest.raises(ConfigError, match="'gspo'"):
        group_advantages(torch.zeros(1, 2), kind="gspo")  # type: ignore[arg-type]


def test_moving_average_closed_form() -> None:
    # b_0 = mean of the first batch; b_n = .9 b_{n-1} + .1 mean_n; advantages use the *earlier* b
    batches = [torch.tensor([1.0, 3.0]), torch.tensor([4.0, 6.0]), torch.tensor([0.0, 2.0])]
    first, baseline = moving_average_baseline(batches[0], baseline=None, decay=0.9)
    assert_close(first, [-2.0, 2.0], tolerance=EXACT)  # each against the other
    assert_close(baseline, 2.0, tolerance=EXACT)
    second, baseline = moving_average_baseline(batches[1], baseline=baseline, decay=0.9)
    assert_close(second, [2.0, 4.0], tolerance=EXACT)
    assert_close(baseline, 0.9 * 2.0 + 0.1 * 5.0, tolerance=1e-6)
    third, baseline = moving_average_baseline(batches[2], baseline=float(baseline), decay=0.9)
    assert_close(third, [-2.3, -0.3], tolerance=1e-6)
    assert_close(baseline, 0.9 * 2.3 + 0.1 * 1.0, tolerance=1e-6)


def test_the_mean_of_all_past_rewards_is_a_growing_decay() -> None:
    batches = randn(6, 4, seed=2)
    baseline = None
    for s, batch in enumerate(batches):
        _, baseline = moving_average_baseline(batch, baseline=baseline, decay=s / (s + 1))
    assert_close(baseline, batches.mean(), tolerance=FLOAT64)


def test_moving_average_leaves_unscorable_samples_out() -> None:
    scores, valid = torch.tensor([1.0, NAN, 3.0]), torch.tensor([True, False, True])
    advantages, baseline = moving_average_baseline(scores, baseline=1.0, decay=0.5, valid=valid)
    assert_close(advantages, [0.0, 0.0, 2.0], tolerance=EXACT)
    assert_close(baseline, 1.5, tolerance=EXACT)
    nothing = torch.zeros(3, dtype=torch.bool)
    advantages, kept = moving_average_baseline(scores, baseline=1.5, decay=0.5, valid=nothing)
    assert_close(advantages, [0.0, 0.0, 0.0], tolerance=EXACT)
    assert kept == 1.5
    _, kept = moving_average_baseline(scores, baseline=None, decay=0.5, valid=nothing)
    assert kept is None


def test_a_decay_outside_its_range_is_refused() -> None:
    for decay in (-0.1, 1.0):
        with pytest.raises(ConfigError, match=f"decay={decay}"):
            moving_average_baseline(torch.zeros(2), baseline=None, decay=decay)
