"""The training forward: positions, response log-probs, values, heads that scale their logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from modern_rlhf.errors import ModelError
from modern_rlhf.models.forward import Policy, ValueModel, make_sequences, position_ids, trunk_of
from modern_rlhf.models.heads import linear_value_head, reward_head_std
from modern_rlhf.models.loading import disable_dropout, load_causal_lm, resolve_model

PROMPTS = [[5, 6, 7], [8, 9], [10, 11, 12, 13]]
RESPONSES = [[20, 21, 257], [22, 257], [23, 24, 25, 26]]


def gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=259, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    return disable_dropout(GPT2LMHeadModel(config)).eval()


def naive_log_probs(
    lm: Any, prompt: list[int], response: list[int], temperature: float
) -> list[float]:
    """One sequence at a time, no padding, plain log-softmax in float64."""
    ids = torch.tensor([prompt + response])
    logits = lm(input_ids=ids).logits[0].double() / temperature
    table = logits.log_softmax(-1)
    return [float(table[len(prompt) - 1 + t, token]) for t, token in enumerate(response)]


def test_position_ids_count_real_tokens_on_either_side() -> None:
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0]])
    assert position_ids(mask).tolist() == [[0, 0, 0, 1], [0, 1, 2, 3]]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probs_equal_a_naive_forward_without_padding(
    tiny_llama: Callable[..., Any], temperature: float
) -> None:
    for lm in (tiny_llama(), gpt2()):
        policy = Policy(lm)
        assert policy.head_is_plain
        with torch.no_grad():
            out = policy(
                make_sequences(PROMPTS, RESPONSES, pad_id=258),
                temperature=temperature,
                with_entropy=True,
            )
        for row, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
            expected = naive_log_probs(lm, prompt, response, temperature)
            got = out.log_probs[row, : len(response)].tolist()
            assert got == pytest.approx(expected, abs=1e-5)
            assert out.log_probs[row, len(response) :].abs().sum() == 0


def test_what_fills_the_padding_does_not_matter(tiny_llama: Callable[..., Any]) -> None:
    policy = Policy(tiny_llama())
    with torch.no_grad():
        first = policy(make_sequences(PROMPTS, RESPONSES, pad_id=0)).log_probs
        second = policy(make_sequences(PROMPTS, RESPONSES, pad_id=200)).log_probs
    assert torch.equal(first, second)


def test_padding_equal_to_the_end_token_leaves_its_weight_alone(
    tiny_llama: Callable[..., Any],
) -> None:
    # D7: with pad = eos the end token inside the response still has its log-probability.
    policy = Policy(tiny_llama())
    with torch.no_grad():
        padded = policy(make_sequences(PROMPTS, RESPONSES, pad_id=257)).log_probs
        alone = policy(make_sequences(PROMPTS[1:2], RESPONSES[1:2], pad_id=258)).log_probs
    assert padded[1, 1] != 0
    assert padded[1, :2].tolist() == pytest.approx(alone[0].tolist(), abs=1e-6)


def test_zero_value_heads_start_at_zero_everywhere(tiny_llama: Callable[..., Any]) -> None:
    lm = tiny_llama()
    sequences = make_sequences(PROMPTS, RESPONSES, pad_id=258)
    shared = Policy(lm, value_head=linear_value_head(32))(sequences).values
    own = ValueModel(trunk_of(lm), linear_value_head(32))(sequences)
    assert shared is not None
    assert shared.abs().max() == 0 and own.abs().max() == 0


def test_random_value_heads_have_the_stated_spread() -> None:
    head = linear_value_head(4096, init="random", generator=torch.Generator().manual_seed(0))
    # D3: std 1/sqrt(d + 1), within 10%
    assert float(head.weight.std()) == pytest.approx(reward_head_std(4096), rel=0.1)
    assert float(head.bias) == 0


def test_values_read_the_state_before_each_token(tiny_llama: Callable[..., Any]) -> None:
    # The value before the first response token cannot depend on the response.
    model = ValueModel(
        trunk_of(tiny_llama()),
        linear_value_head(32, init="random", generator=torch.Generator().manual_seed(1)),
    )
    first = model(make_sequences([[5, 6]], [[20, 21]], pad_id=258))
    second = model(make_sequences([[5, 6]], [[90, 21]], pad_id=258))
    assert torch.allclose(first[0, 0], second[0, 0], atol=1e-6)
    assert not torch.allclose(first[0, 1], second[0, 1], atol=1e-4)


def test_a_model_that_scales_its_logits_takes_its_own_head() -> None:
    from transformers import CohereConfig, CohereForCausalLM

    torch.manual_seed(0)
    config = CohereConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        logit_scale=0.25,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    lm = CohereForCausalLM(config).eval()
    with torch.no_grad():
        lm.lm_head.weight.mul_(20)
    policy = Policy(lm)
    assert not policy.head_is_plain
    with torch.no_grad():
        out = policy(make_sequences([[5, 6]], [[20, 21]], pad_id=0), with_entropy=True)
    assert out.log_probs[0].tolist() == pytest.approx(
        naive_log_probs(lm, [5, 6], [20, 21], 1.0), abs=1e-4
    )


def test_dropout_is_off_even_in_train_mode() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    lm = disable_dropout(
        GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=1, n_head=2, n_positions=32))
    )
    lm.train()
    ids = torch.arange(6)[None]
    assert torch.equal(lm(ids).logits, lm(ids).logits)


def test_unknown_models_are_refused_in_one_line(tmp_path: Any) -> None:
    for name in ("builtin:nothing", str(tmp_path / "missing"), "./missing"):
        with pytest.raises(ModelError) as caught:
            resolve_model(name)
        assert "\n" not in str(caught.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"config\.json"):
        load_causal_lm(str(tmp_path / "empty"))
