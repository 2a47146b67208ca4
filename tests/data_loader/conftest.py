"""What the tests of the data room share: a byte tokenizer in memory, and the folder of real data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., Any]:
    """Builds a byte-level tokenizer without merges: one id a byte, then the special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    def make(*, chat: bool = False, bos: bool = False, eos: str = "<|im_end|>") -> Any:
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        specials = ["<|im_end|>", "<|im_start|>", "<|end|>", "<s>"]
        vocab = {char: index for index, char in enumerate(alphabet)}
        vocab.update({text: len(alphabet) + index for index, text in enumerate(specials)})
        backend = Tokenizer(models.BPE(vocab=vocab, merges=[]))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.decoder = decoders.ByteLevel()
        if bos:
            backend.post_processor = processors.TemplateProcessing(
                single="<s> $A", special_tokens=[("<s>", vocab["<s>"])]
            )
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=backend,
            eos_token=eos,
            pad_token=eos,  # the trap of D7
            bos_token="<s>" if bos else None,
            additional_special_tokens=specials[:3],
        )
        tokenizer.chat_template = CHAT_TEMPLATE if chat else None
        return tokenizer

    return make


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Writes a file under the test's folder: text, bytes, or rows as JSON lines (JSON for .json)."""

    def write_file(name: str, content: Any) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif isinstance(content, str):
            path.write_text(content, encoding="utf-8", newline="")
        elif name.endswith(".json"):
            path.write_text(json.dumps(content), encoding="utf-8")
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
        return str(path)

    return write_file


@pytest.fixture(scope="session")
def real_data() -> Path:
    """`shared/data` beside the repository; a test that wants it skips where it is absent."""
    folder = Path(__file__).resolve().parents[3] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real data absent: {folder.parent.name}/{folder.name} beside the repository")
    return folder
