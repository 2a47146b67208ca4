"""What a score may depend on: the pair (D1), its last real token (D2); not padding, mode, or batch (D7, D11)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace

import numpy
import pytest
import torch

from modern_rlhf.errors import DataError, ModelError
from modern_rlhf.models.loading import Backbone
from modern_rlhf.reward_model.encoding import PairBatch
from modern_rlhf.reward_model.heads import LEVELS, init_linear_
from modern_rlhf.reward_model.model import CustomRewardModel

PROMPTS = ["sort a list", "reverse a string", "open a file and read it", ""]
RESPONSES = ["sorted(x)", "s[::-1]", "open(p).read()", "pass"]


def widened(batch: PairBatch, extra: int, token: int) -> PairBatch:
    """The same rows with `extra` more columns of padding, filled with `token`."""
    ids = torch.nn.functional.pad(batch.input_ids, (0, extra), value=token)
    mask = torch.nn.functional.pad(batch.attention_mask, (0, extra))
    types = batch.token_type_ids
    if types is not None:
        types = torch.nn.functional.pad(types, (0, extra))
    return replace(batch, input_ids=ids, attention_mask=mask, token_type_ids=types)


def test_score_sees_the_prompt(backbone: Backbone) -> None:
    model = CustomRewardModel(backbone)
    first, second = model.score(["sort a list", "delete a file"], ["sorted(x)", "sorted(x)"])
    assert abs(first - second) > 1e-4


@pytest.mark.parametrize("pooling", [None, "mean"])
def test_padding_changes_nothing(backbone: Backbone, pooling: str | None) -> None:
    model = CustomRewardModel(backbone, pooling=pooling).eval()
    batch = model.encode_pairs(PROMPTS, RESPONSES)
    # RoBERTa's positions come from `id != pad`, so its padding must be the pad token itself.
    garbage = model.encoder.pad_id if backbone.kind == "encoder" else 77
    with torch.no_grad():
        plain = model(batch).scores
        padded = model(widened(batch, 13, garbage)).scores
    torch.testing.assert_close(padded, plain, atol=1e-5, rtol=0)


def test_batch_composition_changes_nothing(backbone: Backbone) -> None:
    model = CustomRewardModel(backbone)
    together = model.score(PROMPTS, RESPONSES, batch_size=4)
    alone = [model.score([p], [r])[0] for p, r in zip(PROMPTS, RESPONSES, strict=True)]
    assert together == pytest.approx(alone, abs=1e-5)
    assert together == pytest.approx(model.score(PROMPTS, RESPONSES, batch_size=3), abs=1e-5)


def test_score_stands_at_the_last_real_token_though_pad_is_eos(
    make_backbone: Callable[..., Backbone],
) -> None:
    backbone = make_backbone("decoder", style="pad_is_eos")
    model = CustomRewardModel(backbone).eval()
    batch = model.encode_pairs(PROMPTS, RESPONSES)
    assert model.tokenizer.pad_token_id == model.tokenizer.eos_token_id
    features = model.features(batch)
    for i, length in enumerate(batch.lengths.tolist()):
        row = batch.input_ids[i, :length]
        assert row[-1] == model.tokenizer.eos_token_id  # the real EOS is part of the text
        alone = model.backbone(input_ids=row[None]).last_hidden_state[0, -1]
        torch.testing.assert_close(features[i], alone, atol=1e-5, rtol=0)


def test_encoder_features_are_cls_or_mean_of_real_tokens(encoder: Backbone) -> None:
    for pooling in ("cls", "mean"):
        model = CustomRewardModel(encoder, pooling=pooling).eval()
        batch = model.encode_pairs(PROMPTS, RESPONSES)
        features = model.features(batch)
        for i, length in enumerate(batch.lengths.tolist()):
            hidden = model.backbone(
                input_ids=batch.input_ids[i : i + 1, :length]
            ).last_hidden_state[0]
            expected = hidden[0] if pooling == "cls" else hidden.mean(0)
            torch.testing.assert_close(features[i], expected, atol=1e-5, rtol=0)


def test_second_last_layer_feeds_only_the_human_head(decoder: Backbone) -> None:
    model = CustomRewardModel(decoder, human_logits=True, human_logits_layer="second_last").eval()
    batch = model.encode_pairs(PROMPTS, RESPONSES)
    features = model.features(batch)
    states = model.backbone(input_ids=batch.input_ids, output_hidden_states=True).hidden_states
    rows = torch.arange(len(PROMPTS))
    torch.testing.assert_close(features[:, 32:], states[-2][rows, batch.lengths - 1])
    changed = features.clone()
    changed[:, 32:] += torch.randn(32)
    before, after = model.heads(features), model.heads(changed)
    for name in before.heads:
        torch.testing.assert_close(before.heads[name], after.heads[name])
    assert before.human_logits is not None and after.human_logits is not None
    assert before.human_logits.shape == (1, len(PROMPTS), LEVELS)
    assert (before.human_logits - after.human_logits).abs().max() > 1e-3


def test_total_is_the_weighted_heads_plus_the_human_expectation(decoder: Backbone) -> None:
    model = CustomRewardModel(
        decoder,
        heads=("a", "b"),
        head_weights={"a": 0.75, "b": 0.25},
        human_logits=True,
        human_feedback_weight=0.4,
        ensemble=3,
    ).eval()
    output = model.heads(torch.randn(5, 32))
    assert output.human_logits is not None
    probabilities = output.human_logits.softmax(-1)
    human = sum((level - 2) * probabilities[..., level] for level in range(5))
    expected = 0.75 * output.heads["a"] + 0.25 * output.heads["b"] + 0.4 * human
    torch.testing.assert_close(output.totals, expected)
    torch.testing.assert_close(output.scores, expected.mean(0))
    torch.testing.assert_close(output.uncertainty, expected.std(0, correction=0))
    assert (output.uncertainty > 0).all()


def test_two_train_mode_forwards_are_equal(make_backbone: Callable[..., Backbone]) -> None:
    backbone = make_backbone("encoder")
    for module in backbone.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5  # as a checkpoint of the hub would have it
    model = CustomRewardModel(backbone, dropout=0.0, freeze_backbone=False).train()
    batch = model.encode_pairs(PROMPTS, RESPONSES)
    torch.testing.assert_close(model(batch).scores, model(batch).scores, atol=0, rtol=0)


def test_score_ignores_head_dropout_and_restores_the_mode(decoder: Backbone) -> None:
    model = CustomRewardModel(decoder, dropout=0.5).train()
    assert model.score(PROMPTS, RESPONSES) == model.score(PROMPTS, RESPONSES)
    assert model.training and model.heads.training and not model.backbone.training


def test_head_initialisation_is_one_over_root_d_plus_one() -> None:
    layer = torch.nn.Linear(400, 300)
    init_linear_(layer, torch.Generator().manual_seed(0))
    # 1 / sqrt(401) = 0.0499; 120,000 draws: the sample's std is within 1% of it.
    assert float(layer.weight.std()) == pytest.approx(1 / math.sqrt(401), rel=0.02)
    assert float(layer.bias.abs().max()) == 0.0


def test_every_linear_of_every_head_is_initialised_so(decoder: Backbone) -> None:
    generator = torch.Generator().manual_seed(1)
    model = CustomRewardModel(
        decoder, human_logits=True, ensemble=4, head_width=128, generator=generator
    )
    by_inputs: dict[int, list[torch.Tensor]] = {}
    for module in model.heads.modules():
        if isinstance(module, torch.nn.Linear):
            by_inputs.setdefault(module.in_features, []).append(module.weight.flatten())
            assert float(module.bias.abs().max()) == 0.0
    assert set(by_inputs) == {32, 128}
    for inputs, weights in by_inputs.items():
        assert float(torch.cat(weights).std()) == pytest.approx(1 / math.sqrt(inputs + 1), rel=0.1)


def test_calibration_gives_mean_zero_and_std_one(backbone: Backbone) -> None:
    model = CustomRewardModel(backbone, ensemble=2)
    prompts = [f"task number {i}" for i in range(24)]
    responses = [f"print({i} * {i % 7})" for i in range(24)]
    stored = model.calibrate(prompts, responses)
    scores = torch.tensor(model.score(prompts, responses))
    assert abs(float(scores.mean())) < 1e-4
    assert float(scores.std(correction=0)) == pytest.approx(1.0, abs=1e-3)
    assert stored["std"] > 0


def test_calibration_refuses_samples_without_spread(decoder: Backbone) -> None:
    model = CustomRewardModel(decoder)
    with pytest.raises(ModelError, match="at least two"):
        model.calibrate(["a"], ["b"])
    with pytest.raises(ModelError, match="same score"):
        model.calibrate(["a", "a"], ["b", "b"])


def test_frozen_backbone_gets_no_gradient_and_keeps_its_weights(decoder: Backbone) -> None:
    before = copy.deepcopy(decoder.model.state_dict())
    model = CustomRewardModel(decoder, dropout=0.0).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        loss = model(model.encode_pairs(PROMPTS, RESPONSES)).totals.pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert model.frozen and all(p.grad is None for p in model.backbone.parameters())
    after = model.backbone.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_unfrozen_backbone_gets_gradients(decoder: Backbone) -> None:
    model = CustomRewardModel(decoder, freeze_backbone=False)
    model(model.encode_pairs(PROMPTS, RESPONSES)).totals.sum().backward()
    assert not model.frozen
    assert float(model.backbone.layers[0].self_attn.q_proj.weight.grad.abs().max()) > 0


def test_uncertainty_needs_an_ensemble(decoder: Backbone) -> None:
    with pytest.raises(ModelError, match="ensemble"):
        CustomRewardModel(decoder).uncertainty(PROMPTS, RESPONSES)
    found = CustomRewardModel(decoder, ensemble=3).uncertainty(PROMPTS, RESPONSES)
    assert len(found) == len(PROMPTS) and all(value > 0 for value in found)


def test_a_constant_of_a_member_is_no_disagreement(decoder: Backbone) -> None:
    """Bradley-Terry leaves each member's constant free: only what goes beyond it is doubt."""
    model = CustomRewardModel(
        decoder, ("a",), ensemble=3, generator=torch.Generator().manual_seed(0)
    )
    model.calibrate(PROMPTS, RESPONSES)
    before = model.predict(PROMPTS, RESPONSES)
    with torch.no_grad():
        for shift, member in zip((50.0, -20.0, -30.0), model.heads.members["head_a"], strict=True):
            member[-1].bias += shift
    model.calibrate(PROMPTS, RESPONSES)
    after = model.predict(PROMPTS, RESPONSES)
    assert after.scores == pytest.approx(before.scores, abs=1e-3)
    assert after.uncertainty == pytest.approx(before.uncertainty, abs=1e-3)
    assert min(before.uncertainty) > 0


