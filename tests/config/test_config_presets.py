"""What the presets promise of themselves."""

from __future__ import annotations

import pytest

from modern_rlhf.config.presets import PRESETS, get_preset


@pytest.mark.parametrize("name", PRESETS)
def test_a_checkpoint_lies_before_the_end_of_rlhf(name: str) -> None:
    """`total_steps` counts optimiser steps, `save_steps` rollouts: 40 steps at 4 a rollout are 10."""
    training = get_preset(name).training
    if training.total_steps is None:
        return  # as long as the prompts are many
    updates = training.ppo_epochs * training.ppo_mini_batches + training.self_imitation_steps
    assert training.save_steps < training.total_steps // updates
