"""Wrong labels through the whole trainer with every default: a backbone, its cache, MLP heads."""

from __future__ import annotations

import random
import string

import pytest
import torch
from reward_model_backbones import HIDDEN, tiny_backbone

from modern_rlhf.config.reward import RewardConfig
from modern_rlhf.config.training import TrainingConfig
from modern_rlhf.records import PreferencePair
from modern_rlhf.reward_model.model import CustomRewardModel
from modern_rlhf.trainer.reward import RewardTrainer

NOISE = 0.2
PAIRS, HELD_OUT = 4000, 2000


def accuracy_on_noisy_labels(seed: int) -> float:
    """Expected share of held-out noisy labels that the scores agree with.

    The better of two random texts is decided by a linear rule in the pooled features of a random
    decoder, whose coordinates are strongly correlated; a fifth of the labels is swapped.
    """
    draw = random.Random(seed)
    texts = [
        "".join(draw.choices(string.ascii_letters, k=8)) for _ in range(2 * (PAIRS + HELD_OUT))
    ]
    model = CustomRewardModel(tiny_backbone("decoder"), ("preference",), pooling="mean")
    features = model.pooled(["q"] * len(texts), texts)
    features = (features - features.mean(0)) / features.std(0)
    rule = torch.randn(HIDDEN, generator=torch.Generator().manual_seed(seed))
    value = (features @ rule).tolist()
    couples = [
        (i, i + 1) if value[i] > value[i + 1] else (i + 1, i) for i in range(0, len(texts), 2)
    ]
    pairs = []
    for place, (better, worse) in enumerate(couples[:PAIRS]):
        if draw.random() < NOISE:
            better, worse = worse, better
        pairs.append(PreferencePair("q", texts[better], texts[worse], group_id=str(place)))
    trainer = RewardTrainer(
        model,
        pairs=pairs,
        config=RewardConfig(),
        training=TrainingConfig(seed=seed, save_steps=0),
        validation_fraction=0.0,
    )
    trainer.train()
    better_texts, worse_texts = ([texts[c[side]] for c in couples[PAIRS:]] for side in (0, 1))
    chosen, rejected = (model.score(["q"] * HELD_OUT, side) for side in (better_texts, worse_texts))
    right = sum(a > b for a, b in zip(chosen, rejected, strict=True)) / HELD_OUT
    return NOISE + (1 - 2 * NOISE) * right


@pytest.mark.slow
def test_defaults_come_within_five_points_of_the_bayes_rate() -> None:
    found = [accuracy_on_noisy_labels(seed) for seed in range(4)]
    # A label is swapped with probability 0.2, so no rule does better than 0.8 on them.
    assert sum(found) / len(found) > 1 - NOISE - 0.05, found
