"""The tilted-policy toy: where each algorithm's own loss really leads, on four actions.

Maximising E[r] - beta KL(policy || reference) over four actions has the solution
policy ~ reference * exp(r / beta). Each algorithm is followed to its fixed point with the gradient
of its loss *in expectation*: every possible group of samples is enumerated and weighted with its
probability, so no sampling noise hides a wrong sign, a wrong baseline or a wrong KL. The pieces are
the ones trainers use. What misses the solution, and by how much, is asserted too.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from helpers_numeric import assert_close, gradients
from torch import Tensor

from modern_rlhf.advantages import (
    gae,
    group_advantages,
    leave_one_out,
    moving_average_baseline,
    token_rewards,
    whiten_advantages,
)
from modern_rlhf.losses.kto import kto_loss
from modern_rlhf.losses.policy import clipped_surrogate, kl_penalty, reinforce
from modern_rlhf.losses.preference import preference_loss
from modern_rlhf.losses.value import clipped_value_loss
from modern_rlhf.trainer.pairs import best_and_worst

BETA = 0.5
REWARDS = torch.tensor([0.0, 0.5, 1.0, 0.2], dtype=torch.float64)
REFERENCE = torch.tensor([0.4, 0.3, 0.1, 0.2], dtype=torch.float64).log()
ONE_RIGHT = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
UNIFORM = torch.full((4,), 0.25, dtype=torch.float64).log()

AdvantagesOf = Callable[[Tensor], Tensor]


def tilted(rewards: Tensor, reference: Tensor) -> Tensor:
    """The solution, (4,) probabilities."""
    return (reference + rewards / BETA).softmax(-1)


def distance(policy: Tensor, target: Tensor) -> float:
    """The largest difference of a probability."""
    return float((policy - target).abs().max())


def fixed_point(loss: Callable[[Tensor], Tensor], reference: Tensor, rate: float = 1.0) -> Tensor:
    """Probabilities (4,) at which gradient descent on the logits comes to rest."""
    logits = reference.clone()
    for _ in range(3000):
        (gradient,) = gradients(loss, logits)
        logits = logits - rate * gradient
        if float(gradient.abs().max()) < 1e-6:
            return logits.softmax(-1)
    raise AssertionError(f"no fixed point, gradient {gradient}")


def online(
    advantages_of: AdvantagesOf,
    *,
    rewards: Tensor,
    reference: Tensor,
    group: int,
    clipped: bool,
    kl_in_reward: bool,
    kl_coefficient: float = BETA,
) -> Callable[[Tensor], Tensor]:
    """The expected loss of an algorithm that samples groups and compares their members."""
    actions = torch.cartesian_prod(*[torch.arange(4)] * group)  # (4^group, group): all there are
    mask = torch.ones(actions.shape)

    def loss(logits: Tensor) -> Tensor:
        log_policy = logits.log_softmax(-1)
        taken, old = log_policy[actions], log_policy.detach()[actions]
        scores = token_rewards(  # each action a one-token response (D14)
            scores=rewards[actions].flatten(),
            log_probs=old.reshape(-1, 1),
            ref_log_probs=reference[actions].reshape(-1, 1),
            mask=torch.ones(actions.numel(), 1),
            kl_coefficient=kl_coefficient if kl_in_reward else 0.0,
        ).view(actions.shape)
        # times the number of groups, so that the loss's plain mean is the expectation
        chances = old.sum(1, keepdim=True).exp() * len(actions)
        weighted = advantages_of(scores) * chances
        if clipped:
            total, _ = clipped_surrogate(
                log_probs=taken,
                old_log_probs=old,
                advantages=weighted,
                mask=mask,
                clip_low=0.2,
                clip_high=0.2,
                how="token_mean",
            )
        else:
            total, _ = reinforce(log_probs=taken, advantages=weighted, mask=mask, how="token_mean")
        if not kl_in_reward:
            total = total + kl_coefficient * expected_kl(log_policy, reference, kind="k3")
        return total

    return loss


def expected_kl(
    log_policy: Tensor, reference: Tensor, *, kind: str, with_ratio: bool = True
) -> Tensor:
    """The expectation of the KL loss term over the four actions."""
    old = log_policy.detach()
    terms = [
        kl_penalty(
            log_probs=log_policy[a].view(1, 1),
            ref_log_probs=reference[a].view(1, 1),
            old_log_probs=old[a].view(1, 1) if with_ratio else None,
            mask=torch.ones(1, 1),
            kind=kind,
            how="token_mean",
        )[0]
        for a in range(4)
    ]
    return (old.exp() * torch.stack(terms)).sum()


def grpo(kind: str) -> AdvantagesOf:
    return lambda scores: group_advantages(scores, kind=kind)


TOY = {"rewards": REWARDS, "reference": REFERENCE, "group": 4}
TARGET = tilted(REWARDS, REFERENCE)


@pytest.mark.parametrize("clipped", [False, True])
@pytest.mark.parametrize("kl_in_reward", [False, True])
def test_rloo_reaches_the_tilted_policy(clipped: bool, kl_in_reward: bool) -> None:
    loss = online(leave_one_out, **TOY, clipped=clipped, kl_in_reward=kl_in_reward)
    assert distance(fixed_point(loss, REFERENCE), TARGET) < 1e-3


def test_centred_grpo_reaches_the_tilted_policy() -> None:
    loss = online(grpo("dr_grpo"), **TOY, clipped=True, kl_in_reward=True)
    assert distance(fixed_point(loss, REFERENCE), TARGET) < 1e-3


def test_centred_grpo_with_the_kl_as_a_loss_acts_as_a_larger_beta() -> None:
    # subtracting the mean of all G samples, own one included, shrinks the policy gradient by
    # (G - 1) / G; a KL outside the reward is not shrunk with it: beta acts as beta G / (G - 1)
    loss = online(grpo("dr_grpo"), **TOY, clipped=True, kl_in_reward=False)
    assert 0.06 < distance(fixed_point(loss, REFERENCE), TARGET) < 0.09
    corrected = online(
        grpo("dr_grpo"), **TOY, clipped=True, kl_in_reward=False, kl_coefficient=BETA * 3 / 4
    )
    assert distance(fixed_point(corrected, REFERENCE), TARGET) < 1e-3


@pytest.mark.parametrize("kind", ["grpo", "dapo"])
@pytest.mark.parametrize(("group", "missed"), [(2, 0.1330), (4, 0.1473)])
def test_dividing_by_the_group_deviation_misses_it(kind: str, group: int, missed: float) -> None:
    # one right answer in four, the KL as a loss term as published: too far by .13 (pairs)
    loss = online(
        grpo(kind),
        rewards=ONE_RIGHT,
        reference=UNIFORM,
        group=group,
        clipped=True,
        kl_in_reward=False,
    )
    target = tilted(ONE_RIGHT, UNIFORM)
    assert_close(distance(fixed_point(loss, UNIFORM), target), missed, tolerance=2e-3)
    exact = online(
        leave_one_out,
        rewards=ONE_RIGHT,
        reference=UNIFORM,
        group=group,
        clipped=True,
        kl_in_reward=False,
    )
    assert distance(fixed_point(exact, UNIFORM), target) < 1e-3


def test_reinforce_reaches_the_tilted_policy() -> None:
    past: list[Tensor | float | None] = [None]

    def loss(logits: Tensor) -> Tensor:
        log_policy = logits.log_softmax(-1)
        rewards = token_rewards(
            scores=REWARDS,
            log_probs=log_policy.detach()[:, None],
            ref_log_probs=REFERENCE[:, None],
            mask=torch.ones(4, 1),
            kl_coefficient=BETA,
        ).squeeze(1)
        if past[0] is None:  # the first batch sets the baseline
            _, past[0] = moving_average_baseline(rewards, baseline=None, decay=0.9)
        advantages, past[0] = moving_average_baseline(rewards, baseline=past[0], decay=0.9)
        return reinforce(
            log_probs=log_policy[:, None],
            advantages=advantages * log_policy.detach().exp() * 4,
            mask=torch.ones(4, 1),
            how="constant_length",
            constant_length=1,
        )[0]

    assert distance(fixed_point(loss, REFERENCE), TARGET) < 1e-3


def ppo_advantages(log_policy: Tensor, value: Tensor, *, whiten: bool) -> tuple[Tensor, Tensor]:
    """(4, 1) advantages and returns of the four actions, each standing for one sample."""
    mask = torch.ones(4, 1)
    advantages, returns = gae(
        rewards=token_rewards(
            scores=REWARDS,
            log_probs=log_policy[:, None],
            ref_log_probs=REFERENCE[:, None],
            mask=mask,
            kl_coefficient=BETA,
        ),
        values=value.expand(4, 1),
        mask=mask,
        gamma=1.0,
        lam=0.95,
    )
    if whiten:
        advantages = whiten_advantages(advantages, mask, unbiased=False)
    return advantages, returns


def ppo(parameters: Tensor, *, whiten: bool = False) -> Tensor:
    """PPO's expected loss; parameters are four logits and the value of the one state there is."""
    log_policy, value = parameters[:4].log_softmax(-1), parameters[4]
    old = log_policy.detach()
    advantages, returns = ppo_advantages(old, value.detach(), whiten=whiten)
    policy_loss, _ = clipped_surrogate(
        log_probs=log_policy[:, None],
        old_log_probs=old[:, None],
        advantages=advantages * old.exp()[:, None] * 4,
        mask=torch.ones(4, 1),
        clip_low=0.2,
        clip_high=0.2,
        how="token_mean",
    )
    value_losses = [
        clipped_value_loss(
            values=value.view(1, 1),
            old_values=value.detach().view(1, 1),
            returns=returns[action].view(1, 1),
            mask=torch.ones(1, 1),
            clip=0.2,
        )[0]
        for action in range(4)
    ]
    return policy_loss + (old.exp() * torch.stack(value_losses)).sum()


