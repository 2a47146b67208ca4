"""A model and its tokenizer become something that answers prompts: where answers end, how they are padded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from modern_rlhf.data_loader.encoding import pad_id_of
from modern_rlhf.errors import ConfigError
from modern_rlhf.rollout.engine import HuggingFaceEngine


def stop_ids(model: Any, tokenizer: Any) -> list[int]:
    """Token ids that end an answer: the tokenizer's EOS and what the generation config adds.

    Raises:
        ConfigError: there is none, so no answer could ever end.
    """
    ids: set[int] = set()
    if tokenizer.eos_token_id is not None:
        ids.add(int(tokenizer.eos_token_id))
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    if isinstance(configured, int):
        ids.add(configured)
    elif isinstance(configured, list):
        ids.update(int(i) for i in configured)
    if not ids:
        raise ConfigError("the tokenizer has no EOS token, so no answer could ever end; set one")
    return sorted(ids)


def sampling_engine(
    lm: Any,
    tokenizer: Any,
    *,
    dtype: torch.dtype = torch.float32,
    stop_strings: Sequence[str] = (),
    **options: Any,
) -> HuggingFaceEngine:
    """The engine that samples from `lm` as its tokenizer says; `options` are `HuggingFaceEngine`'s.

    Raises:
        ConfigError: nothing could end an answer (see `stop_ids`).
    """
    return HuggingFaceEngine(
        lm,
        eos_ids=stop_ids(lm, tokenizer),
        pad_id=pad_id_of(tokenizer),
        dtype=dtype,
        stop_strings=stop_strings,
        tokenizer=tokenizer,
        **options,
    )
