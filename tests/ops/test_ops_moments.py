"""Running moments against all values at once, their state, and clipping."""

from __future__ import annotations

import json

import pytest
import torch
from helpers_numeric import EXACT, FLOAT64, assert_close, properties, randn
from hypothesis import given
from hypothesis import strategies as st

from modern_rlhf.errors import CheckpointError, TrainingError
from modern_rlhf.ops.moments import RunningMoments, clip


@properties
@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=6),
    offset=st.sampled_from([0.0, 100.0, -1e4]),
    unbiased=st.booleans(),
)
def test_batches_merge_to_the_moments_of_all_values(
    sizes: list[int], offset: float, unbiased: bool
) -> None:
    values = [offset + randn(n, seed=i) for i, n in enumerate(sizes)]
    moments = RunningMoments(unbiased=unbiased)
    for part in values:
        moments.update(part)
    everything = torch.cat(values)
    assert moments.count == len(everything)
    if len(everything) >= 1:
        assert_close(moments.mean, everything.mean(), tolerance=FLOAT64)
    if len(everything) >= 2:
        expected = everything.std(correction=int(unbiased))
        assert_close(moments.std, expected, tolerance=1e-8)


def test_the_first_value_is_not_scaled() -> None:
    moments = RunningMoments()
    assert moments.std == 1.0
    moments.update(torch.tensor([5.0]))
    assert moments.std == 1.0
    moments.update(torch.tensor([5.0, 5.0]))
    assert moments.std == 1.0  # equal values: dividing by 0 helps nobody


def test_state_survives_json_to_the_bit() -> None:
    moments = RunningMoments()
    moments.update(randn(37, seed=1) / 3)
    other = RunningMoments()
    other.load_state_dict(json.loads(json.dumps(moments.state_dict())))
    assert (other.count, other.mean, other.m2) == (moments.count, moments.mean, moments.m2)
    more = randn(5, seed=2)
    moments.update(more)
    other.update(more)
    assert other.std == moments.std


def test_bad_input_is_refused() -> None:
    moments = RunningMoments()
    with pytest.raises(TrainingError, match="NaN or infinity"):
        moments.update(torch.tensor([1.0, float("inf")]))
    assert moments.count == 0
    with pytest.raises(CheckpointError, match="count, mean and m2"):
        moments.load_state_dict({"mean": 1.0})


def test_clip() -> None:
    assert_close(clip(torch.tensor([-11.0, 3.0, 12.0]), 10.0), [-10.0, 3.0, 10.0], tolerance=EXACT)
    with pytest.raises(AssertionError, match="limit=0"):
        clip(torch.zeros(1), 0.0)