def test_ppo_reaches_the_tilted_policy_and_knows_its_value() -> None:
    parameters = torch.cat([REFERENCE, torch.zeros(1, dtype=torch.float64)])
    for _ in range(3000):
        (gradient,) = gradients(ppo, parameters)
        parameters = parameters - gradient
        if float(gradient.abs().max()) < 1e-6:
            break
    assert distance(parameters[:4].softmax(-1), TARGET) < 1e-3
    # At the optimum every action has the same return: beta log sum_a reference_a exp(r_a / beta).
    level = BETA * (REFERENCE + REWARDS / BETA).logsumexp(-1)
    assert_close(parameters[4], level, tolerance=1e-3)


def test_whitening_changes_the_length_of_the_gradient_and_not_its_direction() -> None:
    # A uniform policy: each action is as frequent in the policy as it is among the samples.
    parameters = torch.tensor([0.3, 0.3, 0.3, 0.3, 0.7]).double()
    plain = gradients(ppo, parameters)[0][:4]
    white = gradients(lambda p: ppo(p, whiten=True), parameters)[0][:4]
    old = parameters[:4].log_softmax(-1)
    advantages, _ = ppo_advantages(old, parameters[4], whiten=False)
    spread = float((old.exp() * (advantages[:, 0] - (old.exp() @ advantages)) ** 2).sum().sqrt())
    assert_close(white * spread, plain, tolerance=1e-6)


