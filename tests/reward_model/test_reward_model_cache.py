"""The frozen backbone is run once a pair; stale, damaged or foreign features are never served."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from modern_rlhf.errors import DataError, ModelError
from modern_rlhf.models.loading import Backbone
from modern_rlhf.reward_model import cache as cache_module
from modern_rlhf.reward_model.cache import FeatureCache, feature_key, text_key
from modern_rlhf.reward_model.model import CustomRewardModel

PROMPTS = ["sort a list", "reverse", "sort a list", "open a file"]
RESPONSES = ["sorted(x)", "s[::-1]", "sorted(x)", "open(p)"]


def count_runs(model: CustomRewardModel) -> list[int]:
    """Rows that went through the backbone, by call."""
    seen: list[int] = []
    model.backbone.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    return seen


def test_cached_features_are_the_models_and_the_backbone_runs_once(
    tmp_path: Path, backbone: Backbone
) -> None:
    model = CustomRewardModel(backbone)
    expected = model.pooled(PROMPTS, RESPONSES)
    seen = count_runs(model)
    cache = FeatureCache(tmp_path, model)
    first = cache.get(PROMPTS, RESPONSES)
    assert sum(seen) == 3  # one of the four pairs occurs twice
    assert (cache.hits, cache.misses, len(cache)) == (1, 3, 3)
    torch.testing.assert_close(first, expected, atol=1e-5, rtol=0)
    again = cache.get(PROMPTS[::-1], RESPONSES[::-1])
    assert sum(seen) == 3 and cache.misses == 3
    torch.testing.assert_close(again, first.flip(0), atol=0, rtol=0)


def test_another_process_finds_them_on_disk(tmp_path: Path, backbone: Backbone) -> None:
    model = CustomRewardModel(backbone)
    first = FeatureCache(tmp_path, model).get(PROMPTS, RESPONSES)
    seen = count_runs(model)
    second = FeatureCache(tmp_path, model)
    torch.testing.assert_close(second.get(PROMPTS, RESPONSES), first, atol=0, rtol=0)
    assert seen == [] and second.misses == 0


def test_scores_from_the_cache_are_the_scores(tmp_path: Path, decoder: Backbone) -> None:
    model = CustomRewardModel(decoder, human_logits=True, human_logits_layer="second_last")
    cache = FeatureCache(tmp_path, model)
    cached = model.eval().heads(cache.get(PROMPTS, RESPONSES)).scores.tolist()
    assert cached == pytest.approx(model.score(PROMPTS, RESPONSES), abs=1e-5)


def test_every_input_of_a_feature_is_in_its_key(make_backbone: Callable[..., Backbone]) -> None:
    def key(**changes: object) -> str:
        source = make_backbone("decoder", seed=int(changes.pop("seed", 0)))
        for name, value in changes.pop("config", {}).items():
            setattr(source.model.config, name, value)
        dtype = changes.pop("scoring_dtype", torch.float32)
        if changes.pop("chat", False):
            source.tokenizer.chat_template = (
                "{% for m in messages %}{{ m['content'] }};{% endfor %}"
            )
        model = CustomRewardModel(source, **changes)
        model.scoring_dtype = dtype
        return feature_key(model)

    variants = [
        key(),
        key(seed=1),
        key(chat=True),
        key(pooling="mean"),
        key(max_length=64),
        key(config={"num_attention_heads": 2}),  # no weight tells these apart
        key(config={"hidden_act": "relu"}),
        key(scoring_dtype=torch.bfloat16),
        key(human_logits=True, human_logits_layer="second_last"),
    ]
    assert len(set(variants)) == len(variants)
    assert key() == variants[0]
    assert key(config={"_name_or_path": "moved", "transformers_version": "9"}) == variants[0]
    assert key(heads=("other",), dropout=0.3) == variants[0]  # heads don't change features


def test_texts_are_not_confused_by_where_they_are_cut() -> None:
    assert text_key("ab", "c") != text_key("a", "bc")
    assert text_key("\ud800", "") != text_key("", "\ud800")


def test_a_damaged_shard_is_named_and_computed_again(
    tmp_path: Path, decoder: Backbone, caplog: pytest.LogCaptureFixture
) -> None:
    model = CustomRewardModel(decoder)
    cache = FeatureCache(tmp_path, model)
    expected = cache.get(PROMPTS, RESPONSES).clone()
    (shard,) = cache.folder.glob("*.safetensors")
    del cache
    shard.write_bytes(shard.read_bytes()[:-40])
    with caplog.at_level(logging.WARNING):
        again = FeatureCache(tmp_path, model)
    assert shard.name in caplog.text
    torch.testing.assert_close(again.get(PROMPTS, RESPONSES), expected, atol=1e-5, rtol=0)
    assert again.misses == 3


def test_a_trained_backbone_is_refused_before_and_after(tmp_path: Path, decoder: Backbone) -> None:
    model = CustomRewardModel(decoder)
    cache = FeatureCache(tmp_path, model)
    model.backbone.layers[0].requires_grad_(True)
    with pytest.raises(ModelError, match="frozen backbone"):
        cache.get(PROMPTS, RESPONSES)
    with pytest.raises(ModelError, match="frozen backbone"):
        FeatureCache(tmp_path, model)


def test_shards_are_bounded_and_two_caches_share_a_folder(
    tmp_path: Path, decoder: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "SHARD_ROWS", 4)
    model = CustomRewardModel(decoder)
    texts = [f"answer {i}" for i in range(10)]
    first, second = FeatureCache(tmp_path, model), FeatureCache(tmp_path, model)
    features = first.get(["q"] * 10, texts)
    sizes = []
    for path in first.folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as shard:
            sizes.append(shard.get_tensor("keys").shape[0])
    assert sorted(sizes) == [2, 4, 4]
    second.refresh()
    torch.testing.assert_close(second.get(["q"] * 10, texts), features, atol=0, rtol=0)
    assert second.misses == 0


def test_unequal_lists_are_refused(tmp_path: Path, decoder: Backbone) -> None:
    with pytest.raises(DataError, match="1 prompts for 2 responses"):
        FeatureCache(tmp_path, CustomRewardModel(decoder)).get(["a"], ["b", "c"])
