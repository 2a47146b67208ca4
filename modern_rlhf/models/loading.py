"""Find and load models and tokenizers by name: the only place that knows where weights come from.

A name is one of
* `builtin:tiny-code-lm`, the 5.8 M-parameter decoder shipped inside the package;
* `smollm2-135m` or `minilm` once `modern-rlhf fetch-model` has installed it;
* a local Hugging Face directory;
* a hub id.
Whatever the source, a policy comes back in float32 (or the dtype asked for), in eval mode, with every
dropout switched off (D11), and a tokenizer comes back as a private copy that has a pad token (D37).
Nothing here knows about training, rewards or data.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from modern_rlhf.errors import ModelError
from modern_rlhf.utils.paths import at_home

BUILTIN = "builtin:tiny-code-lm"
ASSETS = Path(__file__).resolve().parent / "assets"
FETCHED = Path.home() / ".cache" / "modern_rlhf" / "models"
FETCHABLE = ("smollm2-135m", "minilm")

_WAYS_ON = (
    f"use --model-name {BUILTIN} (shipped, needs no network), a local Hugging Face directory, "
    "or run `modern-rlhf fetch-model smollm2-135m` and use --model-name smollm2-135m"
)


def resolve_model(name: str) -> str:
    """Turn a model name into what `from_pretrained` takes: a local path, or a hub id unchanged.

    Raises:
        ModelError: an unknown builtin, or a path that is not a model directory.
    """
    if name.startswith("builtin:"):
        folder = ASSETS / name.removeprefix("builtin:")
        if not (folder / "config.json").is_file():
            known = ", ".join(
                sorted(f"builtin:{p.parent.name}" for p in ASSETS.glob("*/config.json"))
            )
            raise ModelError(f"model {name!r} is not shipped with this package; shipped: {known}")
        return str(folder)
    if name in FETCHABLE:
        folder = FETCHED / name
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"model {name!r} has not been fetched yet (expected in {folder}); "
                f"run `modern-rlhf fetch-model {name}` first"
            )
        return str(folder)
    path = at_home(name)
    if path.is_file():
        raise ModelError(
            f"{path} is a file; give the folder that holds config.json and model.safetensors"
        )
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(
                f"{path} is a directory without config.json, so not a Hugging Face model; "
                "give the folder that holds config.json and model.safetensors"
            )
        return str(path)
    if name.startswith(("/", "./", "../", "~")) or name.count("/") > 1 or name == "":
        raise ModelError(f"model directory {name!r} does not exist; {_WAYS_ON}")
    return name


def _load(what: str, name: str, loader: Any, **kwargs: Any) -> Any:
    """Call a `from_pretrained` and turn what can go wrong into one line."""
    source = resolve_model(name)
    try:
        return loader(source, **kwargs)
    except (
        OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError
    ) as error:  # fmt: skip
        reason = " ".join(str(error).split())[:300]
        local = Path(source).is_dir()
        place = f"in {source}" if local else "and the hub could not provide it"
        remedy = "check that the folder is complete" if local else _WAYS_ON
        raise ModelError(
            f"cannot load the {what} of {name!r} {place}: {reason}; {remedy}"
        ) from error


def check_weights(name: str) -> None:
    """Look whether the weights of a local model are there and whole, without loading them.

    Reads the headers of safetensors files, which hold each file's length. What only the hub has is not
    looked at.

    Raises:
        ModelError: no weights, or a missing, cut or damaged file.
    """
    folder = Path(resolve_model(name))
    if not folder.is_dir():
        return
    index = folder / "model.safetensors.index.json"
    try:
        if index.is_file():
            files = sorted(
                set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            )
        elif (folder / "model.safetensors").is_file():
            files = ["model.safetensors"]
        elif any(folder.glob("pytorch_model*.bin")):
            return
        else:
            raise ModelError(
                f"{folder} holds no weights (model.safetensors); check that the folder is complete"
            )
        for file in files:
            with safe_open(folder / file, framework="pt"):
                pass
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"the weights of {name!r} in {folder} cannot be read: {reason}; fetch or copy the folder "
            "again"
        ) from error


def load_tokenizer(name: str) -> Any:
    """A private tokenizer copy that has a pad token.

    A tokenizer without one pads with its EOS: harmless here, since masks come from lengths and never
    from `id == pad` (D7).

    Raises:
        ModelError: nothing loadable under this name, or neither a pad nor an EOS token.
    """
    from transformers import AutoTokenizer

    tokenizer = _load("tokenizer", name, AutoTokenizer.from_pretrained)
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise ModelError(
                f"the tokenizer of {name!r} has neither a pad nor an EOS token; "
                "add one to its tokenizer_config.json"
            )
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def disable_dropout(model: nn.Module) -> nn.Module:
    """Set every dropout probability to 0, in modules and in attributes (D11)."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for attribute in ("attention_dropout", "dropout", "activation_dropout", "hidden_dropout"):
            if isinstance(module.__dict__.get(attribute), float):
                setattr(module, attribute, 0.0)
    return model


