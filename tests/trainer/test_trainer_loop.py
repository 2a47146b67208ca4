"""The shared pieces of every loop: what is sampled when, rates, splits, sums."""

from __future__ import annotations

import pytest
import torch

from modern_rlhf.errors import TrainingError
from modern_rlhf.trainer.loop import (
    EpochSampler,
    MetricSums,
    check_finite,
    linear_schedule,
    micro_batches,
)
from modern_rlhf.trainer.runtime import Runtime


def test_every_item_once_an_epoch_in_a_fresh_order() -> None:
    sampler = EpochSampler(7, seed=3)
    first, second = sampler.take(0, 7), sampler.take(7, 7)
    assert sorted(first) == sorted(second) == list(range(7))
    assert first != second


def test_the_stream_depends_on_seed_and_cursor_only() -> None:
    whole = EpochSampler(5, seed=1).take(0, 23)
    pieces = [i for start in range(0, 23, 4) for i in EpochSampler(5, seed=1).take(start, 4)]
    assert pieces[:23] == whole
    assert EpochSampler(5, seed=2).take(0, 23) != whole


def test_an_empty_source_is_refused() -> None:
    with pytest.raises(TrainingError):
        EpochSampler(0, seed=0)


def test_the_rate_warms_up_and_ends_near_zero() -> None:
    rates = [linear_schedule(step, total=10, warmup=2) for step in range(11)]
    # 1/3, 2/3, then 8/8, 7/8, ... 1/8; step 10 would be 0 (D6)
    assert rates[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert rates[9] == pytest.approx(1 / 8) and rates[10] == 0
    assert all(a > b for a, b in zip(rates[2:], rates[3:], strict=False))


def test_micro_batches_keep_the_token_budget_and_lose_nothing() -> None:
    lengths = [3, 50, 7, 9, 120, 4, 8, 33]
    rows = [0, 2, 3, 4, 5, 7]
    groups = micro_batches(rows, lengths, max_tokens=64)
    assert sorted(i for group in groups for i in group) == rows
    for group in groups:
        assert len(group) == 1 or len(group) * max(lengths[i] for i in group) <= 64


def test_metric_sums_add_up() -> None:
    sums = MetricSums()
    sums.add({"a": torch.tensor(1.0), "b": torch.tensor(2.0)})
    sums.add({"a": torch.tensor(0.5)}, scale=2.0)
    assert sums.result(Runtime()) == {"a": 2.0, "b": 2.0}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_with_one_line(value: float) -> None:
    with pytest.raises(TrainingError, match="the loss is .* at step 3; lower it"):
        check_finite(value, what="the loss", step=3, remedy="lower it")
