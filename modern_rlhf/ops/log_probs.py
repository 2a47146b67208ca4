"""Log-probabilities of given tokens, from logits or straight from hidden states.

`response_log_probs` is the language-model head, the softmax and the lookup in one. It works in
blocks, forward and backward, so at no time is an `N x V` matrix alive in any precision. The
backward pass keeps `hidden`, `weight`, `labels` and the `(N,)` normalisers and computes each block's
logits again; where the head is frozen (LoRA) it keeps the `(N, H)` derivative instead and computes
nothing twice. For logits z = (hidden @ weight.T + bias) / T, p = softmax(z):

    log_probs_i = z[i, y_i] - logsumexp(z_i)            d/dz =  onehot(y_i) - p
    entropy_i   = logsumexp(z_i) - sum_v p_v z_v         d/dz = -p * (log p + entropy)

The matrix products run in the inputs' dtype (bf16 where the model is), everything after them in
float32; float64 inputs stay float64. Under autocast the inputs are cast as for a linear layer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_ELEMENTS = {"cpu": 2**21, "cuda": 2**25}
"""Logits a chunk holds by default: near the caches on a CPU, filling the machine on a GPU."""


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
        log_probs, entropy = _ChunkedHead.apply(  # type: ignore[no-untyped-call]
            hidden,
            weight,
            bias,
            labels,
            temperature,
            chunk_size,
            with_entropy,
            torch.is_grad_enabled(),
        )
    return log_probs, entropy if with_entropy else None


class _ChunkedHead(torch.autograd.Function):
    """The head, softmax and lookup in pieces; the module docstring has the derivatives.

    Forward goes through blocks of rows, each needing a whole row for its normaliser. Backward goes
    through blocks of the vocabulary: each row block of `d weight` is then one product over all N
    positions, written once in full, and only the small `d hidden` is accumulated (in float32).
    """

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
        grad_enabled: bool,
    ) -> tuple[Tensor, Tensor]:
        rows, width = hidden.shape
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        log_probs = hidden.new_empty(rows, dtype=dtype)
        normalisers = hidden.new_empty(rows, dtype=dtype)
        entropy = hidden.new_empty(rows if with_entropy else 0, dtype=dtype)
        head_is_frozen = not (ctx.needs_input_grad[1] or ctx.needs_input_grad[2])
        keep = grad_enabled and head_is_frozen and ctx.needs_input_grad[0]
        slopes = hidden.new_empty(rows if keep else 0, width)
        entropy_slopes = hidden.new_empty(rows if keep and with_entropy else 0, width)
        for start in range(0, rows, chunk_size):
            part = slice(start, start + chunk_size)
            shifted = _scaled_logits(hidden[part], weight, bias, temperature)
            highest = shifted.amax(1, keepdim=True)
            chosen = shifted.gather(1, labels[part, None]) - highest
            shifted.sub_(highest)
            unnormalised = shifted.exp()
            total = unnormalised.sum(1, keepdim=True)
            log_total = total.log()
            log_probs[part] = (chosen - log_total).squeeze(1)
            normalisers[part] = (highest + log_total).squeeze(1)
            if with_entropy:
                mean = torch.linalg.vecdot(unnormalised, shifted)[:, None] / total
                entropy[part] = (log_total - mean).squeeze(1)
            if keep:
                p = unnormalised.div_(total)
                expected = torch.mm(p.to(weight.dtype), weight)
                slopes[part] = (weight[labels[part]] - expected).div_(temperature)
                if with_entropy:
                    p.mul_(shifted.sub_(mean))
                    entropy_slopes[part] = torch.mm(p.to(weight.dtype), weight).div_(-temperature)
        if keep:
            ctx.save_for_backward(slopes, entropy_slopes)
        else:
            ctx.save_for_backward(hidden, weight, bias, labels, normalisers, entropy)
        ctx.set_materialize_grads(False)  # None for an entropy that is only logged
        ctx.kept, ctx.temperature = keep, temperature
        ctx.chunk_elements = chunk_size * weight.shape[0]
        return log_probs, entropy

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_log_probs: Tensor | None, grad_entropy: Tensor | None
    ) -> tuple[Any, ...]:
        nothing = (None,) * 5
        if grad_log_probs is None:
            if grad_entropy is None:
                return None, None, None, *nothing
            grad_log_probs = torch.zeros_like(grad_entropy)
        if ctx.kept:
            slopes, entropy_slopes = ctx.saved_tensors
            grad = slopes * grad_log_probs[:, None]
            if grad_entropy is not None:
                grad += entropy_slopes * grad_entropy[:, None]
            return grad.to(slopes.dtype), None, None, *nothing
        hidden, weight, bias, labels, normalisers, entropy = ctx.saved_tensors
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.zeros_like(hidden, dtype=normalisers.dtype) if need_hidden else None
        grad_weight = torch.empty_like(weight) if need_weight else None
        grad_bias = torch.empty_like(bias) if need_bias else None
        upstream = grad_log_probs[:, None] / ctx.temperature
        slope = None if grad_entropy is None else grad_entropy[:, None] / ctx.temperature
        vocabulary = weight.shape[0]
        block = max(256, ctx.chunk_elements // max(hidden.shape[0], 1))
        for start in range(0, vocabulary, block):
            part = slice(start, min(start + block, vocabulary))
            log_p = _scaled_logits(
                hidden, weight[part], None if bias is None else bias[part], ctx.temperature
            )
            log_p.sub_(normalisers[:, None])
            if slope is not None:
                p = log_p.exp()
                grad = log_p.add_(entropy[:, None]).mul_(-slope).sub_(upstream).mul_(p)
            else:
                grad = log_p.exp_().mul_(-upstream)
            # the label's +1, where the label lies in this block; elsewhere it adds 0
            column = labels[:, None] - start
            inside = (column >= 0) & (column < grad.shape[1])
            grad.scatter_add_(1, column.clamp(0, grad.shape[1] - 1), upstream * inside)
            if grad_bias is not None:
                grad_bias[part] = grad.sum(0)
            grad = grad.to(hidden.dtype)
            if grad_hidden is not None:
                grad_hidden += torch.mm(grad, weight[part])
            if grad_weight is not None:
                torch.mm(grad.T, hidden, out=grad_weight[part])
        if grad_hidden is not None:
            grad_hidden = grad_hidden.to(hidden.dtype)
        return grad_hidden, grad_weight, grad_bias, *nothing


def _scaled_logits(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float
) -> Tensor:
    """One block of logits divided by the temperature, a fresh float32 (or float64) matrix."""
    logits = torch.mm(hidden, weight.T)
    if bias is not None:
        logits += bias
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits if temperature == 1.0 else logits.div_(temperature)
