"""KL estimators: expectations and gradients on a categorical of five tokens; the controllers."""

from __future__ import annotations

import pytest
import torch
from helpers_numeric import EXACT, FLOAT64, assert_close, gradients, properties, randn
from hypothesis import given
from hypothesis import strategies as st

from modern_rlhf.errors import CheckpointError, ConfigError, TrainingError
from modern_rlhf.ops.kl import (
    KL_KINDS,
    AdaptiveKLController,
    FixedKLController,
    kl_estimate,
    kl_loss_terms,
)

LOGITS = torch.tensor([0.3, -1.2, 0.8, 0.1, -0.5], dtype=torch.float64)
REFERENCE = torch.log_softmax(
    torch.tensor([-0.4, 0.2, 0.5, -0.9, 0.6], dtype=torch.float64), dim=-1
)


def exact_kl(logits: torch.Tensor) -> torch.Tensor:
    """KL(policy || reference), summed over all five tokens."""
    log_p = logits.log_softmax(-1)
    return (log_p.exp() * (log_p - REFERENCE)).sum()


def exact_reverse_kl(logits: torch.Tensor) -> torch.Tensor:
    return (REFERENCE.exp() * (REFERENCE - logits.log_softmax(-1))).sum()


@pytest.mark.parametrize("kind", ["k1", "k3"])
def test_k1_and_k3_are_unbiased(kind: str) -> None:
    log_p = LOGITS.log_softmax(-1)
    mean = (log_p.exp() * kl_estimate(log_p, REFERENCE, kind=kind)).sum()
    assert_close(mean, exact_kl(LOGITS), tolerance=FLOAT64)


def test_k2_is_half_the_mean_square() -> None:
    log_p = LOGITS.log_softmax(-1)
    expected = sum(
        float(p) * 0.5 * float(a - b) ** 2
        for p, a, b in zip(log_p.exp(), log_p, REFERENCE, strict=True)
    )
    mean = (log_p.exp() * kl_estimate(log_p, REFERENCE, kind="k2")).sum()
    assert_close(mean, expected, tolerance=FLOAT64)


def test_values_by_hand() -> None:
    # d = ln 2: k1 = .693147, k2 = .240227, k3 = 1/2 - 1 + .693147 = .193147
    a, b = torch.tensor(2.0, dtype=torch.float64).log(), torch.zeros((), dtype=torch.float64)
    for kind, value in {"k1": 0.6931471806, "k2": 0.2402265070, "k3": 0.1931471806}.items():
        assert_close(kl_estimate(a, b, kind=kind), value, tolerance=1e-9)


@properties
@given(seed=st.integers(0, 10_000), kind=st.sampled_from(["k2", "k3"]))
def test_k2_and_k3_are_never_negative(seed: int, kind: str) -> None:
    a, b = 5 * randn(50, seed=seed), 5 * randn(50, seed=seed + 1)
    assert bool((kl_estimate(a, b, kind=kind) >= 0).all())


@pytest.mark.parametrize("kind", KL_KINDS)
def test_equal_policies_have_zero_kl(kind: str) -> None:
    a = randn(20, seed=3)
    assert_close(kl_estimate(a, a, kind=kind), torch.zeros(20), tolerance=EXACT)


@pytest.mark.parametrize("kind", KL_KINDS)
def test_a_gap_of_a_hundred_nats_stays_finite(kind: str) -> None:
    a, b = torch.tensor([0.0, -100.0, -1e4]), torch.tensor([-100.0, 0.0, 0.0])
    assert bool(torch.isfinite(kl_estimate(a, b, kind=kind)).all())
    (gradient,) = gradients(lambda x: kl_estimate(x, b, kind=kind).sum(), a)
    assert bool(torch.isfinite(gradient).all())
    # k1 at the clamp is the clamp
    assert_close(kl_estimate(a, b, kind="k1"), [20.0, -20.0, -20.0], tolerance=EXACT)


@pytest.mark.parametrize("kind", KL_KINDS)
def test_loss_terms_have_the_gradient_of_the_exact_kl(kind: str) -> None:
    # the mean over samples of the sampling policy, written out over all five tokens
    sampler = LOGITS.log_softmax(-1)

    def loss(logits: torch.Tensor) -> torch.Tensor:
        terms = kl_loss_terms(logits.log_softmax(-1), REFERENCE, old_log_probs=sampler, kind=kind)
        return (sampler.exp() * terms).sum()

    assert_close(gradients(loss, LOGITS)[0], gradients(exact_kl, LOGITS)[0], tolerance=FLOAT64)


