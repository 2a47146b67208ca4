"""Weighted likelihood: a naive loop in float64, plain SFT at weights of 1, no scale of the reward."""

from __future__ import annotations

import torch

from modern_rlhf.losses.imitation import weighted_likelihood
from modern_rlhf.losses.sft import sft_loss


def case() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(3)
    log_probs = -torch.rand(4, 5, generator=draw, dtype=torch.float64)
    mask = torch.arange(5)[None] < torch.tensor([5, 1, 3, 2])[:, None]
    return log_probs, mask, torch.tensor([0.5, 0.0, 0.25, 1.0], dtype=torch.float64)


def test_against_a_naive_loop() -> None:
    log_probs, mask, weights = case()
    log_probs.requires_grad_()
    total, tokens = 0.0, 0.0
    for row in range(4):
        for column in range(5):
            if mask[row, column]:
                total -= float(weights[row]) * float(log_probs[row, column].detach())
                tokens += float(weights[row])
    loss = weighted_likelihood(log_probs=log_probs, mask=mask, weights=weights, denominator=tokens)
    assert abs(float(loss.detach()) - total / tokens) < 1e-12
    loss.backward()
    expected = -(weights[:, None] * mask) / tokens
    assert log_probs.grad is not None and torch.allclose(log_probs.grad, expected)


def test_weights_of_one_are_the_sft_loss() -> None:
    log_probs, mask, _ = case()
    expected, _ = sft_loss(log_probs=log_probs, mask=mask)
    found = weighted_likelihood(
        log_probs=log_probs, mask=mask, weights=torch.ones(4), denominator=float(mask.sum())
    )
    assert torch.allclose(found, expected, atol=1e-12)


def test_padding_has_no_say() -> None:
    log_probs, mask, weights = case()
    spoiled = log_probs.masked_fill(~mask, float("nan"))
    values = [
        weighted_likelihood(log_probs=one, mask=mask, weights=weights, denominator=7.0)
        for one in (log_probs, spoiled)
    ]
    assert torch.equal(values[0], values[1])
