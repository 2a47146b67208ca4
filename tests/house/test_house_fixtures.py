"""The shared fixtures are what they say: byte tokenizer, tiny model, one thread, no network."""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
import torch


def test_a_byte_is_its_id(byte_tokenizer: Any) -> None:
    text = "def f(x):\n\treturn 'é€𝄞' # \x00"
    ids = byte_tokenizer(text, add_special_tokens=False).input_ids
    assert ids == list(text.encode())
    assert byte_tokenizer.decode(ids) == text


def test_the_special_tokens(byte_tokenizer: Any) -> None:
    assert len(byte_tokenizer) == 259
    ids = [getattr(byte_tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")]
    assert ids == [256, 257, 258]
    assert byte_tokenizer("<|eos|>", add_special_tokens=False).input_ids == [257]


def test_the_chat_template(byte_tokenizer: Any) -> None:
    turns = [{"role": "user", "content": "hi"}]
    rendered = byte_tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert rendered == "user: hi\nassistant: "


def test_the_tiny_model_is_seeded(tiny_llama: Callable[..., Any]) -> None:
    before = torch.random.get_rng_state()
    first, again, other = tiny_llama(0), tiny_llama(0), tiny_llama(1)
    ids = torch.arange(12).reshape(2, 6)
    with torch.inference_mode():
        logits = [model(ids).logits for model in (first, again, other)]
    assert logits[0].shape == (2, 6, 259)
    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])
    assert torch.equal(torch.random.get_rng_state(), before), "the global generator was touched"


def test_the_model_folder_loads(tiny_model_folder: Any) -> None:
    from modern_rlhf.models.loading import load_causal_lm, load_tokenizer

    assert load_causal_lm(str(tiny_model_folder)).config.vocab_size == 259
    assert load_tokenizer(str(tiny_model_folder)).pad_token_id == 258


def test_one_thread() -> None:
    assert torch.get_num_threads() == 1


def test_the_network_is_closed() -> None:
    with pytest.raises(OSError, match="tests have no network"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    with pytest.raises(OSError):
        urllib.request.urlopen("http://192.0.2.1/", timeout=1)


def test_this_machine_stays_reachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()[:2], timeout=5).close()
