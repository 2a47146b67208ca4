"""The composite reward: a weighted mean of named components, each in 0..1.

    total_i = sum of w_c * value_c(i) / sum of w_c,   over the components c that apply to sample i

* A component that gives None does not apply to that sample (no tests, no reference): the weights of the
  others are renormalised, and the sample's details say what was missing and how much weight applied.
  With `missing="unscorable"` such a sample has no total instead. A missing component is never a 0.
* A sample that a component marks in `details["unscorable"]` (the executor died, a score was NaN) has no
  total at all, whatever the others say (D38).
* A component of weight 0 is not run (ablation), unless `log_unweighted` asks to see it all the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from modern_rlhf.errors import ConfigError, ModernRLHFError, TrainingError
from modern_rlhf.rewards.base import Reward, RewardBatch, RewardScores

MissingRule = Literal["renormalise", "unscorable"]
UNSCORABLE = "unscorable"
_SLACK = 1e-6  # rounding of a component's own arithmetic, not a different range


class CompositeReward:
    """See the module docstring.

    `score` returns the total, every component under its name (its own parts as `<component>/<part>`),
    and as details, for every sample, `<component>/<detail>`, `missing` (names of weighted components
    that did not apply), `applied_weight` (share of the weight that did) and `unscorable`.

    Args:
        components: rewards and their weights, 0 or more. Names must differ.
        missing: what a component that gives None means for the total.
        log_unweighted: run components of weight 0 too; they are logged and never counted.

    Raises:
        ConfigError: no positive weight, a negative or non-finite one, or two components of one name.
    """

    def __init__(
        self,
        components: Sequence[tuple[Reward, float]],
        *,
        missing: MissingRule = "renormalise",
        log_unweighted: bool = False,
        name: str = "composite",
    ) -> None:
        if missing not in ("renormalise", "unscorable"):
            raise ConfigError(f"missing={missing!r}: expected 'renormalise' or 'unscorable'")
        names = [reward.name for reward, _ in components]
        if len(set(names)) != len(names):
            raise ConfigError(f"components of the composite reward need different names: {names}")
        for reward, weight in components:
            if not (math.isfinite(weight) and weight >= 0):
                raise ConfigError(f"weight of {reward.name!r} is {weight}: expected 0 or more")
        if not any(weight > 0 for _, weight in components):
            raise ConfigError(
                "the composite reward needs at least one component of positive weight"
            )
        self.name = name
        self.missing = missing
        self.components = tuple(components)
        self.log_unweighted = log_unweighted
        self._closed = False

    @property
    def weights(self) -> dict[str, float]:
        """Weight of every component by name, as given."""
        return {reward.name: weight for reward, weight in self.components}

    def score(self, batch: RewardBatch) -> RewardScores:
        """B totals with all parts.

        Raises:
            TrainingError: a weighted component left 0..1 or returned another number of scores.
        """
        size = len(batch)
        parts: dict[str, list[float | None]] = {}
        details: dict[str, list[Any]] = {}
        values: list[tuple[str, float, list[float | None]]] = []
        unscorable = [False] * size
        for reward, weight in self.components:
            if weight == 0 and not self.log_unweighted:
                continue
            found = reward.score(batch)
            _check(reward.name, found, size, in_range=weight > 0)
            parts[reward.name] = list(found.total)
            for name, column in found.components.items():
                if name != reward.name:
                    parts[f"{reward.name}/{name}"] = list(column)
            for name, column in found.details.items():
                details[f"{reward.name}/{name}"] = list(column)
            if weight > 0:
                values.append((reward.name, weight, list(found.total)))
                marks = found.details.get(UNSCORABLE, [False] * size)
                unscorable = [a or bool(mark) for a, mark in zip(unscorable, marks, strict=True)]
        whole = sum(weight for _, weight, _ in values)
        totals: list[float | None] = []
        details["missing"] = [[name for name, _, v in values if v[i] is None] for i in range(size)]
        details["applied_weight"] = []
        for i in range(size):
            applying = [(weight, v[i]) for _, weight, v in values]
            applied = sum(weight for weight, value in applying if value is not None)
            details["applied_weight"].append(applied / whole)
            refused = self.missing == "unscorable" and applied < whole
            if unscorable[i] or applied == 0 or refused:
                totals.append(None)
                continue
            summed = sum(weight * value for weight, value in applying if value is not None)
            totals.append(summed / applied)
        details[UNSCORABLE] = [total is None for total in totals]
        return RewardScores(totals, parts, details)

    def close(self) -> None:
        """Close every component once, even when one of them fails; the first failure is raised."""
        if self._closed:
            return
        self._closed = True
        failures: list[ModernRLHFError | OSError] = []
        for reward, _ in self.components:
            try:
                reward.close()
            except (ModernRLHFError, OSError) as error:
                failures.append(error)
        if failures:
            raise failures[0]


def _check(name: str, found: RewardScores, size: int, *, in_range: bool) -> None:
    columns = {"total": found.total, **found.components, **found.details}
    for what, column in columns.items():
        if len(column) != size:
            raise TrainingError(
                f"reward component {name!r} returned {len(column)} values of {what!r} for {size} responses"
            )
    if not in_range:
        return
    for value in found.total:
        if value is not None and not -_SLACK <= value <= 1.0 + _SLACK:
            raise TrainingError(
                f"reward component {name!r} gave {value}; a component of the composite must stay in "
                "0..1: normalise it (FunctionReward has value_range, LearnedReward has squash)"
            )
