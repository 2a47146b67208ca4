"""Every preference loss against its formula in Python floats, and the invariants of the family."""

from __future__ import annotations

import math

import pytest
import torch
from helpers_numeric import EXACT, FLOAT64, assert_close, gradients, properties, randn
from hypothesis import given
from hypothesis import strategies as st

from modern_rlhf.config.training import DPO_LOSSES, SMOOTHED_LOSSES
from modern_rlhf.errors import ConfigError
from modern_rlhf.losses.preference import KINDS, ipo_loss, orpo_loss, preference_loss

BETA = 0.3
LENGTHS = {"chosen_lengths": [3, 5, 1, 4], "rejected_lengths": [2, 7, 4, 4]}
SMOOTHING = {"sigmoid": 0.1, "robust": 0.1}


def pairs(seed: int, scale: float = 1.0, requires: str = "") -> dict[str, torch.Tensor]:
    """Four pairs: summed log-probabilities, all negative, and lengths."""
    names = ("policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected")
    tensors = {n: -2.0 - scale * randn(4, seed=seed + i).abs() for i, n in enumerate(names)}
    return {**tensors, **{n: torch.tensor(v) for n, v in LENGTHS.items()}}


def s(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


def formula(kind: str, pc: float, pr: float, rc: float, rr: float, nc: int, nr: int) -> float:
    """The table of the module docstring, one pair, Python floats."""
    lc, lr = pc - rc, pr - rr
    h, e = lc - lr, SMOOTHING.get(kind, 0.0)

    def log_odds(mean: float) -> float:
        return mean - math.log(1.0 - math.exp(mean))

    return {
        "sigmoid": lambda: -(1 - e) * math.log(s(BETA * h)) - e * math.log(s(-BETA * h)),
        "ipo": lambda: (lc / nc - lr / nr - 1 / (2 * BETA)) ** 2,
        "hinge": lambda: max(0.0, 1 - BETA * h),
        "robust": lambda: (
            (-(1 - e) * math.log(s(BETA * h)) + e * math.log(s(-BETA * h))) / (1 - 2 * e)
        ),
        "simpo": lambda: -math.log(s(BETA * (pc / nc - pr / nr) - 0.7)),
        "orpo": lambda: -BETA * math.log(s(log_odds(pc / nc) - log_odds(pr / nr))),
        "nca": lambda: (
            -math.log(s(BETA * lc)) - 0.5 * math.log(s(-BETA * lc)) - 0.5 * math.log(s(-BETA * lr))
        ),
        "apo_zero": lambda: 1 - s(BETA * lc) + s(BETA * lr),
    }[kind]()


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("weighted", [False, True])
def test_every_kind_equals_its_formula(kind: str, weighted: bool) -> None:
    data = pairs(seed=0)
    weights = torch.tensor([1.0, 0.0, 2.0, 0.5]) if weighted else None
    loss, _ = preference_loss(
        kind=kind,
        **data,
        beta=BETA,
        label_smoothing=SMOOTHING.get(kind, 0.0),
        simpo_gamma=0.7,
        weights=weights,
    )
    rows = zip(*(data[n].tolist() for n in data), strict=True)
    losses = [formula(kind, *row) for row in rows]
    w = [1.0] * 4 if weights is None else weights.tolist()
    expected = sum(a * b for a, b in zip(w, losses, strict=True)) / sum(w)
    assert_close(loss, expected, tolerance=FLOAT64)


def test_policy_equal_to_the_reference_gives_ln_two() -> None:
    data = pairs(seed=1)
    data["reference_chosen"], data["reference_rejected"] = (
        data["policy_chosen"],
        data["policy_rejected"],
    )
    for smoothing in (0.0, 0.2):
        loss, metrics = preference_loss(kind="sigmoid", **data, beta=0.1, label_smoothing=smoothing)
        assert_close(loss, math.log(2.0), tolerance=FLOAT64)
        assert_close(metrics["rewards_margin"], 0.0, tolerance=EXACT)


@properties
@given(seed=st.integers(0, 999), kind=st.sampled_from(list(KINDS)))
def test_swapping_chosen_and_rejected_negates_the_margin(seed: int, kind: str) -> None:
    data = pairs(seed=seed)
    swapped = {
        name.replace("chosen", "?").replace("rejected", "chosen").replace("?", "rejected"): t
        for name, t in data.items()
    }
    _, metrics = preference_loss(kind=kind, **data, beta=BETA)
    _, mirrored = preference_loss(kind=kind, **swapped, beta=BETA)
    assert_close(metrics["rewards_margin"], -mirrored["rewards_margin"], tolerance=FLOAT64)
    assert_close(metrics["rewards_chosen"], mirrored["rewards_rejected"], tolerance=FLOAT64)


@pytest.mark.parametrize("beta", [0.05, 0.1, 1.0])
def test_ipo_is_least_at_one_over_two_beta(beta: float) -> None:
    best = torch.tensor([1.0 / (2.0 * beta)], dtype=torch.float64)
    assert_close(ipo_loss(mean_margin=best, beta=beta), [0.0], tolerance=EXACT)
    (gradient,) = gradients(lambda m: ipo_loss(mean_margin=m, beta=beta).sum(), best)
    assert_close(gradient, [0.0], tolerance=EXACT)
    for step in (-0.01, 0.01):
        assert float(ipo_loss(mean_margin=best + step, beta=beta)) > 0


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_raises_the_chosen_response(kind: str) -> None:
    data = pairs(seed=3, scale=0.3)
    static = {k: v for k, v in data.items() if not k.startswith("policy")}

    def loss(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
        return preference_loss(
            kind=kind, policy_chosen=chosen, policy_rejected=rejected, **static, beta=0.1
        )[0]

    up, down = gradients(loss, data["policy_chosen"], data["policy_rejected"])
    assert bool((up < 0).all()), "descending must raise the chosen log-probability"
    assert bool((down > 0).all())


@pytest.mark.parametrize("kind", list(KINDS))
def test_no_gradient_reaches_the_reference_and_extremes_stay_finite(kind: str) -> None:
    data = pairs(seed=4)
    for name in ("policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected"):
        data[name] = data[name].clone().requires_grad_()
    loss, _ = preference_loss(kind=kind, **data, beta=BETA)
    loss.backward()
    assert data["reference_chosen"].grad is None and data["reference_rejected"].grad is None
    extreme = pairs(seed=5)
    extreme["policy_chosen"] = torch.tensor([-1e4, 0.0, -1e-9, -5.0], dtype=torch.float64)

    def of(chosen: torch.Tensor) -> torch.Tensor:
        return preference_loss(kind=kind, **{**extreme, "policy_chosen": chosen}, beta=BETA)[0]

    assert bool(torch.isfinite(of(extreme["policy_chosen"])))
    assert bool(torch.isfinite(gradients(of, extreme["policy_chosen"])[0]).all())


@pytest.mark.parametrize("kind", list(KINDS))
def test_length_normalisation_is_what_the_table_says(kind: str) -> None:
    data = pairs(seed=6)
    longer = {**data, "chosen_lengths": 2 * data["chosen_lengths"]}
    loss, _ = preference_loss(kind=kind, **data, beta=BETA)
    other, _ = preference_loss(kind=kind, **longer, beta=BETA)
    normalised = kind in {"ipo", "simpo", "orpo"}
    assert (abs(float(loss) - float(other)) > 1e-6) == normalised
    assert KINDS[kind].length_normalised == normalised


@pytest.mark.parametrize("kind", list(KINDS))
def test_micro_batches_add_up(kind: str) -> None:
    data, weights = pairs(seed=7), torch.tensor([1.0, 3.0, 0.5, 2.0], dtype=torch.float64)
    whole, whole_metrics = preference_loss(kind=kind, **data, beta=BETA, weights=weights)
    parts = [
        preference_loss(
            kind=kind,
            **{n: t[i : i + 1] for n, t in data.items()},
            beta=BETA,
            weights=weights[i : i + 1],
            denominator=weights.sum(),
        )
        for i in range(4)
    ]
    assert_close(sum(loss for loss, _ in parts), whole, tolerance=FLOAT64)
    for name, value in whole_metrics.items():
        assert_close(sum(m[name] for _, m in parts), value, tolerance=FLOAT64, what=name)


def test_metrics_by_hand() -> None:
    loss, metrics = preference_loss(
        kind="sigmoid",
        policy_chosen=torch.tensor([-1.0, -4.0]),
        policy_rejected=torch.tensor([-3.0, -2.0]),
        reference_chosen=torch.tensor([-2.0, -2.0]),
        reference_rejected=torch.tensor([-2.0, -2.0]),
        chosen_lengths=torch.tensor([2, 2]),
        rejected_lengths=torch.tensor([2, 2]),
        beta=0.5,
    )
    # log-ratios 1, -2 and -1, 0; times .5: chosen .5, -1; rejected -.5, 0
    expected = {
        "rewards_chosen": -0.25,
        "rewards_rejected": -0.25,
        "rewards_margin": 0.0,
        "rewards_accuracy": 0.5,
        "log_probs_chosen": -2.5,
        "log_probs_rejected": -2.5,
    }
    assert set(metrics) == set(expected)
    for name, value in expected.items():
        assert_close(metrics[name], value, tolerance=1e-6, what=name)
    assert not any(m.requires_grad for m in metrics.values()) and loss.ndim == 0


def test_orpo_at_certainty_is_finite() -> None:
    # p = 1 has infinite odds; as the rejected response it would cost infinitely much
    for chosen, rejected in ((0.0, -1.0), (-1.0, 0.0), (0.0, 0.0)):
        pair = torch.tensor([chosen]), torch.tensor([rejected])
        loss = orpo_loss(mean_chosen=pair[0], mean_rejected=pair[1], beta=1.0)
        assert bool(torch.isfinite(loss).all())
        for gradient in gradients(
            lambda c, r: orpo_loss(mean_chosen=c, mean_rejected=r, beta=1.0).sum(), *pair
        ):
            assert bool(torch.isfinite(gradient).all())


def test_the_configuration_knows_the_kinds() -> None:
    assert tuple(KINDS) == DPO_LOSSES
    assert {kind for kind in KINDS if KINDS[kind].smooths_labels} == set(SMOOTHED_LOSSES)


def test_misuse_is_refused_by_name() -> None:
    data = pairs(seed=8)
    with pytest.raises(ConfigError, match="'sppo'.*apo_zero"):
        preference_loss(kind="sppo", **data, beta=0.1)  # type: ignore[arg-type]
    without = {k: v for k, v in data.items() if not k.startswith("reference")}
    with pytest.raises(ConfigError, match="'hinge' needs the reference"):
        preference_loss(kind="hinge", **without, beta=0.1)
    for kind in ("simpo", "orpo"):
        assert not KINDS[kind].needs_reference
        preference_loss(kind=kind, **without, beta=0.1)
    with pytest.raises(ConfigError, match="label_smoothing=0.1 has no meaning.*'ipo'"):
        preference_loss(kind="ipo", **data, beta=0.1, label_smoothing=0.1)
    with pytest.raises(ConfigError, match="label_smoothing=0.5"):
        preference_loss(kind="robust", **data, beta=0.1, label_smoothing=0.5)
