"""The learned human preference as a reward: the reward model's calibrated score, squashed to 0..1.

Range: `sigmoid(score)` lies in 0..1 and is 0.5 at the mean of the calibration samples, about 0.27 and
0.73 one standard deviation away; with `squash=False` the calibrated score itself (any real number) is
given, for use alone. The model always scores in eval mode and without gradients (D11), with its own
tokenizer, on decoded text (D39).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from modern_rlhf.errors import ConfigError, ModelError
from modern_rlhf.rewards.base import RewardBatch, RewardScores

if TYPE_CHECKING:
    from modern_rlhf.reward_model.model import CustomRewardModel


class LearnedReward:
    """A `CustomRewardModel` as a component of the reward.

    Args:
        model: the reward model; it is not trained here and stays frozen.
        uncertainty_penalty: times the ensemble's disagreement is taken off the score before squashing,
            so that answers the members disagree about are not sought after.
        squash: see the module docstring.
        batch_size: pairs the backbone sees at a time.

    Details logged for every sample: `score` (calibrated), `uncertainty`, and each head's value as
    `head/<name>`.

    Raises:
        ConfigError: a penalty that is no number of 0 or more.
        ModelError: a penalty for a model whose ensemble has one member.
    """

    def __init__(
        self,
        model: CustomRewardModel,
        *,
        uncertainty_penalty: float = 0.0,
        squash: bool = True,
        name: str = "human_preference",
        batch_size: int = 32,
    ) -> None:
        if not (math.isfinite(uncertainty_penalty) and uncertainty_penalty >= 0):
            raise ConfigError(f"uncertainty_penalty={uncertainty_penalty}: expected 0 or more")
        if uncertainty_penalty and model.settings.ensemble < 2:
            raise ModelError(
                "uncertainty_penalty needs a reward model with an ensemble of heads (ensemble >= 2); "
                "this one has a single member, which never disagrees with itself"
            )
        self.name = name
        self.model = model
        self.uncertainty_penalty = uncertainty_penalty
        self.squash = squash
        self.batch_size = batch_size

    def score(self, batch: RewardBatch) -> RewardScores:
        """B rewards. A score that is not finite becomes None: it is masked, never a 0 (D38)."""
        found = self.model.predict(
            [prompt.prompt for prompt in batch.prompts],
            list(batch.responses),
            batch_size=self.batch_size,
        )
        total: list[float | None] = []
        for score, uncertainty in zip(found.scores, found.uncertainty, strict=True):
            value = score - self.uncertainty_penalty * uncertainty
            if not math.isfinite(value):
                total.append(None)
            else:
                total.append(_sigmoid(value) if self.squash else value)
        details: dict[str, list[Any]] = {
            "score": [_json_number(value) for value in found.scores],
            "unscorable": [value is None for value in total],
        }
        if self.model.settings.ensemble > 1:
            details["uncertainty"] = [_json_number(value) for value in found.uncertainty]
        for name, values in found.heads.items():
            details[f"head/{name}"] = [_json_number(value) for value in values]
        return RewardScores(total, {self.name: list(total)}, details)

    def close(self) -> None:
        """Nothing to free."""


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))


def _json_number(value: float) -> float | None:
    """JSON has no NaN: such a value is logged as null."""
    return value if math.isfinite(value) else None
