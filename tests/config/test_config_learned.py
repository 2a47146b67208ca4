"""Whether RLHF's reward has a learned part is said by the configuration alone."""

from __future__ import annotations

import pytest

from modern_rlhf.config import ModernRLHFConfig
from modern_rlhf.errors import ConfigError


def config(*, multi: bool, custom: bool, pretrain: bool) -> ModernRLHFConfig:
    found = ModernRLHFConfig()
    found.training.use_multi_stage = multi
    found.reward.use_custom_reward = custom
    found.reward.custom_reward_pretrain = pretrain
    return found


@pytest.mark.parametrize(
    ("multi", "custom", "pretrain", "stage", "learned"),
    [
        (True, True, True, True, True),
        (True, True, False, True, True),  # the stage takes a saved one and calibrates it
        (True, False, True, False, False),
        (False, True, True, False, False),  # nothing trains it
        (False, True, False, False, True),  # a saved one, as it is
        (False, False, False, False, False),
    ],
)
def test_the_learned_part(
    multi: bool, custom: bool, pretrain: bool, stage: bool, learned: bool
) -> None:
    found = config(multi=multi, custom=custom, pretrain=pretrain)
    assert (found.trains_reward_model, found.has_learned_reward) == (stage, learned)
    for name in ("syntax", "execution", "semantic"):
        setattr(found.reward, f"{name}_reward_weight", 0.0)
    if learned:
        found.validate()
        return
    with pytest.raises(ConfigError, match="are all 0.*human_preference_weight counts for nothing"):
        found.validate()
