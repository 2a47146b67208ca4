"""`generate` and `rate --model`: models by name answer prompts.

Thin: sampling is the rollout engine.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

from modern_rlhf.config.sections import HardwareConfig
from modern_rlhf.data_loader.encoding import encode_prompts
from modern_rlhf.data_loader.prompts import load_prompts
from modern_rlhf.errors import ConfigError, DataError
from modern_rlhf.models.loading import (
    context_length,
    load_causal_lm,
    load_model_config,
    load_tokenizer,
)
from modern_rlhf.rollout.collect import decode_response
from modern_rlhf.rollout.sampling import sampling_engine
from modern_rlhf.trainer.runtime import Runtime
from modern_rlhf.utils.atomic import write_text
from modern_rlhf.utils.device import resolve_device


def _runtime(device: str) -> Runtime:
    choice = resolve_device(HardwareConfig(device=device, require_cuda=False), explicit=True)
    return Runtime(device=choice.device, dtype=choice.dtype)


def generate_command(
    *,
    model: str,
    prompts: list[str],
    output: str | None,
    samples: int,
    temperature: float,
    max_new_tokens: int,
    device: str,
    seed: int,
) -> str:
    """Answer prompts; the text to print. With `output`, a JSONL of {prompt, answer, model} rows.

    Raises:
        DataError: a prompt does not fit the model's context.
    """
    texts = _answers(
        model,
        prompts,
        samples=samples,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        device=device,
        seed=seed,
    )
    rows = [
        {"prompt": prompts[index // samples], "answer": text, "model": model}
        for index, text in enumerate(texts)
    ]
    if output is not None:
        _write_rows(Path(output), rows)
        return f"{len(rows)} answers in {output}"
    return "\n\n".join(f"# {row['prompt']}\n{row['answer']}" for row in rows)


def answers_to_rate(
    *,
    models: list[str],
    prompts: str,
    folder: Path,
    samples: int,
    temperature: float,
    max_new_tokens: int,
    device: str,
    seed: int,
) -> str:
    """Let every model answer the prompts of a file; the path of the JSONL that `rate` serves.

    The file lies in `<folder>/answers` under a name made of everything that decides the answers, so
    when the page is started again they are read, not made again. Model n samples with `seed + n`.

    Raises:
        DataError: unusable prompts, or one that does not fit a model's context.
    """
    loaded = load_prompts(prompts)
    found = list({item.prompt: item for item in loaded.items}.values())
    texts = [item.prompt for item in found]
    ids = Counter(item.group_id for item in found)
    decides = [models, texts, samples, temperature, max_new_tokens, seed]
    key = hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:10]
    path = folder / "answers" / f"answers-{key}.jsonl"
    if path.is_file():
        print(f"answers were made before: {path} (delete it to make them again)")
        return str(path)
    print(loaded.report.line())
    rows: list[dict[str, Any]] = []
    for number, model in enumerate(models):
        print(f"{model} answers {len(texts)} prompts", flush=True)
        drawn = _answers(
            model,
            texts,
            samples=samples,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            device=device,
            seed=seed + number,
        )
        for index, text in enumerate(drawn):
            item = found[index // samples]
            row = {"prompt": item.prompt, "answer": text, "model": model}
            if item.group_id and ids[item.group_id] == 1:  # else two questions would be one
                row["question_id"] = item.group_id
            rows.append(row)
    kept = [row for row in rows if row["answer"].strip()]
    if not kept:
        raise DataError(f"all {len(rows)} answers are empty: train the models further")
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_rows(path, kept)
    print(f"{len(kept)} answers in {path}; {len(rows) - len(kept)} empty ones left out")
    return str(path)


def _answers(
    model: str,
    prompts: list[str],
    *,
    samples: int,
    temperature: float,
    max_new_tokens: int,
    device: str,
    seed: int,
) -> list[str]:
    """`samples` answers to each prompt, prompt by prompt."""
    import torch

    runtime = _runtime(device)
    tokenizer = load_tokenizer(model)
    context = context_length(load_model_config(model), tokenizer)
    limit = context - max_new_tokens
    if limit < 1:
        raise ConfigError(
            f"--max-new-tokens {max_new_tokens} leaves no room for a prompt: the context of {model} has "
            f"{context} tokens"
        )
    encoded = encode_prompts(tokenizer, prompts, max_length=limit)
    if len(encoded.input_ids) != len(prompts):
        raise DataError(
            f"{len(prompts) - len(encoded.input_ids)} of {len(prompts)} prompts do not fit: {model} "
            f"takes {limit} tokens beside {max_new_tokens} new ones; lower --max-new-tokens"
        )
    lm = load_causal_lm(model, device=runtime.device)
    engine = sampling_engine(lm, tokenizer, dtype=runtime.compute_dtype)
    drawn = engine.generate(
        encoded.input_ids,
        samples_per_prompt=samples,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        generator=torch.Generator().manual_seed(seed),
    )
    return [decode_response(tokenizer, generation) for generation in drawn]


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
