"""KTO: learning from single answers marked desirable or not (2402.01306, section 4).

With l = log policy - log reference of a whole answer (sums over tokens, not length-normalised) and
z the KL of the policy from the reference, estimated on mismatched pairs and held fixed:

    desirable     lambda_D * (1 - s(beta * (l - z)))
    undesirable   lambda_U * (1 - s(beta * (z - l)))

z is the mean log-ratio of answers set under *other* prompts of the batch, at least 0. It should be
taken over the whole optimiser batch before the first micro-batch (a pass without gradient), or the
loss depends on the split into micro-batches; hence it is an argument here, made by `kto_kl`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modern_rlhf.errors import DataError
from modern_rlhf.ops.masking import assert_same_shape, divide, real_positions

Metrics = dict[str, Tensor]


def kto_kl(
    *,
    policy_mismatched: Tensor,
    reference_mismatched: Tensor,
) -> Tensor:
    """The KL estimate z: mean log-ratio of mismatched pairs, cut at 0; a detached scalar.

    Args:
        policy_mismatched: (B,) summed log-probabilities of the answer to prompt i+1 under prompt i,
            for the whole optimiser batch (gathered from every process).
        reference_mismatched: (B,) under the reference.
    """
    assert_same_shape(policy=policy_mismatched, reference=reference_mismatched)
    log_ratios = (policy_mismatched - reference_mismatched).detach()
    return (log_ratios.sum() / max(log_ratios.numel(), 1)).clamp(min=0.0)


def kto_balanced_weights(n_desirable: int, n_undesirable: int) -> tuple[float, float]:
    """(lambda_D, lambda_U) with lambda_D n_D = lambda_U n_U, the rarer label raised from 1.

    The paper asks for lambda_D n_D / (lambda_U n_U) within [1, 4/3]; this is its lower end.

    Raises:
        DataError: one of the two labels does not occur.
    """
    if n_desirable < 1 or n_undesirable < 1:
        raise DataError(
            f"KTO needs both labels, got {n_desirable} desirable and {n_undesirable} undesirable"
        )
    larger = max(n_desirable, n_undesirable)
    return larger / n_desirable, larger / n_undesirable


def kto_loss(
    *,
    policy: Tensor,
    reference: Tensor,
    labels: Tensor,
    kl: Tensor | float,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
    weights: Tensor | None = None,
    denominator: Tensor | float | None = None,
) -> tuple[Tensor, Metrics]:
    """The KTO loss of B labelled answers, averaged with `weights`.

    Args:
        policy: (B,) summed log-probabilities, with gradient.
        reference: (B,) under the reference.
        labels: (B,) bool, desirable or not.
        kl: z, a scalar from `kto_kl`; no gradient flows through it.
        beta: risk aversion.
        desirable_weight, undesirable_weight: lambda_D and lambda_U, see `kto_balanced_weights`.
            They are part of the loss, not of the mean: the denominator does not know them.
        weights: (B,) weight of each answer (rater weight), 1 by default.
        denominator: sum of `weights` over the whole optimiser batch (D34); None: of these answers.

    Returns:
        The loss, and detached `kl`, `rewards_desirable`, `rewards_undesirable` and
        `desirable_fraction`, all under the loss's denominator, so that they add up. A reward here
        is summed over its label only: divided by that label's fraction it is the label's mean.
    """
    assert_same_shape(policy=policy, reference=reference, labels=labels, weights=weights)
    desirable = real_positions(labels)
    z = kl.detach() if isinstance(kl, Tensor) else torch.tensor(float(kl), device=policy.device)
    log_ratio = policy - reference.detach()
    # 1 - s(x) = s(-x), which keeps its digits where s(x) is close to 1
    losses = torch.where(
        desirable,
        desirable_weight * torch.sigmoid(-beta * (log_ratio - z)),
        undesirable_weight * torch.sigmoid(-beta * (z - log_ratio)),
    )
    weights = torch.ones_like(policy) if weights is None else weights.to(policy)
    denominator = weights.sum() if denominator is None else denominator
    rewards = beta * log_ratio.detach()
    nothing = torch.zeros_like(rewards)
    quantities = {
        "kl": z.expand_as(rewards),
        "rewards_desirable": torch.where(desirable, rewards, nothing),
        "rewards_undesirable": torch.where(desirable, nothing, rewards),
        "desirable_fraction": desirable.to(rewards.dtype),
    }
    return divide((weights * losses).sum(), denominator), {
        name: divide((weights * value).sum(), denominator) for name, value in quantities.items()
    }
