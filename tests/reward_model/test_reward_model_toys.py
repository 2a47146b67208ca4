"""Toys with known answers through the trainer: what heads learn, and how sure an ensemble is of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from reward_model_backbones import HIDDEN, tiny_backbone

from modern_rlhf.config.reward import RewardConfig
from modern_rlhf.config.training import TrainingConfig
from modern_rlhf.models.loading import Backbone
from modern_rlhf.records import ASPECTS, PreferencePair, Rating
from modern_rlhf.reward_model.heads import RewardOutput
from modern_rlhf.reward_model.model import CustomRewardModel
from modern_rlhf.trainer.reward import RewardTrainer

FEATURES = 24


class Given(CustomRewardModel):
    """A reward model whose pooled states are given: the answer that spells i has row i of `table`."""

    table: torch.Tensor

    def pooled(
        self, prompts: Sequence[str], responses: Sequence[str], *, batch_size: int = 32
    ) -> torch.Tensor:
        return self.table[[int(text) for text in responses]]


def toy(table: torch.Tensor, *names: str, seed: int = 0, **settings: object) -> Given:
    """`table` is (N, FEATURES); the other coordinates of the backbone stay 0."""
    options = {"dropout": 0.0, "head_width": 32, **settings}
    generator = torch.Generator().manual_seed(seed)
    model = Given(
        tiny_backbone("decoder"), names or ("preference",), generator=generator, **options
    )
    model.table = torch.nn.functional.pad(table, (0, HIDDEN - FEATURES))
    return model


def train(
    model: CustomRewardModel,
    *,
    pairs: Sequence[PreferencePair] = (),
    ratings: Sequence[Rating] = (),
    epochs: int,
    batch: int,
    rate: float,
    seed: int = 0,
) -> None:
    RewardTrainer(
        model,
        pairs=pairs,
        ratings=ratings,
        config=RewardConfig(reward_epochs=epochs, reward_batch_size=batch),
        training=TrainingConfig(reward_learning_rate=rate, seed=seed, save_steps=0),
        validation_fraction=0.0,
    ).train()


def toy_pairs(count: int, *, noise: float, seed: int) -> torch.Tensor:
    """(2 count, FEATURES): chosen, then rejected answers. The better one has the larger w . x; a share
    `noise` of labels is swapped."""
    draw = torch.Generator().manual_seed(seed)
    direction = torch.randn(FEATURES, generator=torch.Generator().manual_seed(99))
    a, b = (torch.randn(count, FEATURES, generator=draw) for _ in range(2))
    a_wins = (a @ direction) > (b @ direction)
    a_wins ^= torch.rand(count, generator=draw) < noise
    return torch.cat([torch.where(a_wins[:, None], a, b), torch.where(a_wins[:, None], b, a)])


def pairs_of(table: torch.Tensor) -> list[PreferencePair]:
    count = len(table) // 2
    return [PreferencePair("q", str(i), str(count + i)) for i in range(count)]


def accuracy(model: Given, table: torch.Tensor) -> float:
    model.table = torch.nn.functional.pad(table, (0, HIDDEN - FEATURES))
    numbers = [str(i) for i in range(len(table))]
    scores = torch.tensor(model.score(["q"] * len(table), numbers))
    chosen, rejected = scores.chunk(2)
    return float((chosen > rejected).float().mean())


@pytest.mark.parametrize(("kind", "rate"), [("mlp", 5e-3), ("linear", 5e-2)])
def test_separable_preferences_are_learned(kind: str, rate: float) -> None:
    table = toy_pairs(2000, noise=0.0, seed=1)
    model = toy(table, head_kind=kind)
    train(model, pairs=pairs_of(table), epochs=15, batch=128, rate=rate)
    assert accuracy(model, toy_pairs(1000, noise=0.0, seed=2)) > 0.95


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("kind", "rate"), [("mlp", 5e-3), ("linear", 5e-2)])
def test_noisy_preferences_come_within_five_points_of_the_bayes_rate(
    kind: str, rate: float, seed: int
) -> None:
    table = toy_pairs(5000, noise=0.2, seed=10 * seed + 3)
    model = toy(table, head_kind=kind, seed=seed)
    train(model, pairs=pairs_of(table), epochs=10, batch=256, rate=rate, seed=seed)
    # Labels are swapped with probability 0.2, so no rule does better than 0.8 on them.
    assert accuracy(model, toy_pairs(10_000, noise=0.2, seed=10 * seed + 4)) > 0.8 - 0.05


def toy_ratings(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, list[Rating]]:
    """Each answer is rated in one aspect, drawn at random; three directions generate the labels."""
    draw = torch.Generator().manual_seed(seed)
    directions = torch.linalg.qr(
        torch.randn(FEATURES, 3, generator=torch.Generator().manual_seed(98))
    ).Q
    table = torch.randn(count, FEATURES, generator=draw)
    truth = (1.2 * table @ directions).clamp(-2, 2)
    which = torch.randint(3, (count,), generator=draw).tolist()
    ratings = [Rating("q", str(i), {ASPECTS[k]: float(truth[i, k])}) for i, k in enumerate(which)]
    return table, truth, ratings


def heads_on(model: Given, table: torch.Tensor) -> RewardOutput:
    with torch.no_grad():
        found: RewardOutput = model.heads(torch.nn.functional.pad(table, (0, HIDDEN - FEATURES)))
    return found


def test_heads_recover_the_aspect_that_generated_each_label() -> None:
    table, _, ratings = toy_ratings(1200, seed=5)
    model = toy(table, *ASPECTS)
    train(model, ratings=ratings, epochs=25, batch=128, rate=1e-2)
    table, truth, _ = toy_ratings(800, seed=6)
    found = heads_on(model, table).heads
    correlations = torch.corrcoef(
        torch.cat([torch.stack([found[a][0] for a in ASPECTS]), truth.T])
    )[:3, 3:]
    # Independent directions: a head follows its own aspect and none of the others.
    assert float(correlations.diagonal().min()) > 0.9
    assert float((correlations - correlations.diagonal().diag()).abs().max()) < 0.25


def test_the_human_head_learns_the_level_distribution() -> None:
    table = torch.randn(800, FEATURES, generator=torch.Generator().manual_seed(7))
    levels = (table[:, 0] * 1.5).round().clamp(-2, 2)
    ratings = [Rating("q", str(i), {"overall": float(v)}) for i, v in enumerate(levels)]
    model = toy(table, "overall", human_logits=True)
    train(model, ratings=ratings[:600], epochs=25, batch=128, rate=1e-2)
    logits = heads_on(model, table[600:]).human_logits
    assert logits is not None
    hit = (logits[0].argmax(-1) - 2 == levels[600:]).float().mean()
    assert float(hit) > 0.7  # five classes; the commonest holds 26%


def test_disagreement_is_larger_where_nothing_was_seen() -> None:
    table = toy_pairs(400, noise=0.0, seed=8)
    model = toy(table, ensemble=5)
    train(model, pairs=pairs_of(table), epochs=20, batch=64, rate=5e-3)
    near = torch.randn(200, FEATURES, generator=torch.Generator().manual_seed(9))
    inside, outside = (heads_on(model, scale * near).uncertainty.mean() for scale in (1.0, 8.0))
    assert float(outside) > 3.0 * float(inside)


def test_words_are_learned_end_to_end_from_text(make_backbone: Callable[..., Backbone]) -> None:
    """Answers with a call beat answers without; frozen random backbone, mean pooling."""
    model = CustomRewardModel(
        make_backbone("decoder"), ("preference",), pooling="mean", dropout=0.0
    )
    pairs = [PreferencePair(f"task {i}", f"sorted(x{i})", f"banana {i}!") for i in range(60)]
    train(model, pairs=pairs[:40], epochs=20, batch=64, rate=1e-2)
    prompts = [pair.prompt for pair in pairs[40:]]
    chosen = model.score(prompts, [pair.chosen for pair in pairs[40:]])
    rejected = model.score(prompts, [pair.rejected for pair in pairs[40:]])
    assert sum(a > b for a, b in zip(chosen, rejected, strict=True)) > 0.95 * 20
