"""A reward model as a folder: safetensors, JSON and the tokenizer's own text files, nothing pickled.

    reward_model.json       schema, settings, backbone (name, kind, dtype, source fingerprint), scores of a few
                            pairs, SHA-256 of every file
    heads.safetensors       heads, feature statistics, calibration, temperature
    backbone/               Hugging Face directory of the headless backbone with its tokenizer
    adapter/                LoRA adapters, where the backbone has them
    tokenizer/              the tokenizer alone, when the backbone's weights are not copied

By default the backbone's weights are copied, so the folder is self-contained. `copy_backbone=False`
stores name and fingerprint of a frozen backbone instead; loading finds it by name and refuses it when
its weights are others. Loading checks every digest first, and the scores of a few pairs last: a reward model
that silently lost a layer, or is read by a library that makes other tokens of its texts, would reward
nonsense.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from modern_rlhf.errors import ModelError, OutputError
from modern_rlhf.models.adapters import has_adapters
from modern_rlhf.models.loading import (
    Backbone,
    load_backbone,
    load_tokenizer,
    state_fingerprint,
)
from modern_rlhf.reward_model.settings import RewardModelSettings
from modern_rlhf.utils.atomic import atomic_directory, write_json

if TYPE_CHECKING:
    from modern_rlhf.reward_model.model import CustomRewardModel

SCHEMA = 2
MANIFEST = "reward_model.json"
HEADS = "heads.safetensors"

PROBE = (
    ("Sort a list of numbers in descending order.", "x.sort(reverse=True)"),
    (
        "open the file 'a.txt' \u00e9",
        "```python\nwith open('a.txt') as f:\n    text = f.read()\n```",
    ),
    ("", "no"),
)
"""Pairs whose scores are stored, and must come out again."""

TOLERANCE = {"float32": 0.01, "float64": 0.01}
"""By the backbone's dtype, how far a score may be off, in units of max(1, |score|): another processor adds
numbers in another order. On the machine that saved the model scores are equal to 1e-6."""
HALF_TOLERANCE = 0.5


def save(
    model: CustomRewardModel, folder: str | os.PathLike[str], *, copy_backbone: bool | None = None
) -> None:
    """Write `model` to `folder`, whole or not at all; a reward model that is there is replaced.

    Args:
        copy_backbone: copy the backbone's weights (default), or only name and fingerprint.

    Raises:
        ModelError: `copy_backbone=False` for a backbone that is being or has been trained, or scores that
            are no numbers.
        OutputError: `folder` holds something that is no reward model, or can't be written.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file: choose another folder for the reward model")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST).is_file():
        raise OutputError(f"{folder} holds other files and no reward model: choose another folder")
    copied = True if copy_backbone is None else copy_backbone
    backbone: Any = model.backbone
    adapted = has_adapters(backbone)
    inner = backbone.get_base_model() if adapted else backbone
    if not copied and (
        not (adapted or model.frozen)
        or state_fingerprint(_plain_state(inner)) != model.backbone_fingerprint
    ):
        raise ModelError(
            "copy_backbone=False stores a name, but this backbone has been trained: its weights must "
            "be copied"
        )
    probe = _probe(model)
    if not all(math.isfinite(score) for score in probe):
        raise ModelError(
            "the reward model gives scores that are NaN or infinite, so it is not saved: train it again "
            "at a lower training.reward_learning_rate"
        )
    with atomic_directory(folder, replace=True) as target:
        heads = {k: v.detach().cpu().contiguous() for k, v in model.heads.state_dict().items()}
        save_file(heads, target / HEADS)
        if adapted:
            backbone.save_pretrained(target / "adapter")
            (target / "adapter" / "README.md").unlink(missing_ok=True)  # peft's empty model card
        if copied:
            inner.save_pretrained(target / "backbone", state_dict=_plain_state(inner))
        else:
            inner.config.save_pretrained(
                target / "tokenizer"
            )  # makes it a folder transformers loads
        model.tokenizer.save_pretrained(target / ("backbone" if copied else "tokenizer"))
        write_json(
            target / MANIFEST,
            {
                "settings": model.settings.to_json(),
                "backbone": {
                    "name": model.backbone_name,
                    "kind": model.backbone_kind,
                    "dtype": str(next(inner.parameters()).dtype).removeprefix("torch."),
                    "fingerprint": model.backbone_fingerprint,
                    "copied": copied,
                    "adapter": adapted,
                },
                "probe": probe,
                "files": _digests(target),
            },
            schema=SCHEMA,
        )


def load(
    folder: str | os.PathLike[str], *, device: str | torch.device = "cpu"
) -> CustomRewardModel:
    """The model that `save` wrote, in eval mode.

    Raises:
        ModelError: no reward model there, one of another schema, a file missing or changed, weights
            that don't fit the settings, or other scores than the saved model's.
    """
    from modern_rlhf.reward_model.model import CustomRewardModel

    folder = Path(folder)
    manifest = read_manifest(folder)
    _check_files(folder, manifest["files"])
    stored = manifest["backbone"]
    backbone = _load_backbone(folder, stored, device)
    if not stored["copied"] and backbone.fingerprint != stored["fingerprint"]:
        raise ModelError(
            f"{folder} was trained on a backbone {stored['name']!r} with other weights than the one "
            "found under that name now: put the original back, or train the reward model again"
        )
    try:
        model = CustomRewardModel(backbone, **manifest["settings"])
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"{folder / MANIFEST} holds settings of another type ({error}): copy the reward model again"
        ) from error
    if stored["adapter"]:
        from peft import PeftModel

        model.backbone = PeftModel.from_pretrained(
            model.backbone, str(folder / "adapter"), is_trainable=True
        ).to(device)
    _load_heads(model, folder / HEADS)
    model = model.to(device).eval()
    _check_probe(
        model, manifest["probe"], folder, tolerance=TOLERANCE.get(stored["dtype"], HALF_TOLERANCE)
    )
    return model


