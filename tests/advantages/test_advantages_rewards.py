"""Token rewards and the missing-EOS rule."""

from __future__ import annotations

import pytest
import torch
from helpers_numeric import EXACT, FLOAT64, assert_close, properties, randn, right_padded
from hypothesis import given
from hypothesis import strategies as st

from modern_rlhf.advantages import missing_eos, scorable_mask, token_rewards
from modern_rlhf.errors import ConfigError

NAN = float("nan")


def test_token_rewards_by_hand() -> None:
    rewards = token_rewards(
        scores=torch.tensor([2.0, -1.0]),
        log_probs=torch.tensor([[-1.0, -2.0, -3.0], [-1.0, 7.0, 7.0]]),
        ref_log_probs=torch.tensor([[-1.5, -2.0, -2.0], [-3.0, 7.0, 9.0]]),
        mask=right_padded([3, 1], 3),
        kl_coefficient=0.1,
    )
    # row 0: -.1 * (.5, 0, -1) and the score 2 on the third; row 1: -.1 * 2 - 1 on its only token
    assert_close(rewards, [[-0.05, 0.0, 2.1], [-1.2, 0.0, 0.0]], tolerance=1e-6)


@properties
@given(
    lengths=st.lists(st.integers(1, 8), min_size=1, max_size=5),
    beta=st.floats(0.0, 2.0),
    seed=st.integers(0, 999),
)
def test_rows_sum_to_the_score_minus_beta_times_the_kl(
    lengths: list[int], beta: float, seed: int
) -> None:
    mask, rows = right_padded(lengths, 8), len(lengths)
    scores, policy, reference = (
        randn(rows, seed=seed),
        randn(rows, 8, seed=seed + 1),
        randn(rows, 8, seed=seed + 2),
    )
    rewards = token_rewards(
        scores=scores,
        log_probs=policy,
        ref_log_probs=reference,
        mask=mask,
        kl_coefficient=beta,
    )
    for i, length in enumerate(lengths):
        kl = sum(float(policy[i, t] - reference[i, t]) for t in range(length))
        assert_close(rewards[i].sum(), float(scores[i]) - beta * kl, tolerance=FLOAT64)
    assert_close(rewards[~mask], torch.zeros(int((~mask).sum())), tolerance=EXACT)


def test_the_score_sits_on_the_last_real_token_wherever_the_padding_is() -> None:
    mask = torch.tensor([[0, 1, 1, 0], [1, 1, 0, 1], [0, 0, 0, 0]])
    zeros = torch.zeros(3, 4)
    rewards = token_rewards(
        scores=torch.tensor([5.0, 6.0, 7.0]),
        log_probs=zeros,
        ref_log_probs=zeros,
        mask=mask,
        kl_coefficient=1.0,
    )
    # the third row has no action that could have earned its score
    expected = [[0.0, 0.0, 5.0, 0.0], [0.0, 0.0, 0.0, 6.0], [0.0, 0.0, 0.0, 0.0]]
    assert_close(rewards, expected, tolerance=EXACT)


def test_unscorable_rows_and_garbage_padding_give_zero() -> None:
    mask = right_padded([2, 2], 3)
    policy = randn(2, 3, seed=0).masked_fill(~mask, NAN)
    rewards = token_rewards(
        scores=torch.tensor([NAN, 1.0], dtype=torch.float64),
        log_probs=policy,
        ref_log_probs=torch.zeros(2, 3, dtype=torch.float64),
        mask=mask,
        kl_coefficient=0.5,
        valid=torch.tensor([False, True]),
    )
    assert_close(rewards[0], [0.0, 0.0, 0.0], tolerance=EXACT)
    assert_close(rewards[1].sum(), 1.0 - 0.5 * float(policy[1, :2].sum()), tolerance=FLOAT64)


def test_no_gradient_goes_through_the_reward() -> None:
    policy = torch.zeros(1, 2, requires_grad=True)
    rewards = token_rewards(
        scores=torch.ones(1),
        log_probs=policy,
        ref_log_probs=torch.zeros(1, 2),
        mask=torch.ones(1, 2),
        kl_coefficient=1.0,
    )
    assert not rewards.requires_grad


def test_missing_eos_rules() -> None:
    scores, has_eos = torch.tensor([1.0, 2.0, NAN]), torch.tensor([True, False, False])
    replaced = missing_eos(scores, has_eos, rule="replace", value=-1.0)
    assert replaced[:2].tolist() == [1.0, -1.0]
    subtracted = missing_eos(scores, has_eos, rule="subtract", value=0.5)
    assert subtracted[:2].tolist() == [1.0, 1.5]
    untouched = missing_eos(scores, has_eos, rule="none", value=9.0)
    assert untouched[:2].tolist() == [1.0, 2.0]
    # a sample that could not be scored must not get a score by this way
    for result in (replaced, subtracted, untouched):
        assert bool(result[2].isnan())
    with pytest.raises(ConfigError, match="'penalise'"):
        missing_eos(scores, has_eos, rule="penalise")  # type: ignore[arg-type]


def test_scorable_mask_takes_out_whole_rows() -> None:
    mask = scorable_mask(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([True, False]))
    assert mask.tolist() == [[True, False], [False, False]]