def test_two_models_on_one_loaded_backbone_are_frozen_as_each_says(decoder: Backbone) -> None:
    assert CustomRewardModel(decoder).frozen
    assert not CustomRewardModel(decoder, freeze_backbone=False).frozen
    assert CustomRewardModel(decoder).frozen


def test_score_heads_names_every_head(decoder: Backbone) -> None:
    found = CustomRewardModel(decoder, human_logits=True).score_heads(PROMPTS, RESPONSES)
    assert set(found) == {"consistent", "correct", "useful", "human"}
    assert all(-2 <= value <= 2 for value in found["human"])


def test_empty_and_mismatched_lists(decoder: Backbone) -> None:
    model = CustomRewardModel(decoder)
    assert model.score([], []) == []
    assert model.score_heads([], []) == {"consistent": [], "correct": [], "useful": []}
    with pytest.raises(DataError, match="2 prompts for 1 responses"):
        model.score(["a", "b"], ["c"])
    expected = model.score(["a", "b"], ["c", "d"])
    columns = numpy.array(["a", "b"]), iter(["c", "d"])  # a table's column, a generator
    assert model.score(*columns) == expected
    with pytest.raises(DataError, match="prompts is one text"):
        model.score("sort", "x = 1")  # not four scores of four letters
    with pytest.raises(DataError, match=r"responses\[1\] is None"):
        model.score(["a", "b"], ["c", None])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": ()}, "heads"),
        ({"heads": ("a", "a")}, "different names"),
        ({"heads": ("human",)}, "human"),
        ({"head_kind": "cubic"}, "head_kind"),
        ({"pooling": "cls"}, "first token"),
        ({"pooling": "max"}, "pooling"),
        ({"ensemble": 0}, "ensemble"),
        ({"dropout": 1.0}, "dropout"),
        ({"max_length": 257}, "256"),
        ({"max_length": 3}, "no room"),
        ({"human_logits": True, "human_logits_layer": "third"}, "human_logits_layer"),
        ({"head_weights": {"a": 1.0}}, "head_weights"),
        ({"heads": ("a", "b"), "head_weights": {"a": 1.0, "b": -1.0}}, "sum above 0"),
        ({"heads": ("a",), "head_weights": {"a": math.nan}}, "sum above 0"),
        ({"human_feedback_weight": math.nan}, "human_feedback_weight"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    decoder: Backbone, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        CustomRewardModel(decoder, **settings)
