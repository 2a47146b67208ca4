"""The chunked head against the plain log-softmax: values, gradients, dtypes, memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import torch
from helpers_numeric import BF16, EXACT, FLOAT32, FLOAT64, assert_close, generator, randn
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from modern_rlhf.ops.log_probs import log_probs_from_logits, response_log_probs

N, H, V = 11, 6, 700  # two backward blocks of at least 256, the last one ragged


@pytest.fixture
def head() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """hidden (N, H), weight (V, H), bias (V,), labels (N,) with the block borders among them."""
    labels = torch.randint(0, V, (N,), generator=generator(9))
    labels[:4] = torch.tensor([0, 255, 256, V - 1])
    return randn(N, H, seed=1), randn(V, H, seed=2), randn(V, seed=3), labels


def naive(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """The definition: whole logits, log-softmax, lookup; entropy as the sum of -p log p."""
    logits = hidden @ weight.T
    if bias is not None:
        logits = logits + bias
    log_p = (logits / temperature).log_softmax(-1)
    return log_p[torch.arange(len(labels)), labels], -(log_p.exp() * log_p).sum(-1)


def weighted_sum(log_probs: Tensor, entropy: Tensor | None) -> Tensor:
    """A scalar that gives every row, and the entropy, a weight of its own."""
    rows = torch.linspace(-1.0, 2.0, len(log_probs), dtype=log_probs.dtype)
    total = (rows * log_probs).sum()
    return total if entropy is None else total + (rows.flip(0) * entropy).sum()


@pytest.mark.parametrize("chunk_size", [1, 3, 64])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("with_entropy", [False, True])
def test_values_and_gradients_equal_the_definition(
    head: tuple[Tensor, ...], chunk_size: int, temperature: float, with_entropy: bool
) -> None:
    *parameters, labels = head
    ours, theirs = ([p.clone().requires_grad_() for p in parameters] for _ in range(2))
    log_probs, entropy = response_log_probs(
        ours[0],
        ours[1],
        labels,
        bias=ours[2],
        temperature=temperature,
        chunk_size=chunk_size,
        with_entropy=with_entropy,
    )
    expected, expected_entropy = naive(*theirs, labels, temperature)
    assert_close(log_probs, expected, tolerance=FLOAT64)
    assert (entropy is not None) == with_entropy
    if entropy is not None:
        assert_close(entropy, expected_entropy, tolerance=FLOAT64)
    weighted_sum(log_probs, entropy).backward()
    weighted_sum(expected, expected_entropy if with_entropy else None).backward()
    for name, a, b in zip(("hidden", "weight", "bias"), ours, theirs, strict=True):
        assert_close(a.grad, b.grad, tolerance=FLOAT64, what=name)


@pytest.mark.parametrize("with_entropy", [False, True])
def test_a_frozen_head_gives_the_same_gradient(
    head: tuple[Tensor, ...], with_entropy: bool
) -> None:
    hidden, weight, bias, labels = head
    ours, theirs = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    log_probs, entropy = response_log_probs(
        ours, weight, labels, bias=bias, temperature=0.7, chunk_size=4, with_entropy=with_entropy
    )
    expected, expected_entropy = naive(theirs, weight, bias, labels, 0.7)
    weighted_sum(log_probs, entropy).backward()
    weighted_sum(expected, expected_entropy if with_entropy else None).backward()
    assert_close(ours.grad, theirs.grad, tolerance=FLOAT64)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("used", ["log_probs", "entropy"])
def test_one_of_the_two_results_may_be_left_unused(
    head: tuple[Tensor, ...], frozen: bool, used: str
) -> None:
    hidden, weight, _, labels = head
    ours, theirs = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    heads = [weight.clone().requires_grad_(not frozen) for _ in range(2)]
    results = dict(
        zip(
            ("log_probs", "entropy"),
            response_log_probs(ours, heads[0], labels, with_entropy=True),
            strict=True,
        )
    )
    expected = dict(
        zip(("log_probs", "entropy"), naive(theirs, heads[1], None, labels, 1.0), strict=True)
    )
    weighted_sum(results[used], None).backward()
    weighted_sum(expected[used], None).backward()
    assert_close(ours.grad, theirs.grad, tolerance=FLOAT64)
    if not frozen:
        assert_close(heads[0].grad, heads[1].grad, tolerance=FLOAT64)


def test_only_the_weight_may_need_a_gradient(head: tuple[Tensor, ...]) -> None:
    hidden, weight, _, labels = head
    ours, theirs = weight.clone().requires_grad_(), weight.clone().requires_grad_()
    weighted_sum(*response_log_probs(hidden, ours, labels)).backward()
    weighted_sum(naive(hidden, theirs, None, labels, 1.0)[0], None).backward()
    assert_close(ours.grad, theirs.grad, tolerance=FLOAT64)


def test_finite_differences(head: tuple[Tensor, ...]) -> None:
    hidden, weight, bias, labels = head
    inputs = [x[:300].clone().requires_grad_() for x in (hidden, weight, bias)]
    assert torch.autograd.gradcheck(
        lambda h, w, b: response_log_probs(
            h, w, labels % 300, bias=b, temperature=0.7, chunk_size=4, with_entropy=True
        ),
        inputs,
        fast_mode=True,
    )


def test_float32_agrees_with_float64(head: tuple[Tensor, ...]) -> None:
    hidden, weight, bias, labels = head
    single, entropy = response_log_probs(
        hidden.float(), weight.float(), labels, bias=bias.float(), with_entropy=True
    )
    expected, expected_entropy = naive(hidden, weight, bias, labels, 1.0)
    assert single.dtype == torch.float32
    assert_close(single, expected, tolerance=FLOAT32)
    assert_close(entropy, expected_entropy, tolerance=FLOAT32)


def test_bf16_inputs_give_float32_results_and_bf16_gradients(head: tuple[Tensor, ...]) -> None:
    hidden, weight = (x.to(torch.bfloat16).requires_grad_() for x in head[:2])
    labels = head[3]
    log_probs, _ = response_log_probs(hidden, weight, labels, chunk_size=4)
    assert log_probs.dtype == torch.float32
    wide = [x.detach().double().requires_grad_() for x in (hidden, weight)]
    expected, _ = naive(*wide, None, labels, 1.0)
    assert_close(log_probs, expected, tolerance=BF16)
    log_probs.sum().backward()
    expected.sum().backward()
    for ours, theirs in zip((hidden, weight), wide, strict=True):
        assert ours.grad is not None and ours.grad.dtype == torch.bfloat16
        assert_close(ours.grad, theirs.grad, tolerance=BF16)


def test_autocast_computes_in_its_dtype_and_keeps_float32_gradients(
    head: tuple[Tensor, ...],
) -> None:
    hidden, weight = (x.float().requires_grad_() for x in head[:2])
    labels = head[3]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        log_probs, _ = response_log_probs(hidden, weight, labels)
    low, _ = response_log_probs(hidden.bfloat16(), weight.bfloat16(), labels)
    assert_close(log_probs, low, tolerance=EXACT)
    log_probs.sum().backward()
    assert hidden.grad is not None and hidden.grad.dtype == torch.float32
    assert weight.grad is not None and weight.grad.dtype == torch.float32


def test_logits_far_from_zero_stay_finite() -> None:
    hidden = torch.tensor([[1e4], [-1e4]], requires_grad=True)
    weight = torch.tensor([[1.0], [-1.0], [0.0]], requires_grad=True)
    log_probs, entropy = response_log_probs(hidden, weight, torch.tensor([0, 0]), with_entropy=True)
    # row 0: the label has all the mass; row 1: it is 2e4 nats below the top
    assert_close(log_probs, [0.0, -2e4], tolerance=EXACT)
    assert_close(entropy, [0.0, 0.0], tolerance=EXACT)
    (log_probs.sum() + entropy.sum()).backward()
    assert bool(torch.isfinite(hidden.grad).all()) and bool(torch.isfinite(weight.grad).all())


def test_no_rows_are_no_trouble() -> None:
    hidden = torch.zeros(0, 3, requires_grad=True)
    weight = torch.ones(5, 3, requires_grad=True)
    log_probs, entropy = response_log_probs(
        hidden, weight, torch.zeros(0, dtype=torch.long), with_entropy=True
    )
    assert log_probs.shape == (0,) and entropy is not None and entropy.shape == (0,)
    log_probs.sum().backward()
    assert_close(weight.grad, torch.zeros(5, 3), tolerance=EXACT)


def test_log_probs_from_logits_divides_by_the_temperature() -> None:
    # logits (0, ln 4) at T = 2 are (0, ln 2): probabilities 1/3 and 2/3
    logits = torch.tensor([[0.0, 1.3862943611], [0.0, 1.3862943611]], dtype=torch.float64)
    labels = torch.tensor([0, 1])
    expected = torch.tensor([1 / 3, 2 / 3], dtype=torch.float64).log()
    assert_close(log_probs_from_logits(logits, labels, temperature=2.0), expected, tolerance=1e-9)
    assert log_probs_from_logits(logits.bfloat16(), labels).dtype == torch.float32


def test_shapes_and_temperature_are_checked() -> None:
    hidden, weight = torch.zeros(2, 3), torch.zeros(5, 3)
    with pytest.raises(AssertionError, match="for 2 rows"):
        response_log_probs(hidden, weight, torch.zeros(3, dtype=torch.long))
    with pytest.raises(AssertionError, match="temperature=0"):
        response_log_probs(hidden, weight, torch.zeros(2, dtype=torch.long), temperature=0.0)
    with pytest.raises(AssertionError):
        log_probs_from_logits(torch.zeros(2, 5), torch.zeros(2, 1, dtype=torch.long))


class LargestTensor(TorchDispatchMode):
    """Records the most elements any tensor made under it has, the given sizes left out."""

    def __init__(self, allowed: set[int]) -> None:
        super().__init__()
        self.allowed, self.largest = allowed, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            if tensor.numel() not in self.allowed:
                self.largest = max(self.largest, tensor.numel())
        return result


def _tensors(result: object) -> Iterator[Tensor]:
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, (tuple, list)):
        for item in result:
            yield from _tensors(item)


@pytest.mark.parametrize("with_entropy", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_no_tensor_comes_near_the_whole_logits(with_entropy: bool, frozen: bool) -> None:
    rows, width, vocabulary, chunk = 256, 8, 4096, 16
    hidden = randn(rows, width, seed=1, dtype=torch.float32).requires_grad_()
    weight = randn(vocabulary, width, seed=2, dtype=torch.float32).requires_grad_(not frozen)
    labels = torch.randint(0, vocabulary, (rows,), generator=generator(3))
    with LargestTensor(allowed={vocabulary * width}) as watch:  # weight and its gradient
        log_probs, entropy = response_log_probs(
            hidden, weight, labels, chunk_size=chunk, with_entropy=with_entropy
        )
        weighted_sum(log_probs, entropy).backward()
    # a forward block is 16 x 4096, a backward one 256 x 256: a sixteenth of the logits
    assert 0 < watch.largest <= chunk * vocabulary
    with LargestTensor(allowed={vocabulary * width}) as plain:
        weighted_sum(naive(hidden, weight, None, labels, 1.0)[0], None).backward()
    assert plain.largest >= rows * vocabulary  # the watch does see it where it is made


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_forward_and_backward_take_at_most_1_3_times_the_naive_head(dtype: torch.dtype) -> None:
    hidden = randn(2048, 256, seed=1).to(dtype).requires_grad_()
    weight = (randn(4096, 256, seed=2) / 16).to(dtype).requires_grad_()
    labels = torch.randint(0, 4096, (2048,), generator=generator(3))

    def plain() -> Tensor:
        logits = (hidden @ weight.T).float()
        return logits.log_softmax(-1).gather(1, labels[:, None]).squeeze(1)

    def seconds(function: Callable[[], Tensor]) -> float:
        start = time.process_time()  # of this process: others on the machine do not count
        function().sum().backward()
        return time.process_time() - start

    # interleaved, so that a change of the clock rate meets both
    rounds = [
        (seconds(lambda: response_log_probs(hidden, weight, labels)[0]), seconds(plain))
        for _ in range(7)
    ]
    ours, theirs = (min(column) for column in zip(*rounds, strict=True))
    assert ours <= 1.3 * theirs, f"{ours:.3f} s against {theirs:.3f} s"
