"""The learned component: squashed calibrated scores, uncertainty taken off, NaN masked."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from modern_rlhf.errors import ConfigError, ModelError
from modern_rlhf.records import Prompt
from modern_rlhf.reward_model.settings import Prediction
from modern_rlhf.rewards.base import RewardBatch
from modern_rlhf.rewards.learned import LearnedReward


class FakeModel:
    """Gives a fixed prediction and records what it was asked."""

    def __init__(self, scores: list[float], uncertainty: list[float], ensemble: int = 3) -> None:
        self.settings = SimpleNamespace(ensemble=ensemble)
        self.prediction = Prediction(scores, uncertainty, {"correct": list(scores)})
        self.asked: Any = None

    def predict(self, prompts: list[str], responses: list[str], *, batch_size: int) -> Prediction:
        self.asked = (prompts, responses, batch_size)
        return self.prediction


def batch(size: int) -> RewardBatch:
    return RewardBatch([Prompt(f"p{i}") for i in range(size)], [f"r{i}" for i in range(size)])


def test_score_is_the_sigmoid_of_the_calibrated_score() -> None:
    model = FakeModel([0.0, 1.0, -1.0, 900.0, -900.0], [0.0] * 5)
    found = LearnedReward(model).score(batch(5))
    expected = [0.5, 1 / (1 + math.exp(-1)), 1 / (1 + math.e), 1.0, 0.0]
    assert found.total == pytest.approx(expected)
    assert found.components["human_preference"] == found.total
    assert found.details["score"] == [0.0, 1.0, -1.0, 900.0, -900.0]
    assert found.details["head/correct"] == found.details["score"]
    assert model.asked[0] == ["p0", "p1", "p2", "p3", "p4"] and model.asked[1][0] == "r0"


def test_uncertainty_is_taken_off_before_squashing() -> None:
    model = FakeModel([1.0, 1.0], [0.0, 2.0])
    found = LearnedReward(model, uncertainty_penalty=0.5, squash=False).score(batch(2))
    assert found.total == pytest.approx([1.0, 0.0])
    assert found.details["uncertainty"] == [0.0, 2.0]


def test_a_score_that_is_no_number_is_masked_never_zero() -> None:
    found = LearnedReward(FakeModel([float("nan"), 0.0], [0.0, 0.0])).score(batch(2))
    assert found.total == [None, 0.5]
    assert found.details["unscorable"] == [True, False]
    assert found.details["score"][0] is None  # JSON has no NaN


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError, match="uncertainty_penalty"):
        LearnedReward(FakeModel([], []), uncertainty_penalty=-1.0)
    with pytest.raises(ConfigError, match="uncertainty_penalty"):
        LearnedReward(FakeModel([], []), uncertainty_penalty=math.nan)
    with pytest.raises(ModelError, match="ensemble"):
        LearnedReward(FakeModel([], [], ensemble=1), uncertainty_penalty=0.1)
