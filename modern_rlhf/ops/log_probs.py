"""Log-probabilities of given tokens, from logits or straight from hidden states.

`response_log_probs` is the language-model head, the softmax and the lookup in one: rows go through
in chunks, forward and backward, so at no time is an `N x V` matrix alive in any precision. What is
kept for the backward pass is `hidden`, `weight`, `labels` and the `(N,)` normalisers; each chunk's
logits are computed again there. For logits z = (hidden @ weight.T + bias) / T, p = softmax(z):

    log_probs_i = z[i, y_i] - logsumexp(z_i)            d/dz =  onehot(y_i) - p
    entropy_i   = logsumexp(z_i) - sum_v p_v z_v         d/dz = -p * (log p + entropy)

The matrix products run in the inputs' dtype (bf16 where the model is), everything after them in
float32; float64 inputs stay float64. Under autocast the inputs are cast as a linear layer's would be.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_ELEMENTS = {"cpu": 2**21, "cuda": 2**26}
"""Logits a chunk holds by default, by device: near the caches on a CPU, filling the machine on a GPU."""


def log_probs_from_logits(logits: Tensor, labels: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Log-probabilities of `labels` under `softmax(logits / temperature)`.

    Args:
        logits: (..., V), any float dtype; computed in float32 at least.
        labels: (...), token ids.
        temperature: what sampling divided the logits by (D10).

    Returns:
        (...) float32 (float64 for float64 logits).
    """
    assert logits.shape[:-1] == labels.shape, f"{tuple(logits.shape)} for {tuple(labels.shape)}"
    assert temperature > 0, f"temperature={temperature}: must be positive"
    scaled = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature
    chosen = scaled.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    return chosen - scaled.logsumexp(-1)


def response_log_probs(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    temperature: float = 1.0,
    bias: Tensor | None = None,
    chunk_size: int | None = None,
    with_entropy: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities (and entropy) of response tokens without ever holding all their logits.

    Args:
        hidden: (N, H) last hidden states at the positions that predict `labels`, padding left out.
        weight: (V, H) of the language-model head.
        labels: (N,) token ids.
        temperature: what sampling divided the logits by (D10).
        bias: (V,) of the head, if it has one.
        chunk_size: rows at a time; None chooses by vocabulary and device.
        with_entropy: also return the entropy of each row's distribution, with its gradient.

    Returns:
        `(log_probs (N,), entropy (N,) or None)`, float32 (float64 for float64 inputs).
        Gradients flow to `hidden`, `weight` and `bias`.
    """
    assert hidden.ndim == 2 and weight.ndim == 2 and hidden.shape[1] == weight.shape[1], (
        f"hidden {tuple(hidden.shape)} and weight {tuple(weight.shape)} must be (N, H) and (V, H)"
    )
    assert labels.shape == hidden.shape[:1], f"{tuple(labels.shape)} for {hidden.shape[0]} rows"
    assert temperature > 0, f"temperature={temperature}: must be positive"
    if chunk_size is None:
        elements = CHUNK_ELEMENTS.get(hidden.device.type, CHUNK_ELEMENTS["cpu"])
        chunk_size = max(64, elements // weight.shape[0])
    device_type = hidden.device.type
    if torch.is_autocast_enabled(device_type):
        dtype = torch.get_autocast_dtype(device_type)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    with torch.autocast(device_type, enabled=False):
        log_probs, entropy = _ChunkedHead.apply(
            hidden, weight, bias, labels, temperature, chunk_size, with_entropy
        )
    return log_probs, entropy if with_entropy else None


class _ChunkedHead(torch.autograd.Function):
    """The head, softmax and lookup in chunks of rows; the module docstring has the derivatives."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        temperature: float,
        chunk_size: int,
        with_entropy: bool,
    ) -> tuple[Tensor, Tensor]:
        rows = hidden.shape[0]
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        log_probs = hidden.new_empty(rows, dtype=dtype)
        normalisers = hidden.new_empty(rows, dtype=dtype)
        entropy = hidden.new_empty(rows if with_entropy else 0, dtype=dtype)
        for start in range(0, rows, chunk_size):
            part = slice(start, start + chunk_size)
            logits = _scaled_logits(hidden[part], weight, bias, temperature)
            chosen = logits.gather(1, labels[part, None]).squeeze(1)
            normaliser = logits.logsumexp(1)
            log_probs[part] = chosen - normaliser
            normalisers[part] = normaliser
            if with_entropy:
                probs = torch.exp(logits - normaliser[:, None])
                # summed with z - logsumexp, not z: no cancellation between two large numbers
                entropy[part] = -(probs.mul_(logits.sub_(normaliser[:, None]))).sum(1)
        ctx.save_for_backward(hidden, weight, bias, labels, normalisers, entropy)
        ctx.temperature, ctx.chunk_size, ctx.with_entropy = temperature, chunk_size, with_entropy
        return log_probs, entropy

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad_log_probs: Tensor, grad_entropy: Tensor) -> tuple[Any, ...]:
        hidden, weight, bias, labels, normalisers, entropy = ctx.saved_tensors
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        accumulator = normalisers.dtype  # chunks add up in float32 even when the model is bf16
        grad_hidden = torch.empty_like(hidden) if need_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=accumulator) if need_weight else None
        grad_bias = torch.zeros_like(bias, dtype=accumulator) if need_bias else None
        for start in range(0, hidden.shape[0], ctx.chunk_size):
            part = slice(start, start + ctx.chunk_size)
            log_p = _scaled_logits(hidden[part], weight, bias, ctx.temperature)
            log_p.sub_(normalisers[part, None])
            upstream = grad_log_probs[part, None] / ctx.temperature
            if ctx.with_entropy:
                p = log_p.exp()
                slope = grad_entropy[part, None] / ctx.temperature
                grad = log_p.add_(entropy[part, None]).mul_(-slope).sub_(upstream).mul_(p)
            else:
                grad = log_p.exp_().mul_(-upstream)
            grad.scatter_add_(1, labels[part, None], upstream)
            if grad_bias is not None:
                grad_bias += grad.sum(0)
            grad = grad.to(hidden.dtype)
            if grad_hidden is not None:
                torch.mm(grad, weight, out=grad_hidden[part])
            if grad_weight is not None:
                if grad_weight.dtype == grad.dtype:
                    grad_weight.addmm_(grad.T, hidden[part])
                else:
                    grad_weight += grad.T @ hidden[part]
        return (
            grad_hidden,
            None if grad_weight is None else grad_weight.to(weight.dtype),
            None if grad_bias is None else grad_bias.to(bias.dtype),
            None,
            None,
            None,
            None,
        )


def _scaled_logits(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float
) -> Tensor:
    """One chunk's logits divided by the temperature, a fresh float32 (or float64) matrix."""
    logits = torch.mm(hidden, weight.T)
    if bias is not None:
        logits += bias
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits if temperature == 1.0 else logits.div_(temperature)
