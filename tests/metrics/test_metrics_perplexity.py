"""Perplexity of references under a policy."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("torch")

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from modern_rlhf.errors import MetricError
from modern_rlhf.metrics import perplexity
from modern_rlhf.metrics.perplexity import reference_perplexity
from modern_rlhf.models.forward import Policy

PROMPTS = [[1, 2, 3], [4], [5, 6], [7, 8], []]
ANSWERS = [[4, 5], [6, 7, 8, 9], [2], None, [3]]


@pytest.fixture(scope="module")
def policy() -> Policy:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=24,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
    )
    return Policy(LlamaForCausalLM(config).eval())


def naive(policy: Policy, prompt: list[int], answer: list[int]) -> float:
    """Negative log-likelihood, one full forward a token, float64."""
    total = 0.0
    for place, token in enumerate(answer):
        with torch.no_grad():
            logits = policy.lm(torch.tensor([prompt + answer[:place]])).logits[0, -1].double()
        total -= float(torch.log_softmax(logits, dim=0)[token])
    return total


def test_equals_a_naive_loop_and_weighs_tokens(policy: Policy) -> None:
    result = reference_perplexity(policy, PROMPTS, ANSWERS, pad_id=0)
    losses = [naive(policy, PROMPTS[i], ANSWERS[i] or []) for i in range(3)]
    lengths = [2, 4, 1]
    expected = [math.exp(one / n) for one, n in zip(losses, lengths, strict=True)]
    assert result.per_item[:3] == pytest.approx(expected, rel=1e-5)
    assert result.per_item[3:] == [None, None]
    assert result.value == pytest.approx(math.exp(sum(losses) / 7), rel=1e-5)
    assert result.n == 3
    assert result.low is not None and result.low <= result.value  # type: ignore[operator]


def test_batching_changes_nothing(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = reference_perplexity(policy, PROMPTS, ANSWERS, pad_id=0)
    monkeypatch.setattr(perplexity, "TOKENS_AT_ONCE", 1)
    alone = reference_perplexity(policy, PROMPTS, ANSWERS, pad_id=0)
    assert alone.value == pytest.approx(whole.value, rel=1e-5)


def test_nothing_to_measure_has_a_reason(policy: Policy) -> None:
    result = reference_perplexity(policy, [[1]], [None], pad_id=0)
    assert (result.value, result.n) == (None, 0)
    assert result.reason
    with pytest.raises(MetricError, match="1 prompts and 0 references"):
        reference_perplexity(policy, [[1]], [], pad_id=0)