def with_kl_term(kind: str, with_ratio: bool) -> Callable[[Tensor], Tensor]:
    """Plain expected reward and the KL as a loss term."""

    def loss(logits: Tensor) -> Tensor:
        log_policy = logits.log_softmax(-1)
        surrogate, _ = reinforce(
            log_probs=log_policy[:, None],
            advantages=REWARDS * log_policy.detach().exp() * 4,
            mask=torch.ones(4, 1),
            how="token_mean",
        )
        return surrogate + BETA * expected_kl(
            log_policy, REFERENCE, kind=kind, with_ratio=with_ratio
        )

    return loss


@pytest.mark.parametrize(
    ("kind", "with_ratio"), [("k1", True), ("k2", True), ("k3", True), ("k2", False)]
)
def test_a_kl_loss_with_the_right_gradient_reaches_it(kind: str, with_ratio: bool) -> None:
    assert distance(fixed_point(with_kl_term(kind, with_ratio), REFERENCE), TARGET) < 1e-3


def test_k3_without_the_ratio_leads_elsewhere() -> None:
    # its gradient is that of KL(reference || policy): the optimum is then
    # policy_a = beta * reference_a / (lambda - r_a), so lambda must come out alike for all actions
    reached = fixed_point(with_kl_term("k3", with_ratio=False), REFERENCE)
    implied = REWARDS + BETA * REFERENCE.exp() / reached
    assert_close(implied, implied.mean().expand(4), tolerance=1e-3)
    assert distance(reached, TARGET) > 0.01