def load_causal_lm(
    name: str, *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> Any:
    """A causal language model with its head, dropout off, in eval mode.

    Raises:
        ModelError: nothing loadable under this name, or no causal language model: an encoder, or
            weights that the folder lacks and that would be random numbers.
    """
    from transformers import AutoModelForCausalLM

    model, found = _load(
        "model", name, AutoModelForCausalLM.from_pretrained, dtype=dtype, output_loading_info=True
    )
    if model.get_output_embeddings() is None:
        raise ModelError(f"{name!r} has no language-model head; give a causal language model")
    if backbone_kind(model.config) == "encoder":
        raise ModelError(
            f"{name!r} is an encoder ({model.config.model_type}), which reads text both ways and cannot "
            "write it; give a causal language model"
        )
    refuse_random(lacking_parameters(model, found), name, what="causal language model")
    return disable_dropout(model).to(device).eval()


def lacking_parameters(model: nn.Module, found: Any) -> list[str]:
    """Parameters that were in none of the files, by what `from_pretrained` says it found."""
    return sorted(set(found["missing_keys"]) & {key for key, _ in model.named_parameters()})


def refuse_random(lacking: list[str], name: str, *, what: str) -> None:
    """Stop where parameters are lacking.

    Raises:
        ModelError: naming the first one.
    """
    if lacking:
        raise ModelError(
            f"the weights of {name!r} lack {len(lacking)} of the model's parameters ({lacking[0]}, ...), "
            f"which would be random numbers; give a complete {what}"
        )


@dataclass(frozen=True)
class Backbone:
    """A headless model for reward models, BERTScore and similarity.

    `kind` is `decoder` when the model attends causally (score at the last real token), else
    `encoder`. `fingerprint` is a SHA-256 over all weights: the key of the feature cache.
    """

    model: Any
    tokenizer: Any
    name: str
    hidden_size: int
    kind: str
    fingerprint: str


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over names, shapes, dtypes and bytes of all parameters and buffers, in name order."""
    return state_fingerprint(model.state_dict())


def state_fingerprint(state: Mapping[str, torch.Tensor]) -> str:
    """The `fingerprint` of the model whose state this is."""
    digest = hashlib.sha256()
    for key, tensor in sorted(state.items()):
        digest.update(f"{key}{tuple(tensor.shape)}{tensor.dtype}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        if flat.numel():
            digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def backbone_config(model: nn.Module) -> dict[str, Any]:
    """What a model's configuration says beside its weights (heads, rotary base, activation, ...), as JSON
    types, without what depends on where it lies and who wrote it."""
    config: Any = model.config
    found: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    for name in ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version"):
        found.pop(name, None)
    return found


def load_backbone(
    name: str, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> Backbone:
    """A model without its task head, dropout off, eval mode, with its own tokenizer.

    A pooler that was never trained (files of masked language models hold none) is taken off: nothing here
    uses it, and random weights would give the model another fingerprint at every load.

    Raises:
        ModelError: nothing loadable under this name, a model of two parts (encoder and decoder), or
            weights that the folder lacks and that would be random numbers.
    """
    from transformers import AutoModel

    model, found = _load(
        "backbone",
        name,
        AutoModel.from_pretrained,
        dtype=dtype or torch.float32,
        output_loading_info=True,
    )
    if model.config.is_encoder_decoder:
        raise ModelError(
            f"{name!r} has an encoder and a decoder ({model.config.model_type}); give an encoder "
            "(microsoft/codebert-base) or a decoder (HuggingFaceTB/SmolLM2-135M-Instruct)"
        )
    lacking = lacking_parameters(model, found)
    if any(key.startswith("pooler.") for key in lacking):
        model.pooler = None
    refuse_random([k for k in lacking if not k.startswith("pooler.")], name, what="model")
    model = disable_dropout(model).to(device).eval()
    return Backbone(
        model=model,
        tokenizer=load_tokenizer(name),
        name=name,
        hidden_size=int(model.config.hidden_size),
        kind=backbone_kind(model.config),
        fingerprint=fingerprint(model),
    )


def backbone_kind(config: Any) -> str:
    """`decoder` for causal models, `encoder` for bidirectional ones, from the configuration."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    if getattr(config, "is_decoder", False):
        return "decoder"
    masked = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    causal = config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return "decoder" if causal and not masked else "encoder"


def load_model_config(name: str) -> Any:
    """The configuration of a model, without its weights.

    Raises:
        ModelError: nothing loadable under this name.
    """
    from transformers import AutoConfig

    return _load("configuration", name, AutoConfig.from_pretrained)


def vocabulary_size(config: Any) -> int:
    """Rows of the embedding table, by the configuration: every token id must be below it."""
    return int(config.get_text_config().vocab_size)


def context_length(model: Any, tokenizer: Any) -> int:
    """The longest sequence a model (or its configuration) takes with a tokenizer, in tokens."""
    config = getattr(model, "config", model)
    limits = [int(tokenizer.model_max_length)]
    for attribute in ("max_position_embeddings", "n_positions"):
        value = getattr(config, attribute, None)
        if isinstance(value, int):
            limits.append(value)
    return min(limits)
