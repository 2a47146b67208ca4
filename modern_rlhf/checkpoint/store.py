"""Checkpoint folders that survive a kill, a full disk and a flipped bit.

    <folder>/checkpoint-40/  model.safetensors  model.json  optimizer.safetensors ...  manifest.json
    <folder>/checkpoint-60/  ...
    <folder>/LATEST          the name of the newest one

A checkpoint is written under a temporary name and renamed when everything is on the disk, its
manifest (sizes, SHA-256, tensor shapes) last; LATEST follows, and only then old ones go. Loading
believes nothing: the newest folder whose files match their manifest is used, and what was passed
over is named. What a state is made of is the trainer's business; how it becomes tensors and JSON is
`checkpoint.state`'s.

One process writes (the main one, under `utils.lock.RunLock`); any number may load.
"""

from __future__ import annotations

import logging
import math
import os
import re
import shutil
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from modern_rlhf.checkpoint.files import (
    MANIFEST,
    folder_size,
    read_manifest,
    read_part,
    verify,
    write_final_model,
    write_manifest,
    write_part,
)
from modern_rlhf.checkpoint.state import describe_tensors, pack
from modern_rlhf.errors import CheckpointError, ConfigError, OutputError
from modern_rlhf.utils.atomic import (
    REPLACED,
    TEMPORARY,
    atomic_directory,
    output_error,
    recover_replaced,
    write_text,
)

__all__ = ["CheckpointStore", "LoadedCheckpoint", "verify", "write_final_model"]

LOGGER = logging.getLogger(__name__)

LATEST = "LATEST"
FREE_SPACE_FACTOR = 1.2

