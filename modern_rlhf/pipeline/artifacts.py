"""The output folder: what lies where, which stage is finished, and who may write into it.

A stage is finished when its `stage.json` exists: it is written last, atomically, and names what the
stage left. `pipeline_state.json` holds the log offsets at the last stage boundary, so a stage that
was killed before its first checkpoint is started again with the logs cut back to its beginning.
Knows files, not models.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from modern_rlhf.checkpoint.files import verify
from modern_rlhf.errors import CheckpointError, OutputError
from modern_rlhf.utils.atomic import write_json

SCHEMA = 1
WRITTEN = (
    "config.json",
    "training.log",
    "status.json",
    "metrics.jsonl",
    "timings.jsonl",
    "rollouts.jsonl",
    "training_results.json",
    "pipeline_results.json",
    "pipeline_state.json",
    "samples.md",
    "report.html",
    "logs",
    "plots",
    "evaluations",
    "sft",
    "reward_model",
    "ppo",
    "reinforce",
    "rloo",
    "grpo",
    "dpo",
    "kto",
)
"""Everything a run writes into its output folder: all that `--overwrite` removes."""


class Artifacts:
    """Paths of one output folder and the record of its finished stages."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def stage(self, name: str) -> Path:
        return self.root / name

    def final_model(self, name: str) -> Path:
        return self.root / name / "final_model"

    def evaluation(self, name: str) -> Path:
        return self.root / "evaluations" / f"{name}.json"

    def done(self, name: str) -> dict[str, Any] | None:
        """What a finished stage recorded, or None. Its final model is verified.

        Raises:
            CheckpointError: the record is there but the model it promises is damaged.
        """
        path = self.stage(name) / "stage.json"
        if not path.is_file():
            return None
        try:
            record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}; use --overwrite") from error
        model = self.final_model(name)
        problems = verify(model) if (model / "manifest.json").exists() else []
        if problems:
            raise CheckpointError(
                f"{model} is damaged: {'; '.join(problems)}; remove {path} and use --resume to make "
                "it again from the last checkpoint"
            )
        return record

    def finish(self, name: str, record: Mapping[str, Any]) -> None:
        """Mark a stage as finished."""
        self.stage(name).mkdir(parents=True, exist_ok=True)
        write_json(self.stage(name) / "stage.json", dict(record), SCHEMA)

    def offsets(self) -> dict[str, int]:
        """Log offsets at the last stage boundary."""
        path = self.root / "pipeline_state.json"
        if not path.is_file():
            return {}
        state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {str(k): int(v) for k, v in state["offsets"].items()}

    def set_offsets(self, offsets: Mapping[str, int]) -> None:
        write_json(self.root / "pipeline_state.json", {"offsets": dict(offsets)}, SCHEMA)


def refuse_occupied(root: Path, allowed: bool) -> None:
    """Refuse a file in the folder's place, and a folder that is not empty unless `allowed`.

    Raises:
        OutputError: naming what is there and the ways on.
    """
    with _using(root):
        if root.exists() and not root.is_dir():
            raise OutputError(f"output path {root} is a file; give a folder with --output-dir")
        # The lock file of a run that just took the folder does not make it non-empty.
        present = (
            sorted(p.name for p in root.iterdir() if p.name != ".lock") if root.is_dir() else []
        )
        if present and not allowed:
            raise OutputError(
                f"output folder {root} is not empty ({', '.join(present[:4])}"
                f"{', ...' if len(present) > 4 else ''}); use --resume to go on, --overwrite to "
                "start again, or another --output-dir"
            )


def remove_run(root: Path) -> None:
    """Remove what a run writes; other files in the folder stay.

    Raises:
        OutputError: something cannot be removed.
    """
    with _using(root):
        for name in WRITTEN:
            path = root / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.exists() or path.is_symlink():
                path.unlink()


@contextlib.contextmanager
def _using(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"output folder {root} cannot be used: {error.strerror or error}; check permissions and "
            "space, or give another --output-dir"
        ) from error
