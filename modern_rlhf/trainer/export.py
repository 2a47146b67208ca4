"""Writing a trained policy as a Hugging Face directory that `AutoModelForCausalLM` loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from modern_rlhf.checkpoint.files import write_final_model
from modern_rlhf.models.adapters import has_adapters
from modern_rlhf.trainer.runtime import Runtime


def save_policy(lm: Any, tokenizer: Any, folder: Path | str, runtime: Runtime) -> Path:
    """Write `folder/final_model` (or `folder`, if that is its name) atomically, with a manifest.

    LoRA adapters are merged, in what is written alone. Called by every process; the main one writes, the
    others wait.

    Returns:
        The model's folder.

    Raises:
        OutputError: the disk is full or not writable.
    """
    adapted = has_adapters(lm)
    model = lm.get_base_model() if adapted else lm
    state = None
    if adapted:
        state = merged_state(model, runtime)
    elif runtime.sharded:
        state = runtime.state_of(model)

    def save(into: Path) -> None:
        model.save_pretrained(into, state_dict=state)
        tokenizer.save_pretrained(into)

    return Path(runtime.processes.on_main(lambda: str(write_final_model(Path(folder), save))))


def merged_state(model: Any, runtime: Runtime) -> dict[str, Tensor]:
    """The weights of a model that carries LoRA adapters as if it had none: `W + (alpha / rank) B A`."""
    from peft.tuners.lora import LoraLayer

    state: dict[str, Tensor] = {
        name.replace(".base_layer.", "."): value
        for name, value in runtime.state_of(model).items()
        if "lora_" not in name
    }
    with runtime.whole_weights():
        for name, layer in model.named_modules():
            for adapter in layer.active_adapters if isinstance(layer, LoraLayer) else ():
                weight = state[f"{name}.weight"]
                state[f"{name}.weight"] = weight + layer.get_delta_weight(adapter).detach().to(
                    weight
                )
    return state
