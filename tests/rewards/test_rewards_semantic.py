"""Semantic similarity: to the reference, else to the intent, and what must not earn anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from modern_rlhf.errors import ConfigError
from modern_rlhf.models.loading import Backbone
from modern_rlhf.records import Prompt
from modern_rlhf.rewards.base import RewardBatch
from modern_rlhf.rewards.composite import CompositeReward
from modern_rlhf.rewards.functions import FunctionReward
from modern_rlhf.rewards.semantic import SemanticReward, intent_overlap, token_similarities

FIXTURE = (
    Path(__file__).resolve().parents[2].parent
    / "shared/data/metric_fixture/conala_metric_fixture.jsonl"
)


def one(reward: SemanticReward, response: str, **prompt: str) -> float | None:
    return reward.score(RewardBatch([Prompt(**{"prompt": "", **prompt})], [response])).total[0]


@pytest.mark.parametrize("kind", ["token", "codebleu"])
def test_the_reference_itself_is_one_and_nothing_is_zero(kind: str) -> None:
    reward = SemanticReward(kind)
    reference = "df.groupby('colA').sum()"
    assert one(reward, reference, reference=reference) == pytest.approx(1.0)
    assert one(reward, f"Sure!\n```python\n{reference}\n```", reference=reference) == pytest.approx(
        1.0
    )
    assert one(reward, "", reference=reference) == 0.0
    near = one(reward, "df.groupby('colB').sum()", reference=reference)
    far = one(reward, "import os; os.getcwd()", reference=reference)
    assert near is not None and far is not None and 1.0 > near > far >= 0.0


def test_token_similarity_by_hand() -> None:
    # chrF is sacrebleu's own; tokens of `a + b` and `a - b` share a and b: 2 * 2 / (3 + 3).
    from sacrebleu.metrics.chrf import CHRF

    characters = CHRF().sentence_score("a + b", ["a - b"]).score / 100
    assert token_similarities([("a + b", "a - b")]) == pytest.approx([(characters + 2 / 3) / 2])


def test_without_a_reference_the_intent_is_used_or_nothing() -> None:
    code = "def sort_list(values):\n    return sorted(values)"
    rows = RewardBatch([Prompt("sort a list of values"), Prompt("x", reference="y")], [code, "y"])
    found = SemanticReward("token").score(rows)
    assert found.details["compared_with"] == ["intent", "reference"]
    assert found.total[0] is not None and 0.4 < found.total[0] <= 1.0
    assert SemanticReward("token", without_reference="none").score(rows).total == [
        None,
        pytest.approx(1.0),
    ]
    empty = SemanticReward("token").score(RewardBatch([Prompt(" ")], ["x = 1"]))
    assert empty.total == [None] and empty.details["compared_with"] == [None]


def test_intent_overlap_by_hand() -> None:
    # Asked: {sort, list}. Named: {sort, list, values}: 2 * 2 / (2 + 3).
    assert intent_overlap("sort_list(values)", "sort a list") == pytest.approx(0.8)


@pytest.mark.parametrize(
    "echo",
    [
        "sort a list of values",
        "# sort a list of values",
        "'''sort a list of values'''",
        "def f():\n    'sort a list of values'",
        "sorted(((",
    ],
)
def test_repeating_the_question_earns_nothing(echo: str) -> None:
    assert intent_overlap(echo, "sort a list of values") == 0.0


def test_hostile_text_is_scored_not_raised() -> None:
    reward = SemanticReward("token")
    for text in ("(" * 5000, "\ud800\x00", "```", "x" * 200_000, "```python\n\x00\n```"):
        for prompt in ({"prompt": text}, {"prompt": "p", "reference": text}):
            found = one(reward, text, **prompt)
            assert found is None or 0.0 <= found <= 1.0


@pytest.mark.skipif(not FIXTURE.is_file(), reason="shared/data is not beside the repository")
def test_token_similarity_follows_human_grades_better_than_its_parts() -> None:
    from rapidfuzz.distance import Indel
    from sacrebleu.metrics.chrf import CHRF
    from scipy.stats import pearsonr

    from modern_rlhf.metrics.texts import code_tokens

    rows = [json.loads(line) for line in FIXTURE.read_text(encoding="utf-8").splitlines()]
    grades = [row["human"] for row in rows]
    pairs = [(row["hyp"], row["refs"][0]) for row in rows]
    chrf = CHRF()
    characters = [chrf.sentence_score(a, [b]).score for a, b in pairs]
    tokens = [Indel.normalized_similarity(code_tokens(a), code_tokens(b)) for a, b in pairs]
    ours = pearsonr(token_similarities(pairs), grades).statistic
    assert ours > pearsonr(characters, grades).statistic
    assert ours > pearsonr(tokens, grades).statistic
    assert ours > 0.58


def tiny_encoder() -> Backbone:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate(["[PAD]", "[UNK]", *"abcdefghij"])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", model_max_length=16
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
        initializer_range=0.5,
    )
    return Backbone(BertModel(config).eval(), tokenizer, "tiny", 16, "encoder", "0")


def test_embedding_similarity_is_one_for_equal_texts_whatever_the_batch() -> None:
    reward = SemanticReward("embedding", backbone=tiny_encoder(), batch_size=2)
    prompts = [Prompt("", reference=text) for text in ("a b c", "d", "a " * 40, "e f")]
    found = reward.score(RewardBatch(prompts, ["a b c", "h i j", "a " * 40, ""])).total
    assert found[0] == pytest.approx(1.0, abs=1e-5) and found[2] == pytest.approx(1.0, abs=1e-5)
    assert found[1] is not None and 0.0 <= found[1] < 0.99
    assert found[3] == 0.0
    alone = one(reward, "h i j", reference="d")
    assert alone == pytest.approx(found[1], abs=1e-5)


def test_a_likeness_that_is_no_number_is_masked_never_zero() -> None:
    backbone = tiny_encoder()
    with torch.no_grad():
        backbone.model.embeddings.word_embeddings.weight[3] = float("nan")  # the letter b
    reward = SemanticReward("embedding", backbone=backbone)
    rows = RewardBatch([Prompt("", reference="a c")] * 3, ["a b", "a c", ""])
    found = reward.score(rows)
    assert found.total == [None, pytest.approx(1.0, abs=1e-5), 0.0]
    assert found.details["unscorable"] == [True, False, False]
    other = FunctionReward(lambda p, r: [1.0] * len(p), name="other")
    whole = CompositeReward([(reward, 0.5), (other, 0.5)]).score(rows)
    assert whole.total[0] is None and whole.total[2] == 0.5


def test_an_encoder_that_counts_positions_from_its_padding_takes_its_longest_text() -> None:
    from transformers import RobertaConfig, RobertaModel

    tiny = tiny_encoder()
    tiny.tokenizer.model_max_length = 10**30  # the file says nothing
    config = RobertaConfig(
        vocab_size=20, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=18, pad_token_id=0,
    )  # fmt: skip
    roberta = Backbone(RobertaModel(config).eval(), tiny.tokenizer, "r", 16, "encoder", "0")
    assert (
        one(SemanticReward("embedding", backbone=roberta), "a " * 60, reference="a b") is not None
    )


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError, match="kind"):
        SemanticReward("bleurt")
    with pytest.raises(ConfigError, match="without_reference"):
        SemanticReward(without_reference="zero")
    with pytest.raises(ConfigError, match="backbone"):
        SemanticReward("embedding")
    with pytest.raises(ConfigError, match="backbone"):
        SemanticReward("token", backbone=tiny_encoder())
