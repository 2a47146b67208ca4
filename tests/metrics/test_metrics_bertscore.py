"""BERTScore: parity with the package on random encoders, and what the package cannot do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)

from modern_rlhf.errors import MetricError
from modern_rlhf.metrics import bertscore
from modern_rlhf.metrics.bertscore import bertscore_scores, customary_layer
from modern_rlhf.metrics.evaluator import ALL_METRICS, DEFAULT_METRICS, ModernMetricsEvaluator
from modern_rlhf.metrics.ruby import PARTS
from modern_rlhf.models.loading import load_backbone
from modern_rlhf.records import Task
from modern_rlhf.sandbox.types import ExecutionResult

WORDS = "[PAD] [UNK] [CLS] [SEP] x y a b = 1 ( ) , . print sort sorted for i in range return"
PREDICTIONS = ["x = 1", "print(a, b)", "x.sort()", "for i in range(y): print(i)", "zz"]
REFERENCES = ["x = y", "print(a)", "sorted(x)", "[i for i in range(1)]", "x, y = zz"]


def build(folder: Path, kind: str) -> str:
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(WORDS.split())}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if kind != "llama":
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=32,
    ).save_pretrained(folder)
    sizes = {
        "vocab_size": 32,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
    }
    torch.manual_seed(7)
    model: Any
    if kind == "bert":
        model = BertModel(BertConfig(**sizes))
    elif kind == "roberta":
        model = RobertaModel(RobertaConfig(**sizes))
    else:
        model = LlamaForCausalLM(LlamaConfig(**sizes))
    model.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {k: build(tmp_path_factory.mktemp(k), k) for k in ("bert", "roberta", "llama")}


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@pytest.mark.parametrize("layer", [1, 2, 3])
def test_parity_with_the_package(folders: dict[str, str], kind: str, layer: int) -> None:
    from bert_score import BERTScorer

    scorer = BERTScorer(model_type=folders[kind], num_layers=layer, idf=False, device="cpu")
    # One pair a call: in a batch the package lets padding take part as similarity 0.
    theirs = [
        float(scorer.score([p], [r])[2]) for p, r in zip(PREDICTIONS, REFERENCES, strict=True)
    ]
    ours = bertscore_scores(
        PREDICTIONS,
        [[text] for text in REFERENCES],
        backbone=load_backbone(folders[kind]),
        layer=layer,
    )["bertscore"]
    assert ours.per_item == pytest.approx(theirs, abs=2e-6)
    assert ours.details["layer"] == layer


def test_details_name_model_layer_and_rescaling(folders: dict[str, str]) -> None:
    result = ModernMetricsEvaluator(
        metrics=["bertscore"], bertscore_model=folders["bert"]
    ).evaluate(["x = 1"], ["x = y"])["bertscore"]
    details = result.details
    layer = customary_layer(folders["bert"], details["layers"])
    assert (details["model"], details["layer"], details["rescaled"]) == (
        folders["bert"],
        layer,
        False,
    )
    assert "bert-score 0.3.13" in details["implementation"]


def test_identical_one_empty_zero_without_reference_none(folders: dict[str, str]) -> None:
    scores = bertscore_scores(
        ["x = 1", "", " \n", "x", "x"],
        [["x = 1"], ["x"], ["x"], [], ["y", "x"]],
        backbone=load_backbone(folders["llama"]),
    )
    for name in ("bertscore", "embedding_similarity"):
        one = pytest.approx(1.0, abs=1e-6)
        assert scores[name].per_item == [one, 0.0, 0.0, None, one]


class Judge:
    """Passes the programs that say what the task's reference says."""

    def run(self, programs: Any, **_: Any) -> list[ExecutionResult]:
        right = [program.tests[0].endswith(repr(program.code)) for program in programs]
        return [ExecutionResult("pass" if one else "fail", int(one), 1) for one in right]


