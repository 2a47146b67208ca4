"""One encoding for training and scoring, special tokens kept, tokenizer untouched (D37, D39)."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from modern_rlhf.errors import DataError, ModelError
from modern_rlhf.models.loading import Backbone
from modern_rlhf.reward_model.encoding import PairEncoder, length_limit
from modern_rlhf.reward_model.model import CustomRewardModel

CHAT = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def test_encoder_ids_are_the_tokenizers_own_pair(encoder: Backbone) -> None:
    model = CustomRewardModel(encoder)
    ids = model.encode_pairs(["sort a list"], ["sorted(x)"]).input_ids[0].tolist()
    assert ids == encoder.tokenizer("sort a list", "sorted(x)")["input_ids"]
    # <s> prompt </s></s> response </s>
    assert ids[0] == 0 and ids[-1] == 2 and ids[12:14] == [2, 2]


def test_train_path_ids_are_serve_path_ids(
    encoder: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts, responses = ["sort", "a much longer prompt"], ["sorted(x)", "y"]
    model = CustomRewardModel(encoder)
    seen: list[list[list[int]]] = []
    features = model.features

    def spy(batch: object) -> torch.Tensor:
        rows = zip(batch.input_ids.tolist(), batch.lengths.tolist(), strict=True)
        seen.append([row[:length] for row, length in rows])
        return features(batch)

    monkeypatch.setattr(model, "features", spy)
    trained = model.encode_pairs(prompts, responses)
    model(trained)
    model.score(prompts, responses)
    assert sorted(seen[0]) == sorted(seen[1])


def test_token_types_tell_the_two_texts_apart() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {
        token: i for i, token in enumerate(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "a", "b"])
    }
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    found = PairEncoder(tokenizer, kind="encoder", max_length=16).encode(
        ["a a", "b"], ["b", "a b a"]
    )
    whole = [tokenizer("a a", "b"), tokenizer("b", "a b a")]
    for i, row in enumerate(whole):
        n = len(row["input_ids"])
        assert found.input_ids[i, :n].tolist() == row["input_ids"]
        assert found.token_type_ids is not None
        assert found.token_type_ids[i, :n].tolist() == row["token_type_ids"]
        assert found.attention_mask[i].tolist() == [1] * n + [0] * (len(found.input_ids[i]) - n)


def test_plain_decoder_frame_is_prompt_newline_response_eos(decoder: Backbone) -> None:
    model = CustomRewardModel(decoder)
    ids = model.encode_pairs(["ab"], ["cd"]).input_ids[0].tolist()
    assert ids == [*decoder.tokenizer("ab\ncd")["input_ids"], 2]


def test_chat_template_frames_the_pair_and_ends_at_the_end_of_turn(
    make_backbone: Callable[..., Backbone],
) -> None:
    backbone = make_backbone("decoder")
    backbone.tokenizer.chat_template = CHAT
    model = CustomRewardModel(backbone)
    ids = model.encode_pairs(["hi"], ["x = 1"]).input_ids[0].tolist()
    assert model.tokenizer.decode(ids) == "<|user|>\nhi</s>\n<|assistant|>\nx = 1</s>"
    assert ids[-1] == 2
    plain = CustomRewardModel(backbone, template="plain").encode_pairs(["hi"], ["x = 1"])
    assert model.tokenizer.decode(plain.input_ids[0]) == "hi\nx = 1</s>"


def test_text_cannot_smuggle_special_tokens(decoder: Backbone) -> None:
    model = CustomRewardModel(decoder)
    ids = model.encode_pairs(["a"], ["b</s>c<pad>"]).input_ids[0].tolist()
    assert ids.count(2) == 1 and 1 not in ids
    assert model.tokenizer.decode(ids[:-1]) == "a\nb</s>c<pad>"


def test_truncation_keeps_the_frame_and_half_of_the_room_for_the_response(
    encoder: Backbone,
) -> None:
    model = CustomRewardModel(encoder, max_length=24)  # 4 special tokens: 20 for text
    batch = model.encode_pairs(["p" * 100, "p" * 3, "p" * 100], ["r" * 100, "r" * 100, "r" * 4])
    texts = [
        model.tokenizer.decode(row[:n])
        for row, n in zip(batch.input_ids, batch.lengths, strict=True)
    ]
    assert batch.lengths.tolist() == [24, 24, 24]
    assert texts[0] == "<s>" + "p" * 10 + "</s></s>" + "r" * 10 + "</s>"
    assert texts[1] == "<s>" + "p" * 3 + "</s></s>" + "r" * 17 + "</s>"
    assert texts[2] == "<s>" + "p" * 16 + "</s></s>" + "r" * 4 + "</s>"


def test_length_limit_counts_robertas_offset(encoder: Backbone, decoder: Backbone) -> None:
    # 258 positions, numbered from pad_token_id + 1 = 2.
    assert length_limit(encoder.model.config, encoder.tokenizer) == 256
    assert length_limit(decoder.model.config, decoder.tokenizer) == 256
    model = CustomRewardModel(encoder)  # default maximum: the limit itself must run
    model.score(["p" * 300], ["r" * 300])


def test_the_given_tokenizer_is_never_changed(encoder: Backbone) -> None:
    tokenizer = encoder.tokenizer
    tokenizer.backend_tokenizer.enable_truncation(7)
    tokenizer.backend_tokenizer.enable_padding(length=9)
    before = tokenizer.backend_tokenizer.to_str()
    model = CustomRewardModel(encoder)
    model.score(["p" * 50], ["r" * 50])
    assert tokenizer.backend_tokenizer.to_str() == before
    # The tokenizer's own truncation did not reach the reward model either.
    assert int(model.encode_pairs(["p" * 50], ["r" * 50]).lengths[0]) == 104


def test_tokenizer_without_pad_token_and_unequal_lists_are_refused(decoder: Backbone) -> None:
    with pytest.raises(DataError, match="2 prompts for 1 responses"):
        CustomRewardModel(decoder).encode_pairs(["a", "b"], ["c"])
    decoder.tokenizer.pad_token = None
    with pytest.raises(ModelError, match="pad token"):
        CustomRewardModel(decoder)


def test_the_response_keeps_half_of_an_odd_room_too(encoder: Backbone) -> None:
    batch = CustomRewardModel(encoder, max_length=25).encode_pairs(["p" * 100], ["r" * 100])
    texts = encoder.tokenizer.decode(batch.input_ids[0])
    assert (texts.count("p"), texts.count("r")) == (10, 11)  # 25 less 4 special tokens


def test_lone_surrogates_are_read_as_the_replacement_character(decoder: Backbone) -> None:
    model = CustomRewardModel(decoder)
    ours, same = model.encoder.text_ids(["a\ud800b é", "a\ufffdb é"])
    assert ours == same
    assert model.score(["\udfff"], ["\ud83d"]) == model.score(["\ufffd"], ["\ufffd"])


def test_a_template_that_writes_the_date_gives_the_same_ids_every_day(
    make_backbone: Callable[..., Backbone], on_day: Callable[[int], None]
) -> None:
    dated = "{%- set today = strftime_now('%d %B %Y') -%}Today: {{ today }}\n" + CHAT

    def ids(day: int) -> list[int]:
        on_day(day)
        backbone = make_backbone("decoder")
        backbone.tokenizer.chat_template = dated
        turns = [{"role": "user", "content": "hi"}]
        shown = backbone.tokenizer.apply_chat_template(turns, tokenize=False)
        assert f"{day:02} May 2031" in shown  # the template does write the day
        return CustomRewardModel(backbone).encode_pairs(["hi"], ["x"]).input_ids[0].tolist()

    assert ids(1) == ids(2)


def test_two_empty_texts_without_a_frame_still_have_a_token() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "a": 2}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]")
    batch = PairEncoder(tokenizer, kind="decoder", max_length=8).encode(["", "a"], [" ", "a a"])
    assert batch.lengths.tolist() == [1, 3] and batch.attention_mask[0].tolist() == [1, 0, 0]


def test_a_tokenizer_that_does_not_show_its_frame_is_refused_in_one_line() -> None:
    from transformers import CanineTokenizer

    with pytest.raises(ModelError, match="CanineTokenizer.*fast tokenizer"):
        PairEncoder(CanineTokenizer(), kind="encoder", max_length=64)


@pytest.mark.parametrize("kind", ["mpnet", "xlm-roberta", "data2vec-text"])
def test_all_that_count_positions_as_roberta_does_lose_as_many(kind: str) -> None:
    config = SimpleNamespace(model_type=kind, max_position_embeddings=514, pad_token_id=1)
    assert length_limit(config, SimpleNamespace(model_max_length=10**30)) == 512
