"""Backbones of any file: what is not there is never random, and one fingerprint means one model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from modern_rlhf.errors import ModelError
from modern_rlhf.models.loading import load_backbone

SHAPE: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def masked_language_model(folder: Path, tokenizer: Any) -> Path:
    """RoBERTa as it is published: with the head it was trained with, and without a pooler."""
    from transformers import RobertaConfig, RobertaForMaskedLM

    model = RobertaForMaskedLM(RobertaConfig(**SHAPE, max_position_embeddings=40))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_pooler_that_was_never_trained_gives_no_random_fingerprint(
    tmp_path: Path, byte_tokenizer: Any
) -> None:
    folder = str(masked_language_model(tmp_path / "mlm", byte_tokenizer))
    torch.manual_seed(1)
    first = load_backbone(folder)
    torch.manual_seed(2)
    assert load_backbone(folder).fingerprint == first.fingerprint
    states = first.model(torch.tensor([[5, 6, 7]])).last_hidden_state
    assert states.shape == (1, 3, 16)


def test_layers_that_are_not_there_are_refused(tmp_path: Path, byte_tokenizer: Any) -> None:
    folder = masked_language_model(tmp_path / "mlm", byte_tokenizer)
    state = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in state.items() if "layer.1.attention" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lack 10 .*encoder\.layer\.1\.attention.*random numbers"):
        load_backbone(str(folder))


def test_a_model_of_two_parts_is_refused_in_one_line(tmp_path: Path, byte_tokenizer: Any) -> None:
    from transformers import T5Config, T5Model

    T5Model(
        T5Config(vocab_size=300, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    ).save_pretrained(tmp_path / "t5")
    byte_tokenizer.save_pretrained(tmp_path / "t5")
    with pytest.raises(ModelError, match="an encoder and a decoder"):
        load_backbone(str(tmp_path / "t5"))