def preferences() -> tuple[Tensor, Tensor, Tensor]:
    """All ordered pairs (12,), (12,) and how often the first wins under Bradley-Terry (12,)."""
    first, second = (~torch.eye(4, dtype=torch.bool)).nonzero().T
    return first, second, torch.sigmoid(REWARDS[first] - REWARDS[second])


def offline(kind: str, wins: Tensor, smoothing: float = 0.0) -> Callable[[Tensor], Tensor]:
    """The expected preference loss when the first of each pair wins as often as `wins` says."""
    first, second, _ = preferences()

    def loss(logits: Tensor) -> Tensor:
        log_policy = logits.log_softmax(-1)
        return preference_loss(
            kind=kind,
            policy_chosen=log_policy[first],
            policy_rejected=log_policy[second],
            reference_chosen=REFERENCE[first],
            reference_rejected=REFERENCE[second],
            chosen_lengths=torch.ones(12),
            rejected_lengths=torch.ones(12),
            beta=BETA,
            label_smoothing=smoothing,
            weights=wins,
        )[0]

    return loss


def test_dpo_on_exact_preferences_reaches_the_tilted_policy() -> None:
    wins = preferences()[2]
    assert distance(fixed_point(offline("sigmoid", wins), REFERENCE, rate=5.0), TARGET) < 1e-3


def test_robust_dpo_reaches_it_through_flipped_labels() -> None:
    wins = preferences()[2]
    flipped = 0.8 * wins + 0.2 * (1.0 - wins)  # a fifth of the labels the wrong way round
    robust = fixed_point(offline("robust", flipped, smoothing=0.2), REFERENCE, rate=5.0)
    assert distance(robust, TARGET) < 1e-3
    plain = fixed_point(offline("sigmoid", flipped), REFERENCE, rate=5.0)
    assert distance(plain, TARGET) > 0.05


def test_kto_moves_towards_the_desirable_actions() -> None:
    # KTO has no tilted fixed point, its value function saturates; the direction must be right
    labels = torch.tensor([False, True, True, False])

    def loss(logits: Tensor) -> Tensor:
        return kto_loss(
            policy=logits.log_softmax(-1), reference=REFERENCE, labels=labels, kl=0.0, beta=BETA
        )[0]

    logits = REFERENCE.clone()
    for _ in range(50):
        logits = logits - gradients(loss, logits)[0]
    gain = logits.softmax(-1) - REFERENCE.exp()
    assert bool((gain[labels] > 0).all()) and bool((gain[~labels] < 0).all())


def test_online_dpo_climbs_though_it_has_no_tilted_fixed_point() -> None:
    # The better of two samples always wins, which is no Bradley-Terry preference: the policy goes on
    # towards the best action as far as beta lets each pair push. The direction must be right.
    pairs = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    best, worst, differ = best_and_worst(REWARDS[pairs], torch.ones_like(pairs, dtype=torch.bool))
    rows = torch.arange(len(pairs))
    chosen, rejected = pairs[rows, best][differ], pairs[rows, worst][differ]
    assert int(differ.sum()) == 12  # an action against itself makes no pair

    def loss(logits: Tensor) -> Tensor:
        log_policy = logits.log_softmax(-1)
        return preference_loss(
            kind="sigmoid",
            policy_chosen=log_policy[chosen],
            policy_rejected=log_policy[rejected],
            reference_chosen=REFERENCE[chosen],
            reference_rejected=REFERENCE[rejected],
            chosen_lengths=torch.ones(12),
            rejected_lengths=torch.ones(12),
            beta=BETA,
            weights=(log_policy[chosen] + log_policy[rejected]).detach().exp(),
        )[0]

    logits, rewards = REFERENCE.clone(), []
    for _ in range(50):
        rewards.append(float(logits.softmax(-1) @ REWARDS))
        logits = logits - gradients(loss, logits)[0]
    assert rewards == sorted(rewards) and rewards[-1] > rewards[0] + 0.1
