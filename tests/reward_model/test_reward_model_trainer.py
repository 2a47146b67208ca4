"""One trainer for every kind of human feedback: forms, 1-5 ratings, chosen/rejected files."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from modern_rlhf.config.reward import HEAD_WEIGHT_DECAY, RewardConfig
from modern_rlhf.config.training import TrainingConfig
from modern_rlhf.errors import ConfigError, DataError
from modern_rlhf.feedback.store import load_feedback
from modern_rlhf.models.loading import Backbone, load_backbone
from modern_rlhf.records import PreferencePair, Rating
from modern_rlhf.reward_model.build import build_reward_model
from modern_rlhf.reward_model.model import CustomRewardModel
from modern_rlhf.reward_model.settings import FEW_RATE, MANY, MANY_RATE
from modern_rlhf.trainer.reward import RewardTrainer

CONFIG = RewardConfig(reward_epochs=30, reward_batch_size=8)
TRAINING = TrainingConfig(reward_learning_rate=5e-3, reward_modeling_epochs=6, save_steps=0)
GOOD, BAD = "x = sorted(y)", "no idea at all"


def frozen(backbone: Backbone, **settings: object) -> CustomRewardModel:
    generator = torch.Generator().manual_seed(0)
    return CustomRewardModel(backbone, generator=generator, **{"dropout": 0.0, **settings})


def test_forms_train_every_loss(decoder: Backbone, tmp_path: Path) -> None:
    def side(number: int, good: bool) -> dict[str, object]:
        return {"ID": number, "Question": f"question {number}", "Answer": GOOD if good else BAD}

    for n in range(30):
        good_left = n % 2 == 0
        levels = {
            f"{aspect}_{s}": 2 if (s == "L") == good_left else -2
            for aspect in ("consistent", "correct", "useful")
            for s in "LR"
        }
        form = {
            "name_input": "ann", "datetime": "2024-05-06 07:08:09", "address": "",
            "comparison_slider": -2 if good_left else 2, **levels,
            "questions_df": [side(n, good_left), side(n, not good_left)],
        }  # fmt: skip
        (tmp_path / f"{n}.json").write_text(json.dumps(form))
    feedback = load_feedback(tmp_path)
    trainer = RewardTrainer(
        frozen(decoder, human_logits=True),
        pairs=feedback.pairs, ratings=feedback.ratings, config=CONFIG, training=TRAINING,
    )  # fmt: skip
    assert (trainer.plan.pairwise, trainer.plan.pointwise, trainer.plan.ordinal) == (1, 1, 1)
    questions = {pair.group_id for pair in trainer.validation_pairs}
    assert questions and questions == {rating.group_id for rating in trainer.validation_ratings}
    metrics = trainer.train().metrics
    assert {"pair_accuracy", "pointwise_loss", "ordinal_loss"} <= metrics.keys()
    report = trainer.evaluate()
    assert report["accuracy"]["value"] == 1.0
    assert report["rating_correlation"]["human"]["pearson"] > 0.95


def test_ratings_alone_train(decoder: Backbone) -> None:
    ratings = [
        Rating(
            f"q{n}", GOOD if n % 2 else BAD, {"overall": 2.0 if n % 2 else -2.0}, group_id=str(n)
        )
        for n in range(40)
    ]
    trainer = RewardTrainer(frozen(decoder), ratings=ratings, config=CONFIG, training=TRAINING)
    trainer.train()
    assert trainer.evaluate()["rating_correlation"]["score"]["pearson"] > 0.95


def test_the_documented_recipe_of_chosen_rejected_files(
    repository: Path, tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`examples/reward_helpsteer2.py` on message lists, as HelpSteer2_binarized has them."""
    path = tmp_path / "pairs.jsonl"

    def turns(n: int, answer: str) -> list[dict[str, str]]:
        asked = {"role": "user", "content": f"question {n}"}
        return [asked, {"role": "assistant", "content": answer}]

    rows = [
        {"chosen": turns(n, f"{GOOD} {i}"), "rejected": turns(n, f"{BAD} {i}")}
        for n in range(60)
        for i in range(2)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = repository / "examples" / "reward_helpsteer2.py"
    spec = importlib.util.spec_from_file_location("example_helpsteer2", file)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.SMOLLM2 == "HuggingFaceTB/SmolLM2-135M-Instruct"
    faster = {"reward_modeling_epochs": 6, "reward_backbone_learning_rate": 2e-3}
    monkeypatch.setattr(script, "TRAINING", dataclasses.replace(script.TRAINING, **faster))
    trainer = script.main(str(path), str(tiny_model_folder), str(tmp_path / "saved"))

    settings = trainer.model.settings  # a sequence classifier: one linear head on the last token
    assert (settings.heads, settings.head_kind, settings.pooling) == (
        ("preference",),
        "linear",
        "last",
    )
    assert (settings.max_length, settings.ensemble, settings.human_logits) == (256, 1, False)
    original = load_backbone(str(tiny_model_folder)).model.state_dict()
    trained = trainer.model.backbone.state_dict()
    assert all(not torch.equal(original[name], trained[name]) for name in original)
    # 80/20 by prompt: both rows of a question are on one side.
    train, held_out = (
        {p.prompt for p in part} for part in (trainer.train_pairs, trainer.validation_pairs)
    )
    assert not train & held_out and len(train | held_out) == 60 and 5 <= len(held_out) <= 19
    assert trainer.evaluate()["accuracy"]["value"] > 0.9
    saved = CustomRewardModel.from_pretrained(tmp_path / "saved")
    pair = trainer.validation_pairs[0]
    good, bad = saved.score([pair.prompt] * 2, [pair.chosen, pair.rejected])
    assert good > bad


def test_mlp_heads_on_a_frozen_backbone_decay_and_others_do_not(
    make_backbone: Callable[..., Backbone],
) -> None:
    pairs = [PreferencePair(f"q{n}", GOOD, BAD) for n in range(40)]

    def decays(**settings: object) -> list[float]:
        model = frozen(make_backbone("decoder"), **settings)
        trainer = RewardTrainer(model, pairs=pairs, config=CONFIG, training=TRAINING)
        return [group["weight_decay"] for group in trainer.optimizer.param_groups]

    assert decays() == [CONFIG.reward_weight_decay] == [HEAD_WEIGHT_DECAY]
    assert decays(freeze_backbone=False) == [0.0, 0.0]
    assert decays(head_kind="linear") == [0.0]


def test_synthetic_judgements_teach_and_validate_only_where_there_are_no_others(
    decoder: Backbone,
) -> None:
    real = [Rating(f"q{n}", GOOD, {"overall": 1.0}, group_id=str(n)) for n in range(20)]
    made = [dataclasses.replace(rating, response=BAD, synthetic=True) for rating in real]
    trainer = RewardTrainer(
        frozen(decoder), ratings=[*real, *made], config=CONFIG, training=TRAINING
    )
    assert trainer.validation_ratings
    assert not any(rating.synthetic for rating in trainer.validation_ratings)
    held_out = {rating.group_id for rating in trainer.validation_ratings}
    assert held_out.isdisjoint(rating.group_id for rating in trainer.train_ratings)
    assert sum(rating.synthetic for rating in trainer.train_ratings) == 20 - len(held_out)
    alone = RewardTrainer(frozen(decoder), ratings=made, config=CONFIG, training=TRAINING)
    assert len(alone.validation_ratings) == len(held_out) and len(alone.train_ratings) == 20 - len(
        held_out
    )


def test_the_configuration_builds_the_model(tiny_model_folder: Path, tmp_path: Path) -> None:
    config = RewardConfig(
        custom_reward_heads=2, custom_reward_head_kind="linear", custom_reward_ensemble=3,
        custom_reward_pooling="mean", human_logits_layer="second_last", human_feedback_weight=0.7,
        reward_max_length=64, reward_margin_coef=0.5, reward_center_coef=0.25, reward_ordinal_coef=2.0,
    )  # fmt: skip
    pairs = [PreferencePair(f"q{n}", GOOD, BAD, margin=2.0) for n in range(4)]
    ratings = [Rating("q", GOOD, {"overall": 1.0})]
    trainer = RewardTrainer(
        str(tiny_model_folder), pairs=pairs, ratings=ratings, config=config,
        training=TRAINING, validation_fraction=0.0,
    )  # fmt: skip
    settings = trainer.model.settings
    assert settings.heads == ("consistent", "correct")
    assert (settings.head_kind, settings.ensemble, settings.pooling) == ("linear", 3, "mean")
    assert (settings.human_logits, settings.human_logits_layer) == (True, "second_last")
    assert (settings.human_feedback_weight, settings.max_length) == (0.7, 64)
    assert dataclasses.asdict(trainer.plan) == {
        "pairwise": 1.0, "pointwise": 1.0, "ordinal": 2.0,
        "margin_coefficient": 0.5, "center_coefficient": 0.25,
    }  # fmt: skip
    trainer.model.save_pretrained(tmp_path / "saved")
    again = build_reward_model(str(tmp_path / "saved"), RewardConfig(), human_logits=False)
    assert again.settings == settings  # a saved model keeps its own


def test_a_temperature_survives_calibration_and_saving(decoder: Backbone, tmp_path: Path) -> None:
    model = frozen(decoder)
    model.heads.set_temperature(2.5)
    before = model.preference_probability(["q"], [GOOD], [BAD])
    model.calibrate(["a", "b", "c"], [GOOD, BAD, "pass"])
    after = model.preference_probability(["q"], [GOOD], [BAD])
    assert after == pytest.approx(before, abs=1e-5) and after[0] != 0.5
    model.save_pretrained(tmp_path / "saved")
    loaded = CustomRewardModel.from_pretrained(tmp_path / "saved")
    assert loaded.preference_probability(["q"], [GOOD], [BAD]) == pytest.approx(after, abs=1e-6)


@pytest.mark.parametrize("off", ["pairs", "ratings"])
def test_a_coefficient_of_0_switches_a_loss_off(decoder: Backbone, off: str) -> None:
    pairs = [PreferencePair(f"q{n}", GOOD, BAD) for n in range(10)]
    ratings = [Rating(f"q{n}", GOOD, {"overall": float(n % 5 - 2)}) for n in range(10)]
    zero = {"reward_pointwise_coef": 0.0} if off == "ratings" else {"reward_pairwise_coef": 0.0}
    config = dataclasses.replace(CONFIG, reward_epochs=1, use_human_logits=False, **zero)
    trainer = RewardTrainer(
        frozen(decoder), pairs=pairs, ratings=ratings, config=config, training=TRAINING
    )
    metrics = trainer.train().metrics
    assert ("pair_accuracy" in metrics, "pointwise_loss" in metrics) == (
        off == "ratings",
        off == "pairs",
    )
    # What is not trained on is still held out to be measured on.
    assert trainer.validation_pairs and trainer.validation_ratings


def test_an_untrained_human_head_names_the_coefficient(decoder: Backbone) -> None:
    config = dataclasses.replace(CONFIG, reward_ordinal_coef=0.0)
    ratings = [Rating(f"q{n}", GOOD, {"overall": 1.0}) for n in range(10)]
    with pytest.raises(DataError, match="reward.reward_ordinal_coef=0 .* keeps its human head"):
        RewardTrainer(
            frozen(decoder, human_logits=True), ratings=ratings, config=config, training=TRAINING
        )


def test_training_on_a_saved_model_starts_from_that_model(decoder: Backbone) -> None:
    pairs = [PreferencePair(f"q{n}", f"{GOOD} {n}", BAD) for n in range(12)]
    trainer = RewardTrainer(frozen(decoder), pairs=pairs, config=CONFIG, training=TRAINING)
    trainer.train()
    asked = ["a", "b"], ["x = 3", "why not"]
    before = trainer.model.score(*asked)
    still = dataclasses.replace(TRAINING, reward_learning_rate=1e-12)
    others = [PreferencePair(f"r{n}", "pass", "z" * n) for n in range(12)]
    RewardTrainer(trainer.model, pairs=others, config=CONFIG, training=still).train()
    assert trainer.model.score(*asked) == pytest.approx(before, abs=1e-5)


def test_texts_that_are_cut_are_counted_once(
    decoder: Backbone, caplog: pytest.LogCaptureFixture
) -> None:
    pairs = [PreferencePair(f"q{n}", "x" * 100, "y") for n in range(3)]
    RewardTrainer(
        frozen(decoder, max_length=32), pairs=pairs, training=TRAINING, validation_fraction=0.0,
        config=dataclasses.replace(CONFIG, reward_epochs=2, reward_batch_size=1),
    ).train()  # fmt: skip
    told = [record.getMessage() for record in caplog.records if "are cut" in record.getMessage()]
    assert told == [
        "reward model: 3 of 6 training texts are cut to 32 tokens (reward.reward_max_length)"
    ]


def test_text_features_learn_faster_and_never_decay_in_both_loops(decoder: Backbone) -> None:
    pairs = [PreferencePair(f"q{n}", GOOD, BAD) for n in range(4)]
    model = frozen(decoder, text_features=True)
    trainer = RewardTrainer(model, pairs=pairs, config=CONFIG, training=TRAINING)
    deep, wide = trainer.optimizer.param_groups
    assert deep["peak_lr"] == 5e-3 and deep["weight_decay"] == CONFIG.reward_weight_decay
    assert wide["peak_lr"] == pytest.approx(5e-2) and wide["weight_decay"] == 0.0
    assert {id(p) for p in wide["params"]} == {id(p) for p in model.heads.wide.parameters()}
    one, other = model.heads.learning_groups(5e-3, weight_decay=1.0)
    assert (one[1:], other[1:]) == ((5e-3, 1.0), (pytest.approx(5e-2), 0.0))
    assert len(one[0]) + len(other[0]) == len(list(model.heads.parameters()))


@pytest.mark.parametrize(
    ("config", "training", "field"),
    [
        ({"reward_epochs": 0}, {}, "reward_epochs"),  # it trained one step
        ({"reward_batch_size": -1}, {}, "reward_batch_size"),
        ({"reward_pairwise_coef": -1.0}, {}, "reward_pairwise_coef"),
        ({}, {"reward_learning_rate": -1.0}, "reward_learning_rate"),
        ({}, {"reward_modeling_epochs": 0}, "reward_modeling_epochs"),
    ],
)
def test_fields_are_checked_for_a_model_that_is_there_already(
    decoder: Backbone, config: dict[str, object], training: dict[str, object], field: str
) -> None:
    with pytest.raises(ConfigError, match=field):
        RewardTrainer(
            frozen(decoder), pairs=[PreferencePair("q", GOOD, BAD)],
            config=dataclasses.replace(CONFIG, **config),
            training=dataclasses.replace(TRAINING, **training),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("count", "freeze", "given", "expected"),
    [
        (MANY - 1, True, None, FEW_RATE),
        (MANY, True, None, MANY_RATE),
        (MANY, False, None, FEW_RATE),
        (MANY, True, 2e-2, 2e-2),
        (8, True, 0.0, 0.0),
    ],
)
def test_heads_learn_faster_from_many_judgements_unless_a_rate_is_given(
    decoder: Backbone, count: int, freeze: bool, given: float | None, expected: float
) -> None:
    pairs = [PreferencePair(f"q{n}", GOOD, BAD, group_id=str(n)) for n in range(count // 2)]
    ratings = [
        Rating(f"r{n}", GOOD, {"overall": 1.0}, group_id=f"r{n}") for n in range(count - len(pairs))
    ]
    trainer = RewardTrainer(
        frozen(decoder, freeze_backbone=freeze),
        pairs=pairs,
        ratings=ratings,
        config=CONFIG,
        training=dataclasses.replace(TRAINING, reward_learning_rate=given),
        validation_fraction=0.0,
    )
    heads, *backbone = [group["peak_lr"] for group in trainer.optimizer.param_groups]
    assert heads == expected
    assert backbone == ([] if freeze else [TRAINING.reward_backbone_learning_rate])