@pytest.mark.parametrize("kind", KL_KINDS)
def test_loss_terms_off_policy_have_that_gradient_too(kind: str) -> None:
    sampler = torch.tensor([0.1, 0.4, -0.3, 0.2, 0.0], dtype=torch.float64).log_softmax(-1)

    def loss(logits: torch.Tensor) -> torch.Tensor:
        terms = kl_loss_terms(logits.log_softmax(-1), REFERENCE, old_log_probs=sampler, kind=kind)
        return (sampler.exp() * terms).sum()

    assert_close(gradients(loss, LOGITS)[0], gradients(exact_kl, LOGITS)[0], tolerance=FLOAT64)


def test_plain_gradients_are_what_the_docstring_says() -> None:
    probabilities = LOGITS.log_softmax(-1).exp()

    def gradient(kind: str) -> torch.Tensor:
        return gradients(
            lambda x: (probabilities * kl_estimate(x.log_softmax(-1), REFERENCE, kind=kind)).sum(),
            LOGITS,
        )[0]

    assert_close(gradient("k1"), torch.zeros(5), tolerance=FLOAT64)
    assert_close(gradient("k2"), gradients(exact_kl, LOGITS)[0], tolerance=FLOAT64)
    assert_close(gradient("k3"), gradients(exact_reverse_kl, LOGITS)[0], tolerance=FLOAT64)


@pytest.mark.parametrize("kind", KL_KINDS)
def test_a_gradient_step_on_the_kl_alone_lowers_it(kind: str) -> None:
    logits = LOGITS.clone()
    before = exact_kl(logits)
    for _ in range(20):
        sampler = logits.log_softmax(-1)
        (gradient,) = gradients(
            lambda x, s=sampler: (
                s.exp() * kl_loss_terms(x.log_softmax(-1), REFERENCE, old_log_probs=s, kind=kind)
            ).sum(),
            logits,
        )
        logits = logits - 0.5 * gradient
        after = exact_kl(logits)
        assert float(after) < float(before)
        before = after


def test_unknown_kind_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="'k4'.*k1, k2, k3"):
        kl_estimate(torch.zeros(1), torch.zeros(1), kind="k4")  # type: ignore[arg-type]


def test_adaptive_controller_closed_form() -> None:
    controller = AdaptiveKLController(0.2, target=6.0, horizon=10_000)
    controller.update(kl=6.6, n_samples=256)  # error .1: times 1 + .1 * .0256
    assert_close(controller.value, 0.2 * 1.00256, tolerance=FLOAT64)
    controller.update(kl=60.0, n_samples=256)  # error cut at .2
    assert_close(controller.value, 0.2 * 1.00256 * 1.00512, tolerance=FLOAT64)
    controller.update(kl=0.0, n_samples=256)  # error cut at -.2
    assert_close(controller.value, 0.2 * 1.00256 * 1.00512 * 0.99488, tolerance=FLOAT64)


def test_controller_states_round_trip() -> None:
    controller = AdaptiveKLController(0.1, target=2.0, horizon=100)
    controller.update(kl=3.0, n_samples=7)
    other = AdaptiveKLController(0.9, target=2.0, horizon=100)
    other.load_state_dict(controller.state_dict())
    assert other.value == controller.value
    fixed = FixedKLController(0.05)
    fixed.update(kl=1e9, n_samples=10)
    assert fixed.value == 0.05
    fixed.load_state_dict({"value": 0.07})
    assert fixed.state_dict() == {"value": 0.07}
    for broken in (fixed, other):
        with pytest.raises(CheckpointError, match="expected the key 'value'"):
            broken.load_state_dict({"beta": 1.0})


def test_controller_refuses_nonsense() -> None:
    with pytest.raises(ConfigError, match="target=0"):
        AdaptiveKLController(0.1, target=0.0, horizon=10)
    with pytest.raises(ConfigError, match="horizon=0"):
        AdaptiveKLController(0.1, target=1.0, horizon=0)
    controller = AdaptiveKLController(0.1, target=1.0, horizon=10)
    with pytest.raises(TrainingError, match="nan"):
        controller.update(kl=float("nan"), n_samples=1)
    assert controller.value == 0.1