_NAME = re.compile(r"checkpoint-(\d+)")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A verified checkpoint, its tensors on the CPU.

    `skipped` has one line for every newer checkpoint that could not be used, and why.
    """

    step: int
    state: dict[str, Any]
    path: Path
    skipped: list[str] = field(default_factory=list)
    metric: float | None = None


class CheckpointStore:
    """The checkpoints of one training stage.

    Args:
        folder: where `checkpoint-<step>/` folders live; made at the first save.
        keep_last: how many of the newest stay, at least 2: with one alone, damage to it ends the
        run.
        keep_best: also keep the one with the greatest metric (the earlier one of two equals).

    Raises:
        ConfigError: `keep_last` is below 2.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep_last: int = 2,
        keep_best: bool = True,
    ) -> None:
        if keep_last < 2:
            raise ConfigError(
                f"keep_last is {keep_last}; expected at least 2, so that a damaged checkpoint has "
                "a predecessor: set it to 2"
            )
        self.folder = Path(folder)
        self.keep_last = keep_last
        self.keep_best = keep_best
        self._damaged: set[Path] = set()

    # --- writing ----------------------------------------------------------------------------------

    def save(self, step: int, state: Mapping[str, Any], *, metric: float | None = None) -> Path:
        """Write `checkpoint-<step>/`, then drop what retention no longer keeps.

        Args:
            state: one entry a part (`model`, `optimizer`, ...); each becomes `<part>.safetensors`
                and `<part>.json`.
            metric: what `keep_best` and `best` compare; None or NaN: not a candidate.

        Checkpoints of later steps (there are some when training went on from an older one) are
        renamed to `superseded-...`, not deleted: they belong to a run that was abandoned.

        Returns:
            The new folder.

        Raises:
            OutputError: the disk is full or not writable; all older checkpoints are intact.
            CheckpointError: the state holds something that can't be stored.
        """
        target = self.folder / f"checkpoint-{step}"
        for part in state:
            if not _PART.fullmatch(part) or f"{part}.json" == MANIFEST:
                raise CheckpointError(f"`{part}` is not a usable name for a part of a checkpoint")
        packed = {part: pack(value) for part, value in state.items()}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._remove_leftovers()
            self._check_free_space(packed)
            self._set_aside_later_than(step)
        except OSError as error:
            raise output_error(error, target) from error
        metric = None if metric is None or math.isnan(metric) else float(metric)
        with atomic_directory(target, replace=True) as folder:
            for part, (tensors, skeleton) in packed.items():
                # One part at a time on the CPU, whatever device the state lives on.
                write_part(folder, part, tensors, skeleton)
            shapes = {part: describe_tensors(value) for part, value in state.items()}
            write_manifest(folder, step=step, metric=metric, parts=list(state), tensors=shapes)
        write_text(self.folder / LATEST, f"{target.name}\n")
        self._damaged.discard(target)
        self._apply_retention()
        return target

    def _check_free_space(self, packed: Mapping[str, tuple[dict[str, torch.Tensor], Any]]) -> None:
        now = sum(
            t.numel() * t.element_size() for tensors, _ in packed.values() for t in tensors.values()
        )
        existing = self.steps()
        last = folder_size(self.path(existing[-1])) if existing else 0
        needed = int(FREE_SPACE_FACTOR * max(now, last))
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise OutputError(
                f"cannot write a checkpoint into {self.folder}: it needs {_megabytes(needed)} and "
                f"{_megabytes(free)} are free; the older checkpoints are intact: free some space "
                "and use --resume"
            )

    def _remove_leftovers(self) -> None:
        for path in sorted(self.folder.glob(f"*{TEMPORARY}*")):
            LOGGER.info("removing %s, left by a run that was killed while writing it", path)
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def _set_aside_later_than(self, step: int) -> None:
        for later in [found for found in self.steps() if found > step]:
            path = self.path(later)
            aside = self.folder / f"superseded-{later}-{uuid.uuid4().hex[:8]}"
            LOGGER.warning(
                "%s is of a later step than the one being saved (%d): renamed to %s, delete it "
                "when you do not need it",
                path,
                step,
                aside.name,
            )
            os.rename(path, aside)
            self._damaged.discard(path)

    def _apply_retention(self) -> None:
        # Known to be damaged: not counted, so that it pushes out no good one, and left for a
        # person.
        candidates = [step for step in self.steps() if self.path(step) not in self._damaged]
        keep = set(candidates[-self.keep_last :])
        if self.keep_best:
            ranked = self._ranked(candidates)
            keep.update(ranked[:1])
        for step in candidates:
            if step not in keep:
                path = self.path(step)
                # Renamed first: a kill inside rmtree must not leave half a folder under a good
                # name.
                doomed = path.with_name(f"{path.name}{TEMPORARY}{uuid.uuid4().hex[:12]}")
                try:
                    os.rename(path, doomed)
                    shutil.rmtree(doomed)
                except OSError as error:
                    LOGGER.warning("could not remove the old checkpoint %s: %s", path, error)

    # --- reading ----------------------------------------------------------------------------------

    def path(self, step: int) -> Path:
        """The folder of `step`, whether or not it exists."""
        return self.folder / f"checkpoint-{step}"

    def steps(self) -> list[int]:
        """The steps that have a folder, ascending; nothing is verified."""
        if not self.folder.is_dir():
            return []
        matches = (_NAME.fullmatch(path.name) for path in self.folder.iterdir() if path.is_dir())
        return sorted(int(match.group(1)) for match in matches if match)

    def load(self, step: int, expected: Mapping[str, Any] | None = None) -> LoadedCheckpoint:
        """The checkpoint of `step`.

        Args:
            expected: for some parts, a state of the same form as the one saved (`{"model":
                model.state_dict()}`): names, dtypes and shapes of tensors have to agree.

        Raises:
            CheckpointError: it is missing, damaged, or another model's; the message names the file.
        """
        path = self.path(step)
        problem = self._problem(path, expected)
        if problem is not None:
            raise CheckpointError(f"{path} cannot be used: {problem}")
        manifest = read_manifest(path)
        state = {part: read_part(path, part) for part in manifest["parts"]}
        return LoadedCheckpoint(step=step, state=state, path=path, metric=manifest["metric"])

    def load_latest(self, expected: Mapping[str, Any] | None = None) -> LoadedCheckpoint | None:
        """The newest checkpoint that verifies (`expected`: see `load`); None without any.

        Every newer one that does not is named in a warning and in `.skipped`.

        Raises:
            CheckpointError: there are checkpoints, and none can be used.
        """
        self._recover()
        return self._first_good(list(reversed(self.steps())), expected, self._missing_latest())

    def best(self, expected: Mapping[str, Any] | None = None) -> LoadedCheckpoint | None:
        """The verified checkpoint with the greatest metric; None when none has a metric."""
        self._recover()
        return self._first_good(self._ranked(self.steps()), expected, [])

    def _first_good(
        self, steps: list[int], expected: Mapping[str, Any] | None, skipped: list[str]
    ) -> LoadedCheckpoint | None:
        for line in skipped:
            LOGGER.warning("%s", line)
        for step in steps:
            try:
                found = self.load(step, expected)
            except CheckpointError as error:
                LOGGER.warning("%s; trying an older one", error)
                self._damaged.add(self.path(step))
                skipped.append(str(error))
                continue
            if skipped:
                LOGGER.warning("using %s in its place", found.path)
            return LoadedCheckpoint(found.step, found.state, found.path, skipped, found.metric)
        if steps:
            raise CheckpointError(
                f"no checkpoint in {self.folder} can be used: {'; '.join(skipped)}; start again "
                "with --overwrite or another --output-dir"
            )
        return None

    def _recover(self) -> None:
        # A rerun of one step may have been killed between its two renames.
        if self.folder.is_dir():
            names = {
                path.name.split(".")[0] for path in self.folder.glob(f"checkpoint-*{REPLACED}*")
            }
            for name in sorted(names):
                recover_replaced(self.folder / name)

    def _missing_latest(self) -> list[str]:
        try:
            name = (self.folder / LATEST).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return []
        if _NAME.fullmatch(name) and not (self.folder / name).is_dir():
            return [f"{self.folder / LATEST} names {name}, which is not there"]
        return []

    def _problem(self, path: Path, expected: Mapping[str, Any] | None) -> str | None:
        problems = verify(path)
        if problems:
            return "; ".join(problems)
        stored = read_manifest(path)["tensors"]
        for part, value in (expected or {}).items():
            if part not in stored:
                return f"it has no part `{part}`"
            problem = _compare(stored[part], describe_tensors(value))
            if problem:
                return f"its part `{part}` belongs to another model: {problem}"
        return None

    def _ranked(self, steps: list[int]) -> list[int]:
        """The steps that have a metric, best first; of equals the earlier one first."""
        scored = []
        for step in steps:
            with suppress(CheckpointError):
                metric = read_manifest(self.path(step))["metric"]
                if metric is not None:
                    scored.append((-metric, step))
        return [step for _, step in sorted(scored)]


def _compare(stored: Mapping[str, Any], expected: Mapping[str, Any]) -> str | None:
    """The first difference between two `describe_tensors` results, in words."""
    for name, (dtype, shape) in expected.items():
        if name not in stored:
            return f"no tensor `{name}`"
        if stored[name] != [dtype, shape]:
            found_dtype, found_shape = stored[name]
            return f"`{name}` is {found_dtype}{found_shape}, expected {dtype}{shape}"
    extra = next((name for name in stored if name not in expected), None)
    return None if extra is None else f"it has a tensor `{extra}` that the model does not have"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