def _probe(model: CustomRewardModel) -> list[float]:
    """The scores of `PROBE`, in float32 whatever the model scores in otherwise."""
    usual, model.scoring_dtype = model.scoring_dtype, torch.float32
    try:
        return model.score([prompt for prompt, _ in PROBE], [response for _, response in PROBE])
    finally:
        model.scoring_dtype = usual


def _check_probe(
    model: CustomRewardModel, expected: list[float], folder: Path, *, tolerance: float
) -> None:
    for stored, found in zip(expected, _probe(model), strict=True):
        if not abs(found - stored) <= tolerance * max(1.0, abs(stored)):
            raise ModelError(
                f"{folder} gives another score than when it was saved ({found:.4f}, not {stored:.4f}): the "
                "installed transformers or tokenizers read it in another way; use the versions it was "
                "saved with, or train it again"
            )


def read_manifest(folder: Path) -> dict[str, Any]:
    """The checked content of `reward_model.json`.

    Raises:
        ModelError: it is missing, no JSON, of another schema, or something in it is lacking or unknown.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{folder} is no reward model: it has no {MANIFEST}") from None
    except (OSError, ValueError) as error:
        raise ModelError(
            f"cannot read {path}: {error}; train or copy the reward model again"
        ) from error
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        raise ModelError(f"{path} is not of schema {SCHEMA}: it was written by another version")
    wanted = {
        "settings": (dict, {field.name for field in fields(RewardModelSettings)}),
        "backbone": (dict, {"name", "kind", "dtype", "fingerprint", "copied", "adapter"}),
        "files": (dict, {HEADS}),
        "probe": (list, set()),
    }
    for name, (kind, keys) in wanted.items():
        found = manifest.get(name)
        if not isinstance(found, kind) or keys - set(found):
            lacking = sorted(keys - set(found)) if isinstance(found, kind) else name
            raise ModelError(f"{path} lacks {lacking}: train or copy the reward model again")
    stored, probe = manifest["backbone"], manifest["probe"]
    unknown = [f"settings.{n}" for n in manifest["settings"] if n not in wanted["settings"][1]]
    if stored["kind"] not in ("encoder", "decoder"):
        unknown.append("backbone.kind")
    if not isinstance(getattr(torch, str(stored["dtype"]), None), torch.dtype):
        unknown.append("backbone.dtype")
    if len(probe) != len(PROBE) or not all(isinstance(score, (int, float)) for score in probe):
        unknown.append("probe")
    if unknown:
        raise ModelError(
            f"{path} holds something unknown under {', '.join(unknown)}: it was written by another version, "
            "or is damaged; train or copy the reward model again"
        )
    return manifest


def _load_backbone(folder: Path, stored: dict[str, Any], device: str | torch.device) -> Backbone:
    name = str(folder / "backbone") if stored["copied"] else stored["name"]
    try:
        found = load_backbone(name, device=device, dtype=getattr(torch, stored["dtype"]))
    except ModelError as error:
        if stored["copied"]:
            raise
        raise ModelError(
            f"{folder} was saved without its backbone {name!r}, which cannot be loaded now: {error}"
        ) from error
    tokenizer = found.tokenizer
    if not stored["copied"]:
        tokenizer = load_tokenizer(str(folder / "tokenizer"))
    return Backbone(
        model=found.model,
        tokenizer=tokenizer,
        name=stored["name"],
        hidden_size=found.hidden_size,
        kind=stored["kind"],
        fingerprint=found.fingerprint,
    )


def _load_heads(model: CustomRewardModel, path: Path) -> None:
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"cannot read {path}: {error}; the file is damaged") from error
    expected = {name: tuple(value.shape) for name, value in model.heads.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise ModelError(
                f"{path}: weight {name!r} has shape {found.get(name, 'missing')}, expected "
                f"{expected.get(name, 'no such weight')}; the file belongs to another reward model"
            )
    model.heads.load_state_dict(state)


def _plain_state(model: Any) -> dict[str, torch.Tensor]:
    """Weights under the names they have without adapters: peft wraps a layer as `x.base_layer`."""
    return {
        name.replace(".base_layer.", "."): value
        for name, value in model.state_dict().items()
        if ".lora_" not in name
    }


def _digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): _sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _check_files(folder: Path, files: dict[str, str]) -> None:
    for name, digest in files.items():
        path = folder / name
        if not path.is_file():
            raise ModelError(
                f"{folder} is incomplete: {name} is missing; copy the reward model again"
            )
        if _sha256(path) != digest:
            raise ModelError(f"{path} is not what was saved (its SHA-256 differs): it is damaged")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from error
    return digest.hexdigest()
