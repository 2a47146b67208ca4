"""Tiny backbones with byte tokenizers, built in memory: one decoder, one RoBERTa-style encoder."""

from __future__ import annotations

from typing import Any

import torch

from modern_rlhf.models.loading import Backbone, fingerprint

HIDDEN = 32


def byte_tokenizer(style: str) -> Any:
    """A byte-level tokenizer; `roberta` puts `<s> a </s></s> b </s>` around texts, `decoder` nothing."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    letters = [*specials, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary = {token: i for i, token in enumerate(letters)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    if style == "roberta":
        backend.post_processor = processors.RobertaProcessing(
            ("</s>", 2), ("<s>", 0), add_prefix_space=False
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="</s>" if style == "pad_is_eos" else "<pad>",
        cls_token="<s>" if style == "roberta" else None,
        sep_token="</s>" if style == "roberta" else None,
    )


def tiny_backbone(kind: str, *, style: str | None = None, seed: int = 0) -> Backbone:
    from transformers import LlamaConfig, LlamaModel, RobertaConfig, RobertaModel

    torch.manual_seed(seed)
    tokenizer = byte_tokenizer(style or ("decoder" if kind == "decoder" else "roberta"))
    shape: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": HIDDEN,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "initializer_range": 0.3,  # wide enough that every token matters to the last one
    }
    model: Any
    if kind == "decoder":
        model = LlamaModel(LlamaConfig(**shape, max_position_embeddings=256))
    else:
        # RoBERTa numbers positions from pad + 1: 258 of them take 256 tokens.
        model = RobertaModel(RobertaConfig(**shape, max_position_embeddings=258, type_vocab_size=1))
    return Backbone(model.eval(), tokenizer, f"tiny-{kind}", HIDDEN, kind, fingerprint(model))
