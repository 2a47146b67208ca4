"""Shared fixtures: a tiny model and a byte tokenizer built in memory, the shared data, no network.

Set before torch is loaded anywhere: one thread a process (the suite may run beside others), hub
clients offline, plots without a screen. Sub-processes of tests inherit all of it.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]

os.environ.update(
    OMP_NUM_THREADS="1",
    TOKENIZERS_PARALLELISM="false",
    HF_HUB_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    MPLBACKEND="Agg",
)
# Tests start `python -m modern_rlhf...` from other folders too.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
)

# A suite started in a shell's background, as CI may do it, inherits an ignored Ctrl-C, and so would
# the processes that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """torch on one thread, also after a test has changed it."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections leave this machine in no test; they fail as on a machine without a network.

    Local sockets work. Slow tests that need a package index run pip in a process of their own.
    """
    real = socket.socket.connect

    def connect(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "localhost", "::1"):
            raise OSError(f"tests have no network (to {address[0]})")
        real(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; the test is skipped where there is none."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data here: {folder.parent.name}/data beside the checkout is absent")
    return folder


@pytest.fixture
def output_dir(tmp_path: Path) -> Path:
    """A folder a run may write to; it doesn't exist yet."""
    return tmp_path / "outputs"


def build_byte_tokenizer() -> Any:
    """A tokenizer of 256 bytes and three special tokens (259 in all), with a chat template."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    # The byte-level alphabet in byte order: printable bytes stand for themselves, the others are
    # moved behind 255 (the table of GPT-2), so `ByteLevel` maps every byte to one known character.
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet, moved = [], 256
    for byte in range(256):
        alphabet.append(chr(byte if byte in visible else moved))
        moved += byte not in visible
    backend = Tokenizer(BPE({character: i for i, character in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|bos|>",
        eos_token="<|eos|>",
        pad_token="<|pad|>",
        model_max_length=256,
    )
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n"
        "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    return tokenizer


@pytest.fixture
def byte_tokenizer() -> Any:
    """A fresh byte tokenizer (id = byte; 256 bos, 257 eos, 258 pad)."""
    return build_byte_tokenizer()


@pytest.fixture
def tiny_llama_config() -> Any:
    """Two layers of width 32 over the byte tokenizer's 259 ids, context 256; about 30 k weights."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=259,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=256,
        eos_token_id=257,
        pad_token_id=258,
        tie_word_embeddings=True,
    )


@pytest.fixture
def tiny_llama(tiny_llama_config: Any) -> Callable[..., Any]:
    """`tiny_llama(seed=0)`: a causal model with random float32 weights, in eval mode."""

    def build(seed: int = 0) -> Any:
        import torch
        from transformers import LlamaForCausalLM

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return LlamaForCausalLM(tiny_llama_config).float().eval()

    return build


@pytest.fixture
def tiny_model_folder(
    tmp_path: Path, tiny_llama: Callable[..., Any], byte_tokenizer: Any
) -> Iterator[Path]:
    """A Hugging Face directory of the tiny model and its tokenizer."""
    folder = tmp_path / "tiny-model"
    tiny_llama().save_pretrained(folder)
    byte_tokenizer.save_pretrained(folder)
    yield folder


@pytest.fixture
def on_day(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes it that day of May 2031 for chat templates that write the date."""
    from transformers.utils import chat_template_utils

    def set_day(day: int) -> None:
        class Calendar(datetime):
            @classmethod
            def now(cls, tz: object = None) -> datetime:
                return datetime(2031, 5, day)

        monkeypatch.setattr(chat_template_utils, "datetime", Calendar)

    return set_day
