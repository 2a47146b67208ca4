"""Estimates of KL(policy || reference) from sampled tokens, and the coefficient in front of them.

With d = log policy(a) - log reference(a) for a token `a` sampled from the policy (Schulman,
"Approximating KL divergence"):

    k1 = d                     unbiased, can be negative, high variance
    k2 = d^2 / 2               biased, never negative
    k3 = exp(-d) - 1 + d       unbiased, never negative

As a *reward* (a number, no gradient) each of them serves; k1 is the usual one. As a *loss* it is
not the value that counts but the gradient, and there they differ (D32):

    k1  its own gradient has mean zero: it does nothing
    k2  its own gradient is that of KL(policy || reference)
    k3  its own gradient is that of KL(reference || policy), the other direction

The right gradient for k1 and k3 needs the ratio r = policy(a) / sampler(a) in front, since the
sampling distribution depends on the parameters too: `kl_loss_terms` does this.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from modern_rlhf.errors import CheckpointError, ConfigError, TrainingError
from modern_rlhf.ops.masking import assert_same_shape

KLKind = Literal["k1", "k2", "k3"]
KL_KINDS: tuple[KLKind, ...] = ("k1", "k2", "k3")

LOG_RATIO_CLAMP = 20.0
"""Bound of |log ratio| before it is exponentiated: exp(20) is 5e8, exp(100) is NaN soon (D35)."""


def kl_estimate(
    log_probs: Tensor,
    ref_log_probs: Tensor,
    *,
    kind: KLKind,
    clamp: float = LOG_RATIO_CLAMP,
) -> Tensor:
    """The k1, k2 or k3 estimate of KL(policy || reference) per token, same shape as the inputs.

    Args:
        log_probs: log policy of the sampled tokens, any shape.
        ref_log_probs: log reference of the same tokens.
        kind: which estimator.
        clamp: bound of |log_probs - ref_log_probs|; outside it the gradient is 0.

    Raises:
        ConfigError: unknown `kind`.
    """
    assert_same_shape(log_probs=log_probs, ref_log_probs=ref_log_probs)
    log_ratio = (log_probs - ref_log_probs).clamp(-clamp, clamp)
    if kind == "k1":
        return log_ratio
    if kind == "k2":
        return 0.5 * log_ratio**2
    if kind == "k3":
        # expm1 keeps the digits that exp(-d) - 1 loses for the small d of a healthy run
        return torch.expm1(-log_ratio) + log_ratio
    raise ConfigError(f"kind={kind!r}: expected one of {', '.join(KL_KINDS)}")


def kl_loss_terms(
    log_probs: Tensor,
    ref_log_probs: Tensor,
    *,
    old_log_probs: Tensor,
    kind: KLKind,
    clamp: float = LOG_RATIO_CLAMP,
) -> Tensor:
    """Per-token terms whose mean over samples has the gradient of KL(policy || reference) (D32).

    r * k1 and r * k3 with r = exp(log_probs - old_log_probs), differentiated through r; r * k2 with
    r held fixed, because k2's own gradient is the right one already.

    Args:
        log_probs: log policy, with gradient, any shape.
        ref_log_probs: log reference.
        old_log_probs: log-probabilities the tokens were sampled with; `log_probs.detach()` when the
            policy has not moved since (r is then 1, but its gradient is not 0).
        kind: which estimator.
        clamp: bound of both log ratios.
    """
    assert_same_shape(log_probs=log_probs, old_log_probs=old_log_probs)
    ratio = (log_probs - old_log_probs.detach()).clamp(-clamp, clamp).exp()
    if kind == "k2":
        ratio = ratio.detach()
    return ratio * kl_estimate(log_probs, ref_log_probs.detach(), kind=kind, clamp=clamp)


class FixedKLController:
    """A KL coefficient that never changes."""

    def __init__(self, value: float) -> None:
        self.value = float(value)

    def update(self, kl: float, n_samples: int) -> None:
        """Takes what the adaptive controller takes, and keeps the value."""

    def state_dict(self) -> dict[str, float]:
        """`{"value": ...}`."""
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Restore the value. Raises CheckpointError when the state is not one of these."""
        self.value = _value_of(state)


class AdaptiveKLController:
    """The proportional controller of Ziegler et al. (arXiv 1909.08593, section 2.2) (D20).

    value *= 1 + clip(kl / target - 1, -0.2, 0.2) * n_samples / horizon

    Args:
        value: the coefficient to start with.
        target: the KL of a whole response, in nats, to steer to.
        horizon: samples over which a full correction is spread.

    Raises:
        ConfigError: `target` or `horizon` is not positive.
    """

    max_error = 0.2

    def __init__(self, value: float, *, target: float, horizon: int) -> None:
        if target <= 0:
            raise ConfigError(f"target={target}: the KL to steer to must be positive")
        if horizon <= 0:
            raise ConfigError(f"horizon={horizon}: must be a positive number of samples")
        self.value = float(value)
        self.target = float(target)
        self.horizon = int(horizon)

    def update(self, kl: float, n_samples: int) -> None:
        """Move the coefficient after `n_samples` responses whose mean summed KL was `kl` (nats).

        Raises:
            TrainingError: `kl` is NaN or infinite, which would make the coefficient so for good.
        """
        if not math.isfinite(kl):
            raise TrainingError(f"the KL to the reference is {kl}: the policy has collapsed")
        error = min(max(kl / self.target - 1.0, -self.max_error), self.max_error)
        self.value *= 1.0 + error * n_samples / self.horizon

    def state_dict(self) -> dict[str, float]:
        """`{"value": ...}`; target and horizon belong to the configuration."""
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Restore the value. Raises CheckpointError when the state is not one of these."""
        self.value = _value_of(state)


def _value_of(state: dict[str, float]) -> float:
    if set(state) != {"value"}:
        raise CheckpointError(
            f"state of a KL controller: expected the key 'value', got {set(state)}"
        )
    return float(state["value"])