def test_every_default_metric_is_one_for_the_reference_and_zero_for_nothing(
    folders: dict[str, str],
) -> None:
    codes = ["x", "x = 1", "x.sort()", "print(a, b)", "def f(a):\n    for b in a:\n        a(b)"]
    tasks = [Task(f"t{i}", "do", code, (f"assert {code!r}",)) for i, code in enumerate(codes)]
    evaluator = ModernMetricsEvaluator(
        bertscore_model=folders["llama"], executor=Judge(), bootstrap_samples=0
    )
    same = evaluator.evaluate(codes, codes, tasks=tasks)
    nothing = evaluator.evaluate([""] * 5, codes, tasks=tasks)
    assert tuple(same) == tuple(nothing) == DEFAULT_METRICS
    for name in DEFAULT_METRICS:
        assert same[name].per_item == [pytest.approx(1.0, abs=1e-6)] * 5, name
        assert same[name].value == pytest.approx(1.0, abs=1e-6), name
        assert (nothing[name].value, nothing[name].per_item) == (0.0, [0.0] * 5), name


def test_every_metric_with_references_names_its_rule_for_several(folders: dict[str, str]) -> None:
    alone = {"pass_at_1", "syntax_valid", "complexity", "style", "safety"}
    names = [name for name in (*ALL_METRICS, *PARTS) if name not in alone]
    report = ModernMetricsEvaluator(
        metrics=names, bertscore_model=folders["llama"], bootstrap_samples=0
    ).evaluate(["x = 1"], [["y = 2", "x = 1"]])
    for name in names:
        assert report[name].details["references"], name


def test_a_text_of_special_tokens_only_scores_zero(folders: dict[str, str]) -> None:
    for kind in ("bert", "llama"):
        backbone = load_backbone(folders[kind])
        assert backbone.tokenizer.encode("[SEP]", add_special_tokens=False) == [3]
        assert bertscore_scores(["[SEP]"], [["x"]], backbone=backbone)["bertscore"].per_item == [0]


def test_batching_and_order_change_nothing(
    folders: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = load_backbone(folders["bert"])
    references = [[text] for text in REFERENCES]
    whole = bertscore_scores(PREDICTIONS, references, backbone=backbone)["bertscore"].per_item
    back = bertscore_scores(PREDICTIONS[::-1], references[::-1], backbone=backbone)["bertscore"]
    assert back.per_item[::-1] == whole
    monkeypatch.setattr(bertscore, "PAIRS_AT_ONCE", 1)
    monkeypatch.setattr(bertscore, "TOKENS_AT_ONCE", 1)
    alone = bertscore_scores(PREDICTIONS, references, backbone=backbone)["bertscore"].per_item
    assert alone == pytest.approx(whole, abs=1e-6)


def test_texts_beyond_the_context_are_cut(folders: dict[str, str]) -> None:
    backbone = load_backbone(folders["bert"])
    long = "x = 1 , " * 500
    score = bertscore_scores([long], [[long]], backbone=backbone)["bertscore"].per_item[0]
    assert score == pytest.approx(1.0, abs=1e-6)


def test_customary_layers() -> None:
    assert customary_layer("bert-base-uncased", 12) == 9  # the package's table
    assert customary_layer("some/decoder", 8) == 6  # three quarters up
    assert customary_layer("some/decoder", 1) == 1


def test_a_layer_that_does_not_exist_is_named(folders: dict[str, str]) -> None:
    with pytest.raises(MetricError, match=r"it has 1\.\.3"):
        bertscore_scores(["x"], [["x"]], backbone=load_backbone(folders["bert"]), layer=4)


def test_a_model_that_cannot_be_loaded_is_a_reason_not_a_crash(tmp_path: Path) -> None:
    missing = str(tmp_path / "nowhere" / "model")
    report = ModernMetricsEvaluator(
        metrics=["bertscore", "bleu"], bertscore_model=missing
    ).evaluate(["x = 1"], ["x = 1"])
    assert report["bertscore"].value is None
    assert missing in str(report["bertscore"].reason)
    assert report["bleu"].value == 1.0
