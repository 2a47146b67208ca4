"""A plain Python function as a reward: `(prompts, responses, **columns) -> list[float]`.

The function gets the columns it names, each aligned with the responses: `references` (texts or None),
`tasks` (`records.Task` or None) and `group_ids`; with `**columns` it gets all of them. It may return
None for a sample it can't judge. Range: what the function returns, or 0..1 when `value_range` is given.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from modern_rlhf.errors import ConfigError, TrainingError
from modern_rlhf.rewards.base import RewardBatch, RewardScores

COLUMNS = ("references", "tasks", "group_ids")

RewardFunction = Callable[..., Sequence[float | None]]


class FunctionReward:
    """Wraps a function as a `Reward`.

    Args:
        fn: see the module docstring.
        name: of the component; default the function's own.
        value_range: lowest and highest value the function can return; its values are then mapped
            linearly to 0..1, and values outside are clipped and marked in the details. A composite
            needs this unless the function returns 0..1 itself.

    Raises:
        ConfigError: `fn` can't be called with prompts and responses, or the range is empty.
    """

    def __init__(
        self,
        fn: RewardFunction,
        *,
        name: str | None = None,
        value_range: tuple[float, float] | None = None,
    ) -> None:
        if not callable(fn):
            raise ConfigError(f"a reward function must be callable, not {type(fn).__name__}")
        if value_range is not None and not -math.inf < value_range[0] < value_range[1] < math.inf:
            raise ConfigError(
                f"value_range={value_range}: expected (low, high), two numbers with low < high"
            )
        self.fn = fn
        self.name: str = name or str(getattr(fn, "__name__", type(fn).__name__))
        self.value_range = value_range
        self.columns = accepted_columns(fn, self.name)

    def score(self, batch: RewardBatch) -> RewardScores:
        """B rewards; None where the function returned None (it does not apply) or a number that is not
        finite (such samples are marked `unscorable`).

        Raises:
            TrainingError: the function returned something other than B numbers; what it raises itself
                is not caught.
        """
        offered: dict[str, list[Any]] = {
            "references": [prompt.reference for prompt in batch.prompts],
            "tasks": [prompt.task for prompt in batch.prompts],
            "group_ids": [prompt.group_id for prompt in batch.prompts],
        }
        returned = self.fn(
            [prompt.prompt for prompt in batch.prompts],
            list(batch.responses),
            **{name: offered[name] for name in self.columns},
        )
        values, broken = self._checked(returned, len(batch))
        clipped = [False] * len(values)
        if self.value_range is not None:
            low, high = self.value_range
            clipped = [value is not None and not low <= value <= high for value in values]
            values = [
                None if value is None else min(1.0, max(0.0, (value - low) / (high - low)))
                for value in values
            ]
        details: dict[str, list[Any]] = {"unscorable": broken}
        if self.value_range is not None:
            details["clipped"] = clipped
        return RewardScores(values, {self.name: list(values)}, details)

    def close(self) -> None:
        """Nothing to free."""

    def _checked(self, returned: Any, expected: int) -> tuple[list[float | None], list[bool]]:
        try:
            if isinstance(returned, (str, bytes, Mapping)):  # they iterate, but over no rewards
                raise TypeError
            values = list(returned)
        except TypeError:
            raise TrainingError(
                f"reward function {self.name!r} returned {type(returned).__name__}; expected a list of "
                f"{expected} numbers"
            ) from None
        if len(values) != expected:
            raise TrainingError(
                f"reward function {self.name!r} returned {len(values)} values for {expected} responses"
            )
        checked: list[float | None] = []
        broken: list[bool] = []
        for i, value in enumerate(values):
            # numpy and torch scalars know how to become a float; so does text, which is no reward.
            if value is not None:
                try:
                    if isinstance(value, (str, bytes)):
                        raise TypeError
                    value = float(value)
                except (TypeError, ValueError, OverflowError):
                    raise TrainingError(
                        f"reward function {self.name!r} returned {value!r:.80} for response {i}; "
                        "expected a number or None"
                    ) from None
            broken.append(value is not None and not math.isfinite(value))
            checked.append(None if broken[-1] else value)
        return checked, broken


def accepted_columns(fn: RewardFunction, name: str) -> tuple[str, ...]:
    """Which of `COLUMNS` the function takes."""
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):  # builtins may have no signature
        return ()
    kinds = inspect.Parameter
    positional = [
        p for p in parameters if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)
    ]
    takes_rest = any(p.kind is kinds.VAR_POSITIONAL for p in parameters)
    if len(positional) < 2 and not takes_rest:
        raise ConfigError(
            f"reward function {name!r} must take (prompts, responses, **columns); it takes "
            f"{inspect.signature(fn)}"
        )
    named = {
        p.name for p in parameters if p.kind in (kinds.KEYWORD_ONLY, kinds.POSITIONAL_OR_KEYWORD)
    }
    unknown = [
        p.name
        for p in parameters
        if p.default is kinds.empty
        and (p.name not in COLUMNS or p.kind is kinds.POSITIONAL_ONLY)
        and (p.kind is kinds.KEYWORD_ONLY or p in positional[2:])
    ]
    taken = [p.name for p in positional[:2] if p.name in COLUMNS]
    if taken:
        raise ConfigError(
            f"reward function {name!r} calls its first two arguments {[p.name for p in positional[:2]]}; "
            f"they are the prompts and the responses, and {taken[0]!r} is a column"
        )
    if unknown:
        raise ConfigError(
            f"reward function {name!r} wants {unknown}; the columns offered are {list(COLUMNS)}"
        )
    if any(p.kind is kinds.VAR_KEYWORD for p in parameters):
        return COLUMNS
    return tuple(column for column in COLUMNS if column in named)
