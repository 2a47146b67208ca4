"""The composite: weights, renormalisation, unscorable samples, ablations, ranges, names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modern_rlhf.errors import ConfigError, SandboxError, TrainingError
from modern_rlhf.records import Prompt
from modern_rlhf.rewards.base import RewardBatch, RewardScores
from modern_rlhf.rewards.composite import CompositeReward
from modern_rlhf.rewards.functions import FunctionReward


class Fixed:
    """A component that gives what it was told."""

    def __init__(
        self,
        name: str,
        values: Sequence[float | None],
        details: dict[str, list[Any]] | None = None,
        parts: dict[str, list[float | None]] | None = None,
    ) -> None:
        self.name, self.values, self.details, self.parts = name, values, details or {}, parts or {}
        self.calls = self.closed = 0

    def score(self, batch: RewardBatch) -> RewardScores:
        self.calls += 1
        return RewardScores(
            list(self.values), {self.name: list(self.values), **self.parts}, self.details
        )

    def close(self) -> None:
        self.closed += 1


def batch(size: int) -> RewardBatch:
    return RewardBatch([Prompt(f"p{i}") for i in range(size)], [f"r{i}" for i in range(size)])


def test_total_is_the_weighted_sum() -> None:
    composite = CompositeReward(
        [
            (Fixed("syntax", [1.0, 0.0]), 0.2),
            (Fixed("execution", [0.5, 1.0]), 0.3),
            (Fixed("semantic", [0.2, 0.4]), 0.3),
            (Fixed("human_preference", [0.1, 0.9]), 0.2),
        ]
    )
    found = composite.score(batch(2))
    # .2*1 + .3*.5 + .3*.2 + .2*.1 = .43 and 0 + .3 + .12 + .18 = .6
    assert found.total == pytest.approx([0.43, 0.6])
    assert found.components["execution"] == [0.5, 1.0]
    assert found.details["missing"] == [[], []]
    assert found.details["applied_weight"] == pytest.approx([1.0, 1.0])
    assert found.details["unscorable"] == [False, False]


def test_weights_need_not_sum_to_one() -> None:
    found = CompositeReward([(Fixed("a", [1.0]), 2.0), (Fixed("b", [0.25]), 6.0)]).score(batch(1))
    assert found.total == pytest.approx([(2 * 1.0 + 6 * 0.25) / 8])


def test_a_missing_component_renormalises_and_is_counted() -> None:
    composite = CompositeReward([(Fixed("a", [None, 0.4]), 0.3), (Fixed("b", [0.9, 0.8]), 0.2)])
    found = composite.score(batch(2))
    # Sample 0 is b alone; a silent 0 for a would have given .36.
    assert found.total == pytest.approx([0.9, (0.3 * 0.4 + 0.2 * 0.8) / 0.5])
    assert found.details["missing"] == [["a"], []]
    assert found.details["applied_weight"] == pytest.approx([0.4, 1.0])
    assert found.components["a"] == [None, 0.4]


def test_missing_can_mean_unscorable_by_name() -> None:
    parts = [(Fixed("a", [None, 0.4]), 0.3), (Fixed("b", [0.9, 0.8]), 0.2)]
    found = CompositeReward(parts, missing="unscorable").score(batch(2))
    assert found.total == [None, pytest.approx(0.56)]
    assert found.details["unscorable"] == [True, False]


def test_nothing_applies_means_none() -> None:
    found = CompositeReward([(Fixed("a", [None]), 1.0)]).score(batch(1))
    assert found.total == [None] and found.details["applied_weight"] == [0.0]


def test_an_unscorable_sample_has_no_total_whatever_the_others_say() -> None:
    dead = Fixed(
        "execution", [None, 1.0], {"unscorable": [True, False], "verdict": ["infra", "pass"]}
    )
    found = CompositeReward([(dead, 0.3), (Fixed("syntax", [1.0, 1.0]), 0.7)]).score(batch(2))
    assert found.total == [None, 1.0]
    assert found.details["unscorable"] == [True, False]
    assert found.details["execution/verdict"] == ["infra", "pass"]


def test_weight_zero_is_not_run_unless_logged() -> None:
    off, on = Fixed("off", [None]), Fixed("on", [0.5])
    found = CompositeReward([(off, 0.0), (on, 1.0)]).score(batch(1))
    assert off.calls == 0 and "off" not in found.components and found.total == [0.5]

    logged = Fixed("off", [7.0], {"unscorable": [True]})
    found = CompositeReward([(logged, 0.0), (on, 1.0)], log_unweighted=True).score(batch(1))
    # Seen in the log, without any say: not its range, not its missing values, not its verdict.
    assert logged.calls == 1 and found.components["off"] == [7.0] and found.total == [0.5]
    assert found.details["missing"] == [[]]


def test_parts_and_details_carry_the_components_name() -> None:
    nested = Fixed("inner", [0.5], {"why": ["because"]}, {"half": [0.25]})
    found = CompositeReward([(nested, 1.0)]).score(batch(1))
    assert found.components == {"inner": [0.5], "inner/half": [0.25]}
    assert found.details["inner/why"] == ["because"]


def test_composites_nest() -> None:
    inner = CompositeReward(
        [(Fixed("a", [0.0, None]), 1.0), (Fixed("b", [1.0, 1.0]), 1.0)], name="in"
    )
    found = CompositeReward([(inner, 1.0), (Fixed("c", [0.0, 0.0]), 1.0)]).score(batch(2))
    assert found.total == pytest.approx([0.25, 0.5])
    assert found.components["in/a"] == [0.0, None]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CompositeReward([]), "positive weight"),
        (lambda: CompositeReward([(Fixed("a", []), 0.0)]), "positive weight"),
        (lambda: CompositeReward([(Fixed("a", []), -1.0)]), "'a'"),
        (lambda: CompositeReward([(Fixed("a", []), float("nan"))]), "'a'"),
        (lambda: CompositeReward([(Fixed("a", []), 1), (Fixed("a", []), 1)]), "different names"),
        (lambda: CompositeReward([(Fixed("a", []), 1)], missing="zero"), "missing"),
    ],
)
def test_settings_that_cannot_work_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize("value", [1.5, -0.2, float("nan")])
def test_a_component_out_of_its_range_stops_the_run(value: float) -> None:
    with pytest.raises(TrainingError, match="'a'.*0..1"):
        CompositeReward([(Fixed("a", [value]), 1.0)]).score(batch(1))


def test_wrong_lengths_stop_the_run() -> None:
    with pytest.raises(TrainingError, match="2 values of 'total' for 1"):
        CompositeReward([(Fixed("a", [0.5, 0.5]), 1.0)]).score(batch(1))
    with pytest.raises(TrainingError, match="'verdict'"):
        CompositeReward([(Fixed("a", [0.5], {"verdict": []}), 1.0)]).score(batch(1))


def test_close_reaches_every_component_once() -> None:
    class Broken(Fixed):
        def close(self) -> None:
            super().close()
            raise SandboxError("worker would not die")

    parts = [Broken("a", []), Fixed("b", [])]
    composite = CompositeReward([(part, 1.0) for part in parts])
    with pytest.raises(SandboxError):
        composite.close()
    composite.close()
    assert [part.closed for part in parts] == [1, 1]


value = st.one_of(st.none(), st.floats(0, 1))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(value, value, value), min_size=1, max_size=5),
    weights=st.tuples(*[st.floats(0.01, 5)] * 3),
    factor=st.floats(0.1, 10),
)
def test_total_stays_within_its_components_and_ignores_the_scale_of_weights(
    rows: list[tuple[float | None, ...]], weights: tuple[float, ...], factor: float
) -> None:
    def total(scale: float) -> list[float | None]:
        parts = [(Fixed(f"c{k}", [row[k] for row in rows]), scale * weights[k]) for k in range(3)]
        return CompositeReward(parts).score(batch(len(rows))).total

    for found, scaled, row in zip(total(1.0), total(factor), rows, strict=True):
        known = [v for v in row if v is not None]
        if not known:
            assert found is None and scaled is None
            continue
        assert found is not None
        assert min(known) - 1e-9 <= found <= max(known) + 1e-9
        assert scaled == pytest.approx(found, abs=1e-9)


def test_functions_get_the_columns_they_name() -> None:
    seen: dict[str, Any] = {}

    def by_name(prompts: list[str], responses: list[str], references: list[str]) -> list[float]:
        seen["references"] = references
        return [float(len(r)) for r in responses]

    def everything(prompts: list[str], responses: list[str], **columns: Any) -> list[float]:
        seen.update(columns)
        return [0.0] * len(prompts)

    def nothing(prompts: list[str], responses: list[str]) -> list[float]:
        return [1.0] * len(prompts)

    rows = RewardBatch([Prompt("p", reference="ref", group_id="g")], ["four"])
    assert FunctionReward(by_name).score(rows).total == [4.0]
    assert seen == {"references": ["ref"]}
    FunctionReward(everything).score(rows)
    assert seen == {"references": ["ref"], "tasks": [None], "group_ids": ["g"]}
    found = FunctionReward(nothing).score(rows)
    assert found.total == [1.0] and found.components == {"nothing": [1.0]}


def test_function_values_are_normalised_clipped_and_marked() -> None:
    reward = FunctionReward(lambda p, r: [-1.0, 0.0, 3.0, None], name="f", value_range=(-1, 1))
    found = reward.score(batch(4))
    assert found.total == [0.0, 0.5, 1.0, None]
    assert found.details["clipped"] == [False, False, True, False]


def test_function_values_of_numpy_and_torch_count_and_nan_is_unscorable() -> None:
    import numpy as np
    import torch

    assert FunctionReward(lambda p, r: np.array([0.5, 0.25])).score(batch(2)).total == [0.5, 0.25]
    assert FunctionReward(lambda p, r: torch.tensor([0.5, 1.0])).score(batch(2)).total == [0.5, 1.0]
    bad = FunctionReward(lambda p, r: [float("nan"), float("inf"), None, 0.5], name="bad")
    assert bad.score(batch(4)).total == [None, None, None, 0.5]
    # Beside another component: broken is no total at all, not applicable is the other one's alone.
    other = FunctionReward(lambda p, r: [1.0] * 4, name="other")
    assert CompositeReward([(bad, 0.9), (other, 0.1)]).score(batch(4)).total == [
        None, None, 1.0, pytest.approx(0.55),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ([1.0], "1 values for 2"),
        (None, "NoneType"),
        (["a", "b"], "'a'"),
        (3.0, "float"),
        (["0.5", "1"], "'0.5'"),  # text, though it spells numbers
        ("12", "str"),
        ({0.5: 1, 0.7: 2}, "dict"),
        ([10**400, 1.0], "response 0"),
        ([[1.0, 2.0], 1.0], "response 0"),
    ],
)
def test_functions_that_return_nonsense_are_named(returned: Any, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        FunctionReward(lambda p, r: returned, name="mine").score(batch(2))


def positional(prompts: list[str], responses: list[str], references: list[str], /) -> list[float]:
    return [0.0] * len(prompts)


def test_functions_that_cannot_be_called_are_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="callable"):
        FunctionReward(3)
    with pytest.raises(ConfigError, match="prompts, responses"):
        FunctionReward(lambda responses: [])
    with pytest.raises(ConfigError, match="answers"):
        FunctionReward(lambda p, r, *, answers: [])
    with pytest.raises(ConfigError, match="references"):
        FunctionReward(lambda p, references: [])
    with pytest.raises(ConfigError, match="references"):
        FunctionReward(positional)
    inf = float("inf")
    for empty in ((1, 1), (0, inf), (-inf, 0), (float("nan"), 1)):
        with pytest.raises(ConfigError, match="value_range"):
            FunctionReward(lambda p, r: [], value_range=empty)
