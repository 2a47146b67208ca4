"""LoRA in the reward trainer: adapters and heads train, both survive saving, and a stop."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from modern_rlhf.checkpoint.store import CheckpointStore
from modern_rlhf.config.reward import RewardConfig
from modern_rlhf.config.sections import ModelConfig
from modern_rlhf.config.training import TrainingConfig
from modern_rlhf.errors import ConfigError, ModelError, StopRequested
from modern_rlhf.models.adapters import has_adapters
from modern_rlhf.models.loading import Backbone, fingerprint
from modern_rlhf.records import PreferencePair, Rating
from modern_rlhf.reward_model.model import CustomRewardModel
from modern_rlhf.trainer.reward import RewardTrainer
from modern_rlhf.trainer.runtime import Runtime

LORA = ModelConfig(use_lora=True, lora_r=4, lora_alpha=8)
GOOD, BAD = "x = sorted(y)", "no idea at all"
PAIRS = [  # of many lengths, so that a batch by length is another order
    PreferencePair(f"q{n}", f"{GOOD} {n}{'#' * (7 * n % 11)}", f"{BAD} {n}", group_id=str(n))
    for n in range(24)
]
RATINGS = [
    Rating(p.prompt, text, {"correct": value, "useful": value}, group_id=p.group_id)
    for p in PAIRS
    for text, value in ((p.chosen, 2.0), (p.rejected, -2.0))
]
TRAINING = TrainingConfig(
    reward_learning_rate=5e-3, reward_backbone_learning_rate=1e-2, reward_modeling_epochs=2,
    save_steps=2,
)  # fmt: skip
PROMPTS, RESPONSES = ["q1", "q1", "other"], [GOOD, BAD, "open(p).read()"]

Make = Callable[..., Backbone]


def lora_trainer(
    make_backbone: Make, runtime: Runtime | None = None, **changes: object
) -> RewardTrainer:
    model = CustomRewardModel(
        make_backbone("decoder"), ("correct", "useful"), freeze_backbone=False, human_logits=True,
        ensemble=2, generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    return RewardTrainer(
        model, pairs=PAIRS, ratings=RATINGS, config=RewardConfig(reward_batch_size=8),
        training=dataclasses.replace(TRAINING, **changes), model_config=LORA, runtime=runtime,
    )  # fmt: skip


def plain_weights(model: CustomRewardModel) -> dict[str, torch.Tensor]:
    return {
        name.replace(".base_layer.", ".").removeprefix("base_model.model."): value.clone()
        for name, value in model.backbone.state_dict().items()
        if ".lora_" not in name
    }


def test_adapters_and_heads_train_and_survive_saving(make_backbone: Make, tmp_path: Path) -> None:
    trainer = lora_trainer(make_backbone)
    model = trainer.model
    before, untouched = plain_weights(model), model.score(PROMPTS, RESPONSES)
    assert before.keys() == make_backbone("decoder").model.state_dict().keys()
    names = [name for name, p in model.backbone.named_parameters() if p.requires_grad]
    assert names and all(".lora_" in name for name in names)
    assert sum(p.numel() for p in trainer.backbone_parts) == sum(
        p.numel() for name, p in model.backbone.named_parameters() if name in names
    )
    adapters = [p.detach().clone() for p in trainer.backbone_parts]
    heads = [p.detach().clone() for p in model.heads.parameters()]
    trainer.train()
    after = plain_weights(model)
    assert all(torch.equal(before[name], after[name]) for name in before)
    moved = zip(adapters + heads, [*trainer.backbone_parts, *model.heads.parameters()], strict=True)
    assert all(not torch.equal(a, b) for a, b in moved)
    assert trainer.evaluate()["accuracy"]["value"] > 0.9

    model.calibrate(PROMPTS, RESPONSES)
    trainer.save_model(tmp_path / "saved")
    loaded = CustomRewardModel.from_pretrained(tmp_path / "saved")  # a fresh process: persistence
    assert has_adapters(loaded.backbone)
    scores, by_head = loaded.score(PROMPTS, RESPONSES), loaded.score_heads(PROMPTS, RESPONSES)
    assert scores == pytest.approx(model.score(PROMPTS, RESPONSES), abs=1e-6)
    assert scores != pytest.approx(untouched, abs=1e-2)
    for name, values in model.score_heads(PROMPTS, RESPONSES).items():
        assert by_head[name] == pytest.approx(values, abs=1e-6)


def test_a_saved_model_trains_on_with_the_adapters_it_has(
    make_backbone: Make, tmp_path: Path
) -> None:
    lora_trainer(make_backbone).save_model(tmp_path / "saved")
    loaded = CustomRewardModel.from_pretrained(tmp_path / "saved")
    again = RewardTrainer(
        loaded, pairs=PAIRS, ratings=RATINGS, training=TRAINING, model_config=LORA
    )
    before = [p.detach().clone() for p in again.backbone_parts]
    assert before and all(".lora_" in n for n, p in loaded.backbone.named_parameters()
                          if p.requires_grad)  # fmt: skip
    again.train()
    assert all(not torch.equal(a, b) for a, b in zip(before, again.backbone_parts, strict=True))


def test_stopped_and_resumed_is_uninterrupted_to_the_bit(
    make_backbone: Make, tmp_path: Path
) -> None:
    class AfterThree:
        polls = 0

        def requested(self) -> bool:
            self.polls += 1
            return self.polls == 3

    whole = lora_trainer(make_backbone)
    whole.train()
    with pytest.raises(StopRequested):
        lora_trainer(
            make_backbone, Runtime(store=CheckpointStore(tmp_path), stop=AfterThree())
        ).train()
    rest = lora_trainer(make_backbone, Runtime(store=CheckpointStore(tmp_path), resume=True))
    assert rest.train().steps == whole.total_steps > 3
    ours, theirs = whole.model.state_dict(), rest.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_adapters_start_from_the_seed_and_change_nothing_at_first(make_backbone: Make) -> None:
    plain = CustomRewardModel(
        make_backbone("decoder"), ("correct", "useful"), freeze_backbone=False, human_logits=True,
        ensemble=2, generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    state = torch.random.get_rng_state()
    one, same = lora_trainer(make_backbone, seed=3), lora_trainer(make_backbone, seed=3)
    assert torch.equal(state, torch.random.get_rng_state())
    other = lora_trainer(make_backbone, seed=4)
    assert fingerprint(one.model.backbone) == fingerprint(same.model.backbone)
    assert fingerprint(one.model.backbone) != fingerprint(other.model.backbone)
    expected = plain.score(PROMPTS, RESPONSES)
    assert one.model.score(PROMPTS, RESPONSES) == pytest.approx(expected, abs=1e-6)


def test_contradictions_are_refused(make_backbone: Make) -> None:
    frozen = CustomRewardModel(make_backbone("decoder"))
    with pytest.raises(ConfigError, match="custom_reward_freeze_backbone=false"):
        RewardTrainer(frozen, pairs=PAIRS, model_config=LORA)
    assert not has_adapters(frozen.backbone)
    frozen.add_lora(rank=2)
    with pytest.raises(ModelError, match="already"):
        frozen.add_lora()
    trainable = CustomRewardModel(make_backbone("decoder"), freeze_backbone=False)
    nowhere = dataclasses.replace(LORA, lora_target_modules="no_such_layer")
    with pytest.raises(ConfigError, match="no_such_layer"):
        RewardTrainer(trainable, pairs=PAIRS, model_config=nowhere)


@pytest.mark.parametrize(
    "changes", [{"tokens_per_micro_batch": 40}, {"gradient_checkpointing": True}]
)
def test_how_the_backbone_is_run_changes_no_gradient(
    make_backbone: Make, changes: dict[str, object]
) -> None:
    def one_step(**options: object) -> dict[str, torch.Tensor]:
        trainer = lora_trainer(make_backbone, seed=1, **options)
        trainer.total_steps = 1
        seen: list[int] = []
        trainer.model.backbone.register_forward_hook(
            lambda module, inputs, output: seen.append(len(output.last_hidden_state))
        )
        trainer.train()
        calls[len(options)] = seen
        return trainer.model.state_dict()

    calls: dict[int, list[int]] = {}
    whole, split = one_step(), one_step(**changes)
    if "tokens_per_micro_batch" in changes:
        assert len(calls[1]) > len(calls[0]) and sum(calls[1]) == sum(calls[0])
    for name, value in whole.items():
        torch.testing.assert_close(split[name], value, atol=2e-5, rtol=0)


def test_features_come_back_in_the_order_of_the_rows(make_backbone: Make) -> None:
    trainer = lora_trainer(make_backbone, tokens_per_micro_batch=60)
    targets, model, rows = trainer.pair_targets, trainer.model, [3, 0, 5, 1, 4]
    sides = {
        "chosen": (targets.prompts, targets.chosen),
        "rejected": (targets.prompts, targets.rejected),
    }
    found, read = trainer._features(sides, rows)
    tokens = 0
    for side, (prompts, texts) in zip(found, sides.values(), strict=True):
        for features, row in zip(side, rows, strict=True):
            batch = model.encode_pairs([prompts[row]], [texts[row]])
            torch.testing.assert_close(features, model.features(batch)[0], atol=1e-5, rtol=0)
            tokens += int(batch.lengths.sum())
    assert read == tokens
