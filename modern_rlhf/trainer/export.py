"""Writing a trained policy as a Hugging Face directory that `AutoModelForCausalLM` loads."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from modern_rlhf.checkpoint.files import write_final_model
from modern_rlhf.trainer.runtime import Runtime


def save_policy(lm: Any, tokenizer: Any, folder: Path | str, runtime: Runtime) -> Path:
    """Write `folder/final_model` (or `folder`, if that is its name) atomically, with a manifest.

    LoRA adapters are merged into a copy. Called by every process; the main one writes, the others wait.

    Returns:
        The model's folder.

    Raises:
        OutputError: the disk is full or not writable.
    """
    state = runtime.state_of(lm) if runtime.sharded else None

    def save(into: Path) -> None:
        merges = hasattr(lm, "merge_and_unload")
        model = copy.deepcopy(lm).merge_and_unload() if merges else lm
        model.save_pretrained(into, state_dict=state)
        tokenizer.save_pretrained(into)

    return Path(runtime.processes.on_main(lambda: str(write_final_model(Path(folder), save))))
