"""Losses on preference pairs: DPO and its family, one pure function a kind.

In: log-probabilities of whole responses, summed over their tokens. l is log policy - log reference
of a response, h = l_chosen - l_rejected, s the logistic function; `/n` says that each response's
value is divided by its number of tokens first, p that there is no reference:

    sigmoid   -log s(beta h), smoothed                                  DPO   2305.18290 eq. 7
    ipo       (h/n - 1 / (2 beta))^2                                    IPO   2310.12036 eq. 17
    hinge     max(0, 1 - beta h)                                        SLiC  2305.10425
    robust    (-(1-e) log s(beta h) + e log s(-beta h)) / (1 - 2e)      rDPO  2403.00409
    simpo     -log s(beta (p_c/n - p_r/n) - gamma)                      SimPO 2405.14734 eq. 6
    orpo      -beta log s(log odds(p_c/n) - log odds(p_r/n))            ORPO  2403.07691 eq. 7
    nca       -log s(beta l_c) - (log s(-beta l_c) + log s(-beta l_r))/2  NCA 2402.05369
    apo_zero  1 - s(beta l_c) + s(beta l_r)                             APO   2408.06266 eq. 7

IPO's paper does not speak of dividing by the length; its authors' results do it, and so does trl.
ORPO here is the odds-ratio term alone: its SFT term is `losses.sft`, added by the trainer.
`preference_loss` is the way in for trainers; `KINDS` is the table of the functions it chooses from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from modern_rlhf.errors import ConfigError
from modern_rlhf.ops.masking import assert_same_shape, divide

Metrics = dict[str, Tensor]
PreferenceKind = Literal["sigmoid", "ipo", "hinge", "robust", "simpo", "orpo", "nca", "apo_zero"]


def sigmoid_loss(*, margin: Tensor, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """DPO; with `label_smoothing` e the labels are taken to be wrong with probability e (cDPO).

    `margin` (B,) is h, the difference of the log-ratios, sums over tokens: not length-normalised.
    Returns (B,).
    """
    logits = beta * margin
    return -(1.0 - label_smoothing) * logsigmoid(logits) - label_smoothing * logsigmoid(-logits)


def ipo_loss(*, mean_margin: Tensor, beta: float) -> Tensor:
    """IPO: a squared distance of the margin to 1 / (2 beta), where it is least.

    `mean_margin` (B,): each log-ratio divided by its response's length first. Returns (B,).
    """
    return (mean_margin - 1.0 / (2.0 * beta)) ** 2


def hinge_loss(*, margin: Tensor, beta: float) -> Tensor:
    """SLiC's hinge on DPO's margin, (B,), not length-normalised; no gradient once beta h >= 1."""
    return torch.relu(1.0 - beta * margin)


def robust_loss(*, margin: Tensor, beta: float, label_smoothing: float) -> Tensor:
    """Robust DPO: an unbiased estimate of the clean loss when a share e < 0.5 of labels is flipped.

    `margin` (B,), sums over tokens: not length-normalised. Returns (B,).
    """
    logits = beta * margin
    kept = -(1.0 - label_smoothing) * logsigmoid(logits) + label_smoothing * logsigmoid(-logits)
    return kept / (1.0 - 2.0 * label_smoothing)


def simpo_loss(*, mean_chosen: Tensor, mean_rejected: Tensor, beta: float, gamma: float) -> Tensor:
    """SimPO: reference-free, on log-probabilities per token (B,); `gamma` is the target margin.

    `gamma` is taken off after beta, as in the paper's eq. 6. Returns (B,).
    """
    return -logsigmoid(beta * (mean_chosen - mean_rejected) - gamma)


def orpo_loss(*, mean_chosen: Tensor, mean_rejected: Tensor, beta: float) -> Tensor:
    """ORPO's odds-ratio term (`beta` is its lambda): reference-free, log-probabilities per token.

    log odds(p) = log p - log(1 - p). A per-token log-probability of 0 (p = 1) has infinite odds, so
    it is cut at -1e-6. Takes and returns (B,).
    """
    log_odds = _log_odds(mean_chosen) - _log_odds(mean_rejected)
    return -beta * logsigmoid(log_odds)


def nca_loss(*, chosen_log_ratio: Tensor, rejected_log_ratio: Tensor, beta: float) -> Tensor:
    """NCA for pairs: raises the chosen response's absolute likelihood, not only the margin.

    Log-ratios (B,) are sums over tokens: not length-normalised. Returns (B,).
    """
    chosen, rejected = beta * chosen_log_ratio, beta * rejected_log_ratio
    return -logsigmoid(chosen) - 0.5 * logsigmoid(-chosen) - 0.5 * logsigmoid(-rejected)


def apo_zero_loss(*, chosen_log_ratio: Tensor, rejected_log_ratio: Tensor, beta: float) -> Tensor:
    """APO-zero: chosen up, rejected down; for answers better than the model's own.

    Log-ratios (B,) are sums over tokens: not length-normalised. Returns (B,).
    """
    return 1.0 - torch.sigmoid(beta * chosen_log_ratio) + torch.sigmoid(beta * rejected_log_ratio)


@dataclass(frozen=True)
class _Pairs:
    """What the kinds choose from, each (B,) float32; lengths at least 1."""

    chosen: Tensor
    rejected: Tensor
    reference_chosen: Tensor
    reference_rejected: Tensor
    chosen_lengths: Tensor
    rejected_lengths: Tensor
    beta: float
    label_smoothing: float
    simpo_gamma: float

    @property
    def chosen_log_ratio(self) -> Tensor:
        return self.chosen - self.reference_chosen

    @property
    def rejected_log_ratio(self) -> Tensor:
        return self.rejected - self.reference_rejected

    @property
    def margin(self) -> Tensor:
        return self.chosen_log_ratio - self.rejected_log_ratio

    @property
    def mean_chosen(self) -> Tensor:
        """The chosen log-ratio per token; reference-free kinds have a reference of 0 here."""
        return self.chosen_log_ratio / self.chosen_lengths

    @property
    def mean_rejected(self) -> Tensor:
        return self.rejected_log_ratio / self.rejected_lengths


@dataclass(frozen=True)
class PreferenceMethod:
    """A row of `KINDS`: the loss, and what it needs and is."""

    loss: Callable[[_Pairs], Tensor]
    needs_reference: bool = True
    length_normalised: bool = False
    smooths_labels: bool = False


def _log_odds(mean_log_prob: Tensor) -> Tensor:
    bounded = mean_log_prob.clamp(max=-1e-6)
    return bounded - torch.log(-torch.expm1(bounded))


KINDS: Mapping[str, PreferenceMethod] = MappingProxyType(
    {
        "sigmoid": PreferenceMethod(
            lambda p: sigmoid_loss(margin=p.margin, beta=p.beta, label_smoothing=p.label_smoothing),
            smooths_labels=True,
        ),
        "ipo": PreferenceMethod(
            lambda p: ipo_loss(mean_margin=p.mean_chosen - p.mean_rejected, beta=p.beta),
            length_normalised=True,
        ),
        "hinge": PreferenceMethod(lambda p: hinge_loss(margin=p.margin, beta=p.beta)),
        "robust": PreferenceMethod(
            lambda p: robust_loss(margin=p.margin, beta=p.beta, label_smoothing=p.label_smoothing),
            smooths_labels=True,
        ),
        "simpo": PreferenceMethod(
            lambda p: simpo_loss(
                mean_chosen=p.mean_chosen,
                mean_rejected=p.mean_rejected,
                beta=p.beta,
                gamma=p.simpo_gamma,
            ),
            needs_reference=False,
            length_normalised=True,
        ),
        "orpo": PreferenceMethod(
            lambda p: orpo_loss(
                mean_chosen=p.mean_chosen, mean_rejected=p.mean_rejected, beta=p.beta
            ),
            needs_reference=False,
            length_normalised=True,
        ),
        "nca": PreferenceMethod(
            lambda p: nca_loss(
                chosen_log_ratio=p.chosen_log_ratio,
                rejected_log_ratio=p.rejected_log_ratio,
                beta=p.beta,
            )
        ),
        "apo_zero": PreferenceMethod(
            lambda p: apo_zero_loss(
                chosen_log_ratio=p.chosen_log_ratio,
                rejected_log_ratio=p.rejected_log_ratio,
                beta=p.beta,
            )
        ),
    }
)


def preference_loss(
    *,
    kind: PreferenceKind,
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    chosen_lengths: Tensor,
    rejected_lengths: Tensor,
    beta: float,
    reference_chosen: Tensor | None = None,
    reference_rejected: Tensor | None = None,
    label_smoothing: float = 0.0,
    simpo_gamma: float = 0.5,
    weights: Tensor | None = None,
    denominator: Tensor | float | None = None,
) -> tuple[Tensor, Metrics]:
    """The loss of `kind` on B pairs, averaged with `weights`.

    Args:
        kind: a key of `KINDS`.
        policy_chosen, policy_rejected: (B,) summed log-probabilities, with gradient.
        chosen_lengths, rejected_lengths: (B,) numbers of response tokens.
        beta: strength; for `ipo` its tau, for `orpo` its lambda.
        reference_chosen, reference_rejected: (B,) of the reference; `simpo` and `orpo` need none.
        label_smoothing: share of labels taken to be wrong, `sigmoid` and `robust` only, below 0.5.
        simpo_gamma: target margin of `simpo`.
        weights: (B,) weight of each pair (rater weight), 1 by default.
        denominator: sum of the weights over the whole optimiser batch (D34); None: of these pairs.

    Returns:
        The loss, and detached means: `rewards_chosen`, `rewards_rejected` (beta times the
        log-ratio, per token where the kind is length-normalised), `rewards_margin`,
        `rewards_accuracy`, `log_probs_chosen`, `log_probs_rejected` (sums over tokens).

    Raises:
        ConfigError: unknown kind, missing reference, label smoothing out of range or of no use.
    """
    method = _method(kind, label_smoothing)
    if not method.needs_reference:
        reference_chosen = reference_rejected = torch.zeros_like(policy_chosen)
    elif reference_chosen is None or reference_rejected is None:
        raise ConfigError(f"kind={kind!r} needs the reference model's log-probabilities")
    assert_same_shape(
        policy_chosen=policy_chosen,
        policy_rejected=policy_rejected,
        reference_chosen=reference_chosen,
        reference_rejected=reference_rejected,
        chosen_lengths=chosen_lengths,
        rejected_lengths=rejected_lengths,
        weights=weights,
    )
    pairs = _Pairs(
        chosen=policy_chosen,
        rejected=policy_rejected,
        reference_chosen=reference_chosen.detach(),
        reference_rejected=reference_rejected.detach(),
        chosen_lengths=chosen_lengths.clamp(min=1),
        rejected_lengths=rejected_lengths.clamp(min=1),
        beta=beta,
        label_smoothing=label_smoothing,
        simpo_gamma=simpo_gamma,
    )
    weights = torch.ones_like(policy_chosen) if weights is None else weights.to(policy_chosen)
    denominator = weights.sum() if denominator is None else denominator
    loss = divide((weights * method.loss(pairs)).sum(), denominator)
    if method.length_normalised:
        rewards_chosen, rewards_rejected = beta * pairs.mean_chosen, beta * pairs.mean_rejected
    else:
        rewards_chosen = beta * pairs.chosen_log_ratio
        rewards_rejected = beta * pairs.rejected_log_ratio
    quantities = {
        "rewards_chosen": rewards_chosen,
        "rewards_rejected": rewards_rejected,
        "rewards_margin": rewards_chosen - rewards_rejected,
        "rewards_accuracy": (rewards_chosen > rewards_rejected).to(weights.dtype),
        "log_probs_chosen": policy_chosen,
        "log_probs_rejected": policy_rejected,
    }
    return loss, {
        name: divide((weights * value.detach()).sum(), denominator)
        for name, value in quantities.items()
    }


def _method(kind: str, label_smoothing: float) -> PreferenceMethod:
    if kind not in KINDS:
        raise ConfigError(f"kind={kind!r}: expected one of {', '.join(KINDS)}")
    method = KINDS[kind]
    if not 0.0 <= label_smoothing < 0.5:
        raise ConfigError(f"label_smoothing={label_smoothing}: must be in [0, 0.5)")
    if label_smoothing and not method.smooths_labels:
        raise ConfigError(f"label_smoothing={label_smoothing} has no meaning for kind={kind!r}")
    return method
