"""Writing a trained policy as a Hugging Face directory that `AutoModelForCausalLM` loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modern_rlhf.checkpoint.files import write_final_model


def save_policy(lm: Any, tokenizer: Any, folder: Path | str) -> Path:
    """Write `folder` atomically with a manifest; LoRA adapters are merged into a copy.

    Raises:
        OutputError: the disk is full or not writable.
    """
    model = lm
    if hasattr(lm, "merge_and_unload"):
        import copy

        model = copy.deepcopy(lm).merge_and_unload()

    def save(into: Path) -> None:
        model.save_pretrained(into)
        tokenizer.save_pretrained(into)

    return write_final_model(Path(folder), save)
