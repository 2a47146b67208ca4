"""What lies inside a checkpoint or model folder: tensor files, and a manifest to check them by.

`manifest.json` lists every file with its size and SHA-256, and carries a digest of itself, so that
a flipped byte anywhere, the manifest included, is seen. A folder without one was never finished.
Nothing is fsynced here: the `atomic_directory` around every writer does that once, for all files.
Knows nothing of steps, retention or training: see `checkpoint.store`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from modern_rlhf.checkpoint.state import unpack
from modern_rlhf.errors import CheckpointError
from modern_rlhf.utils.atomic import atomic_directory, json_text, write_json

MANIFEST = "manifest.json"
FINAL_MODEL = "final_model"
SCHEMA = 1

_CHUNK = 1 << 22


def write_manifest(folder: Path, **fields: Any) -> None:
    """Write `manifest.json` over all files under `folder`, `fields` included. Call it last."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != folder / MANIFEST:
            name = path.relative_to(folder).as_posix()
            files[name] = {"size": path.stat().st_size, "sha256": _sha256(path)}
    manifest = {"schema": SCHEMA, **fields, "files": files}
    content = {**manifest, "digest": _digest(manifest)}
    write_json(folder / MANIFEST, content, durable=False)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of `folder`, itself verified; the files are not (see `verify`).

    Raises:
        CheckpointError: it is missing, unreadable, damaged, or of a newer version of this package.
    """
    path = folder / MANIFEST
    try:
        text = path.read_text(encoding="utf-8")
        manifest = json.loads(text)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing: the folder was never finished") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("schema"), int):
        raise CheckpointError(f"{path} is not a manifest")
    if manifest["schema"] > SCHEMA:
        raise CheckpointError(
            f"{path} has schema {manifest['schema']}, this version reads up to {SCHEMA}: upgrade"
        )
    written_so = text == json_text(manifest)
    if manifest.pop("digest", None) != _digest(manifest) or not written_so:
        raise CheckpointError(f"{path} is damaged: its content does not match its digest")
    return manifest


def verify(folder: Path) -> list[str]:
    """What is wrong with a checkpoint or `final_model` folder, one line each; [] for nothing.

    Every file is read in full and compared with its size and SHA-256.
    """
    folder = Path(folder)
    try:
        manifest = read_manifest(folder)
    except CheckpointError as error:
        return [str(error)]
    problems = []
    for name, entry in manifest["files"].items():
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts:
            problems.append(f"{name} points out of the folder")
            continue
        path = folder / relative
        try:
            size = path.stat().st_size
            if size != entry["size"]:
                problems.append(f"{name} has {size} bytes, {entry['size']} were written")
            elif _sha256(path) != entry["sha256"]:
                problems.append(f"{name} is damaged: its SHA-256 is not the one written")
        except FileNotFoundError:
            problems.append(f"{name} is missing")
        except OSError as error:
            problems.append(f"{name} cannot be read: {error.strerror or error}")
    return problems


def write_part(folder: Path, part: str, tensors: Mapping[str, torch.Tensor], skeleton: Any) -> None:
    """Write `<part>.safetensors` and `<part>.json`, what `state.pack` returned.

    The `atomic_directory` around it says in one line what the disk did not take.
    """
    path = folder / f"{part}.safetensors"
    save_file({name: tensor.cpu() for name, tensor in tensors.items()}, path)
    write_json(folder / f"{part}.json", {"schema": SCHEMA, "state": skeleton}, durable=False)


def read_part(folder: Path, part: str) -> Any:
    """The state that `write_part` was given, its tensors on the CPU and independent of the file.

    Raises:
        CheckpointError: the files cannot be read.
    """
    path = folder / f"{part}.safetensors"
    try:
        skeleton = json.loads((folder / f"{part}.json").read_text(encoding="utf-8"))
        with safe_open(path, framework="pt", device="cpu") as file:
            # Cloned: the file is memory-mapped, and retention will delete it while training goes
            # on.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: part `{part}` cannot be read: {error}") from error
    return unpack(tensors, skeleton["state"])


def write_final_model(folder: Path, save: Callable[[Path], None]) -> Path:
    """Write `final_model/` atomically: what `save` puts into the folder it gets, and a manifest.

    Args:
        folder: the stage's folder, or the `final_model` folder itself; an earlier one is replaced.
        save: for example `lambda path: model.save_pretrained(path)`.

    Returns:
        The `final_model` folder; `verify` checks it.

    Raises:
        OutputError: the disk is full or not writable; an earlier model is intact.
    """
    folder = Path(folder)
    target = folder if folder.name == FINAL_MODEL else folder / FINAL_MODEL
    with atomic_directory(target, replace=True) as temporary:
        save(temporary)
        write_manifest(temporary)
    return target


def folder_size(folder: Path) -> int:
    """Bytes of all files under `folder`."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _digest(manifest: Mapping[str, Any]) -> str:
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()
