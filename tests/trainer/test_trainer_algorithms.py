"""The rows of the table as the trainer uses them: what each hands to the losses."""

from __future__ import annotations

import pytest
import torch

from modern_rlhf.config.training import DPO_LOSSES, TrainingConfig
from modern_rlhf.losses.preference import KINDS
from modern_rlhf.trainer.algorithms import ALGORITHMS, AdvantageInputs, PolicyLossInputs


def test_the_kl_term_of_grpo_has_the_gradient_of_the_kl_to_the_reference() -> None:
    # D32, exactly: 20 one-token samples in the proportions of the policy (8, 6, 4, 1, 1 of 20) are
    # its expectation, and with advantages of 0 the loss is beta x the KL term alone.
    probabilities = torch.tensor([0.4, 0.3, 0.2, 0.05, 0.05], dtype=torch.float64)
    reference = torch.tensor([0.1, 0.2, 0.2, 0.2, 0.3], dtype=torch.float64).log()
    tokens = torch.tensor([0] * 8 + [1] * 6 + [2] * 4 + [3, 4])
    logits = probabilities.log().requires_grad_()
    log_probs = logits.log_softmax(0)
    taken = log_probs[tokens][:, None]
    mask = torch.ones(20, 1, dtype=torch.bool)
    loss, _ = ALGORITHMS["grpo"].policy_loss(
        PolicyLossInputs(
            log_probs=taken,
            old_log_probs=taken.detach(),
            ref_log_probs=reference[tokens][:, None],
            advantages=torch.zeros(20, 1, dtype=torch.float64),
            mask=mask,
            denominator=torch.tensor(20.0),
            how="sequence_mean",
            constant_length=None,
            kl_coefficient=0.3,
            training=TrainingConfig(algorithm="grpo", samples_per_prompt=2),
        )
    )
    found = torch.autograd.grad(loss, logits, retain_graph=True)[0]
    exact = 0.3 * (log_probs.exp() * (log_probs - reference)).sum()
    assert torch.allclose(found, torch.autograd.grad(exact, logits)[0], atol=1e-12)


def inputs(algorithm: str, **changes: object) -> AdvantageInputs:
    mask = torch.ones(4, 2, dtype=torch.bool)
    values: dict[str, object] = {
        "scores": torch.tensor([1.0, 3.0, 2.0, 2.0]),
        "valid": torch.ones(4, dtype=torch.bool),
        "mask": mask,
        "log_probs": torch.full((4, 2), -1.0),
        "ref_log_probs": torch.full((4, 2), -1.5),
        "values": None,
        "kl_coefficient": 0.1,
        "group_size": 2,
        "baseline": None,
        "training": TrainingConfig(algorithm=algorithm, samples_per_prompt=2, baseline_decay=0.5),
    }
    return AdvantageInputs(**(values | changes))  # type: ignore[arg-type]


def test_the_kl_is_in_the_reward_of_reinforce_and_rloo_but_not_of_grpo() -> None:
    # Every response has a log-ratio of 2 x .5 = 1, except the second one with 2 x 1.5 = 3.
    reference = torch.full((4, 2), -1.5)
    reference[1] = -2.5
    rloo = ALGORITHMS["rloo"].advantages(inputs("rloo", ref_log_probs=reference)).advantages
    # rewards 1 - .1 = .9 and 3 - .3 = 2.7: +-1.8; equal ones: exactly 0
    assert rloo.tolist() == [
        pytest.approx([-1.8] * 2),
        pytest.approx([1.8] * 2),
        [0.0, 0.0],
        [0.0, 0.0],
    ]
    grpo = ALGORITHMS["grpo"].advantages(inputs("grpo", ref_log_probs=reference)).advantages
    plain = ALGORITHMS["grpo"].advantages(inputs("grpo")).advantages
    assert torch.equal(grpo, plain)


def test_reinforce_measures_against_earlier_rollouts() -> None:
    found = ALGORITHMS["reinforce"].advantages(inputs("reinforce", baseline=1.5))
    # rewards are scores - .1 x 1; the new baseline is .5 x 1.5 + .5 x mean(.9, 2.9, 1.9, 1.9)
    assert found.advantages[:, 0].tolist() == pytest.approx([-0.6, 1.4, 0.4, 0.4])
    assert found.baseline == pytest.approx(0.5 * 1.5 + 0.5 * 1.9)


def test_the_configuration_offers_exactly_the_losses_there_are() -> None:
    assert set(DPO_LOSSES) == set(KINDS)
    assert set(DPO_LOSSES) == {
        "sigmoid", "ipo", "hinge", "robust", "simpo", "orpo", "nca", "apo_zero"
    }  # fmt: skip
