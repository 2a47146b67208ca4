"""The likelihood of given answers, each with a weight: self-imitation, and a mixed-in SFT loss."""

from __future__ import annotations

from torch import Tensor

from modern_rlhf.ops.masking import assert_same_shape, masked_sum


def weighted_likelihood(
    *, log_probs: Tensor, mask: Tensor, weights: Tensor, denominator: Tensor | float
) -> Tensor:
    """-log p of the answers' tokens, a weight for each answer.

    With the weight (R - V)+, the best score seen for a prompt minus the policy's mean score there, it is
    self-imitation learning (Oh et al. 2018, 1806.05635, eq. 2); with weights of 1 it is `sft_loss`, the
    ptx term of InstructGPT (2203.02155, eq. 2). Dividing by the summed weight of all tokens makes it
    independent of the reward's scale, which the paper's sum is not.

    Args:
        log_probs: (B, R) of the answers' tokens under the policy, with gradient.
        mask: (B, R); the end token counts, the prompt does not.
        weights: (B,), not negative.
        denominator: summed weight x tokens of the whole optimiser batch.
    """
    assert_same_shape(log_probs=log_probs, mask=mask)
    assert weights.shape == log_probs.shape[:1], f"weights {tuple(weights.shape)}"
    return -(masked_sum(log_probs, mask, dim=-1) * weights).sum() / denominator
