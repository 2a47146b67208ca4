"""What holds for every token-level loss: padding, micro-batching, order, and SFT's own values."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from helpers_numeric import (
    EXACT,
    FLOAT64,
    assert_close,
    gradients,
    properties,
    randn,
    right_padded,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from modern_rlhf.losses.policy import clipped_surrogate, entropy_bonus, kl_penalty, reinforce
from modern_rlhf.losses.sft import sft_loss
from modern_rlhf.losses.value import clipped_value_loss
from modern_rlhf.ops.masking import AGGREGATIONS, batch_denominator

Result = tuple[Tensor, dict[str, Tensor]]


def surrogate(x: Tensor, a: Tensor, b: Tensor, mask: Tensor, **how: object) -> Result:
    return clipped_surrogate(
        log_probs=x,
        old_log_probs=a,
        advantages=b,
        mask=mask,
        clip_low=0.2,
        clip_high=0.28,
        **how,
    )


def penalty(kind: str, ratio: bool) -> Callable[..., Result]:
    def loss(x: Tensor, a: Tensor, b: Tensor, mask: Tensor, **how: object) -> Result:
        return kl_penalty(
            log_probs=x,
            ref_log_probs=a,
            mask=mask,
            kind=kind,
            old_log_probs=b if ratio else None,
            **how,
        )

    return loss


LOSSES: dict[str, Callable[..., Result]] = {
    "clipped_surrogate": surrogate,
    "reinforce": lambda x, a, b, mask, **how: reinforce(
        log_probs=x, advantages=a, mask=mask, **how
    ),
    "reinforce_one_a_sample": lambda x, a, b, mask, **how: reinforce(
        log_probs=x, advantages=torch.linspace(-1, 1, 4).to(x)[: len(x)], mask=mask, **how
    ),
    "kl_k2": penalty("k2", False),
    "kl_k3": penalty("k3", False),
    "kl_k1_ratio": penalty("k1", True),
    "kl_k2_ratio": penalty("k2", True),
    "kl_k3_ratio": penalty("k3", True),
    "entropy_bonus": lambda x, a, b, mask, **how: entropy_bonus(x, mask, **how),
    "clipped_value": lambda x, a, b, mask, **how: clipped_value_loss(
        values=x, old_values=a, returns=b, mask=mask, clip=0.2, **how
    ),
    "plain_value": lambda x, a, b, mask, **how: clipped_value_loss(
        values=x, old_values=a, returns=b, mask=mask, clip=None, **how
    ),
    "sft": lambda x, a, b, mask, **how: sft_loss(log_probs=x, mask=mask, **how),
}
LENGTH = {"token_mean": None, "sequence_mean": None, "constant_length": 5}


def data(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    return tuple(randn(4, 5, seed=seed + i) for i in range(3))  # type: ignore[return-value]


@pytest.mark.parametrize("name", list(LOSSES))
@pytest.mark.parametrize("garbage", [1e4, -1e4, float("nan"), float("inf")])
def test_garbage_in_padding_changes_neither_loss_nor_gradient(name: str, garbage: float) -> None:
    mask = right_padded([5, 2, 0, 3], 5)
    clean = data(seed=0)
    dirty = [t.masked_fill(~mask, garbage) for t in clean]
    for how in AGGREGATIONS:
        options = {"how": how, "constant_length": LENGTH[how]}
        loss, metrics = LOSSES[name](*clean, mask, **options)
        dirty_loss, dirty_metrics = LOSSES[name](*dirty, mask, **options)
        assert_close(dirty_loss, loss, tolerance=EXACT)
        for key in metrics:
            assert_close(dirty_metrics[key], metrics[key], tolerance=EXACT, what=key)
        (gradient,) = gradients(
            lambda x, o=options: LOSSES[name](x, *clean[1:], mask, **o)[0], clean[0]
        )
        (dirty_gradient,) = gradients(
            lambda x, o=options: LOSSES[name](x, *dirty[1:], mask, **o)[0], dirty[0]
        )
        assert_close(dirty_gradient, gradient, tolerance=EXACT)


@properties
@given(
    name=st.sampled_from(list(LOSSES)),
    how=st.sampled_from(AGGREGATIONS),
    lengths=st.lists(st.integers(0, 5), min_size=4, max_size=4),
    pieces=st.sampled_from([2, 4]),
    seed=st.integers(0, 999),
)
def test_micro_batches_add_up(
    name: str, how: str, lengths: list[int], pieces: int, seed: int
) -> None:
    if name == "reinforce_one_a_sample":
        name = "reinforce"  # its advantages depend on the place in the batch
    mask, tensors = right_padded(lengths, 5), data(seed)
    options = {"how": how, "constant_length": LENGTH[how]}
    denominator = batch_denominator(mask, **options)

    def in_pieces(x: Tensor) -> list[Result]:
        chunks = zip(*(t.chunk(pieces) for t in (x, *tensors[1:], mask)), strict=True)
        return [LOSSES[name](*chunk, denominator=denominator, **options) for chunk in chunks]

    def whole(x: Tensor) -> Result:
        return LOSSES[name](x, *tensors[1:], mask, **options)

    loss, metrics = whole(tensors[0])
    parts = in_pieces(tensors[0])
    assert_close(sum(part for part, _ in parts), loss, tolerance=FLOAT64)
    for key, value in metrics.items():
        assert_close(sum(m[key] for _, m in parts), value, tolerance=FLOAT64, what=key)
    (together,) = gradients(lambda x: sum(part for part, _ in in_pieces(x)), tensors[0])
    assert_close(together, gradients(lambda x: whole(x)[0], tensors[0])[0], tolerance=FLOAT64)


@pytest.mark.parametrize("name", [n for n in LOSSES if n != "reinforce_one_a_sample"])
def test_the_order_of_samples_does_not_matter(name: str) -> None:
    mask, tensors = right_padded([5, 2, 4, 3], 5), data(seed=1)
    order = torch.tensor([2, 0, 3, 1])
    loss, _ = LOSSES[name](*tensors, mask, how="sequence_mean")
    permuted, _ = LOSSES[name](*(t[order] for t in tensors), mask[order], how="sequence_mean")
    assert_close(permuted, loss, tolerance=FLOAT64)


@pytest.mark.parametrize("name", list(LOSSES))
def test_bool_and_float_masks_are_the_same_and_metrics_are_detached_scalars(name: str) -> None:
    mask, tensors = right_padded([5, 2, 4, 3], 5), data(seed=2)
    leaf = tensors[0].clone().requires_grad_()
    loss, metrics = LOSSES[name](leaf, *tensors[1:], mask, how="token_mean")
    same, _ = LOSSES[name](leaf, *tensors[1:], mask.float(), how="token_mean")
    assert_close(same, loss, tolerance=EXACT)
    assert loss.requires_grad and loss.ndim == 0
    for value in metrics.values():
        assert value.ndim == 0 and not value.requires_grad


@pytest.mark.parametrize("name", list(LOSSES))
def test_shapes_that_would_broadcast_are_refused(name: str) -> None:
    x, a, b = data(seed=3)
    with pytest.raises(AssertionError):
        LOSSES[name](x[:, :1], a, b, right_padded([5, 2, 4, 3], 5), how="token_mean")


def test_sft_is_the_mean_negative_log_likelihood() -> None:
    # tokens -1 -3 | -5: token mean 3; sequence mean (2 + 5)/2
    log_probs, mask = torch.tensor([[-1.0, -3.0], [-5.0, 99.0]]), right_padded([2, 1], 2)
    loss, metrics = sft_loss(log_probs=log_probs, mask=mask)
    assert_close(loss, 3.0, tolerance=EXACT)
    assert_close(metrics["log_perplexity"], 3.0, tolerance=EXACT)
    by_sequence, _ = sft_loss(log_probs=log_probs, mask=mask, how="sequence_mean")
    assert_close(by_sequence, 3.5, tolerance=EXACT)
    flat, _ = sft_loss(log_probs=log_probs[mask][None], mask=torch.ones(1, 3))
    assert_close(flat, 3.0, tolerance=EXACT)
