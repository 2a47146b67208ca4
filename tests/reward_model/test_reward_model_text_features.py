"""What two texts have in common: the values by hand, and how they reach, and only reach, the heads."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from modern_rlhf.config.reward import RewardConfig
from modern_rlhf.config.training import TrainingConfig
from modern_rlhf.errors import ConfigError
from modern_rlhf.models.loading import Backbone
from modern_rlhf.records import Rating
from modern_rlhf.reward_model.cache import FeatureCache, feature_key
from modern_rlhf.reward_model.model import CustomRewardModel
from modern_rlhf.reward_model.statistics import correlation
from modern_rlhf.reward_model.text_features import TEXT_FEATURES, text_features
from modern_rlhf.trainer.ppo import value_of_reward_model
from modern_rlhf.trainer.reward import RewardTrainer

WORDS = [
    "open",
    "read",
    "write",
    "close",
    "sort",
    "sum",
    "join",
    "split",
    "strip",
    "map",
    "filter",
    "print",
]


def graded(count: int, *, seed: int = 0) -> list[Rating]:
    """Answers that share 0 to 8 of their prompt's words; the rating is that share."""
    draw = torch.Generator().manual_seed(seed)
    ratings = []
    for number in range(count):
        order = torch.randperm(len(WORDS), generator=draw).tolist()
        kept = number % 5
        prompt = " ".join(WORDS[i] for i in order[:4])
        answer = " ".join(
            [*(WORDS[i] for i in order[:kept]), *(WORDS[i] for i in order[8 : 12 - kept])]
        )
        ratings.append(Rating(prompt, answer, {"overall": kept - 2.0}, group_id=str(number)))
    return ratings


def test_values_by_hand() -> None:
    (row,) = text_features(["a = b"], ["a = c + a"]).tolist()
    found = dict(zip(TEXT_FEATURES, row, strict=True))
    # Tokens: a = b and a = c + a. In common: a, =. Longest common subsequence: a =.
    assert found["recall"] == pytest.approx(2 / 3)
    assert found["precision"] == pytest.approx(2 / 5)
    assert found["token_lcs"] == pytest.approx(2 * 2 / (3 + 5))
    assert found["length_ratio"] == pytest.approx(math.log(6 / 4))
    assert found["length"] == pytest.approx(math.log(6))
    assert 0 < found["chrf"] < 1


def test_identical_empty_and_broken_texts() -> None:
    rows = text_features(
        ["x = 1", "x = 1", "", "", "\ud800 é\x00"], ["x = 1", "", "x = 1", "", "\ud800 é\x00"]
    )
    assert rows.shape == (5, len(TEXT_FEATURES)) and bool(torch.isfinite(rows).all())
    assert rows[0].tolist() == pytest.approx([1, 1, 1, 1, 0, math.log(4)])
    assert rows[1, :4].tolist() == [0, 0, 0, 0] and rows[2, :4].tolist() == [0, 0, 0, 0]
    assert text_features([], []).shape == (0, len(TEXT_FEATURES))


def test_at_the_start_they_change_no_score(backbone: Backbone) -> None:
    texts = ["sort x", "sum y"], ["sorted(x)", "sum(y)"]
    scores = [
        CustomRewardModel(
            backbone,
            text_features=given,
            human_logits=True,
            human_logits_layer="second_last",
            ensemble=2,
            generator=torch.Generator().manual_seed(0),
        ).score(*texts)
        for given in (True, False)
    ]
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)


def test_every_head_and_the_human_one_read_them(decoder: Backbone) -> None:
    model = CustomRewardModel(decoder, ("a", "b"), text_features=True, human_logits=True).eval()
    features = model.pooled(["sort x"] * 2, ["sorted(x)"] * 2)
    features[1, -len(TEXT_FEATURES) :] += 1.0
    for name in ("head_a", "head_b", "human"):
        torch.nn.init.ones_(model.heads.wide[name][0].weight)
    output = model.heads(features)
    for name in ("a", "b"):
        gap = output.heads[name][0, 1] - output.heads[name][0, 0]
        assert float(gap.detach()) == pytest.approx(len(TEXT_FEATURES), abs=1e-4)
    assert output.human_logits is not None
    gaps = output.human_logits[0, 1] - output.human_logits[0, 0]
    torch.testing.assert_close(gaps, torch.full((5,), float(len(TEXT_FEATURES))), atol=1e-4, rtol=0)


@pytest.mark.parametrize("freeze", [True, False])
def test_a_grade_that_is_a_likeness_is_learnt(
    make_backbone: Callable[..., Backbone], tmp_path: Path, freeze: bool
) -> None:
    """With the features far better than without; saved, loaded, the same scores."""
    rows, held_out = graded(120), graded(60, seed=1)
    found = {}
    for given in (True, False):
        trainer = RewardTrainer(
            CustomRewardModel(
                make_backbone("encoder"),
                ("overall",),
                freeze_backbone=freeze,
                text_features=given,
                generator=torch.Generator().manual_seed(0),
            ),
            ratings=rows,
            config=RewardConfig(reward_epochs=20, use_human_logits=False, reward_batch_size=16),
            training=TrainingConfig(reward_learning_rate=2e-2, reward_modeling_epochs=10),
            validation_fraction=0.0,
        )
        trainer.train()
        asked = [r.prompt for r in held_out], [r.response for r in held_out]
        scores = trainer.model.score(*asked)
        grades, groups = [r.overall for r in held_out], [r.group_id for r in held_out]
        found[given] = correlation(scores, grades, groups)["pearson"]
        if given:
            assert not torch.equal(
                trainer.model.heads.feature_scale[-len(TEXT_FEATURES) :],
                torch.ones(len(TEXT_FEATURES)),
            )
            trainer.save_model(tmp_path / "model")
            loaded = CustomRewardModel.from_pretrained(tmp_path / "model")
            assert loaded.score(*asked) == pytest.approx(scores, abs=1e-6)
    assert found[True] > 0.9 > 0.6 > found[False]


def test_cached_features_hold_them_and_have_a_key_of_their_own(
    decoder: Backbone, tmp_path: Path
) -> None:
    plain = CustomRewardModel(decoder)
    model = CustomRewardModel(decoder, text_features=True)
    assert feature_key(plain) != feature_key(model)
    texts = ["sort x", "sum y"], ["sorted(x)", "sum(y)"]
    for _ in range(2):  # computed, then read
        cached = FeatureCache(tmp_path, model).get(*texts)
        torch.testing.assert_close(cached[:, -len(TEXT_FEATURES) :], text_features(*texts))


def test_a_value_network_cannot_start_from_them(decoder: Backbone) -> None:
    model = CustomRewardModel(decoder, text_features=True)
    with pytest.raises(ConfigError, match="custom_reward_text_features"):
        value_of_reward_model(model, decoder.tokenizer)
