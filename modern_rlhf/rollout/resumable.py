"""Long generation in parts, each written down when it is done, so that a killed one goes on.

Prompts are answered in order of length, `ROWS_AT_ONCE` samples a part. A part's samples are those that
one call with all prompts would have drawn (`Share`), so parts change nothing but what a kill costs.
The file is an append-only JSONL of token ids; who names it must put everything into the name that
decides the answers. Knows engines and files, no tokenizer and no metric.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from modern_rlhf.rollout.types import Generation, GenerationEngine, Share
from modern_rlhf.utils.jsonl import JsonLines, iterate_lines

ROWS_AT_ONCE = 256
"""Samples in a part; the engine decodes as many at once, so that parts cost no speed."""


def generate_in_parts(
    engine: GenerationEngine,
    prompts: Sequence[Sequence[int]],
    *,
    samples_per_prompt: int,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    keep: Path | None = None,
    name: str = "answers",
    progress: Callable[[int], None] | None = None,
    share: Share | None = None,
) -> list[Generation]:
    """P prompts -> P x G generations in prompt order, as one `engine.generate` would give them.

    Args:
        temperature: 0 is greedy.
        seed: of the samples.
        keep: file of finished parts; those that it holds under `name` are not made again. The
            generations read from it have no `log_probs`.
        progress: called with the number of generations just finished, read ones included.
        share: which of the prompts that several processes answer together these are.

    Raises:
        OutputError: `keep` cannot be written.
    """
    share = share or Share(range(len(prompts)), len(prompts))
    order = sorted(range(len(prompts)), key=lambda place: (len(prompts[place]), place))
    size = max(1, ROWS_AT_ONCE // samples_per_prompt)
    known = _read(keep, name)
    log = JsonLines(keep) if keep is not None else None
    found: dict[int, list[Generation]] = {}
    try:
        for start in range(0, len(order), size):
            places = order[start : start + size]
            part = known.get(start)
            if part is None or len(part) != len(places) * samples_per_prompt:
                part = engine.generate(
                    [prompts[place] for place in places],
                    samples_per_prompt=samples_per_prompt,
                    max_new_tokens=max_new_tokens,
                    temperature=temperature,
                    # Seeded anew for every part: each draws the table of all prompts, and its own rows.
                    generator=torch.Generator().manual_seed(seed) if temperature > 0 else None,
                    share=Share([share.places[place] for place in places], share.total),
                )
                if log is not None:
                    log.append([_row(name, start, part)])
            for index, place in enumerate(places):
                found[place] = part[index * samples_per_prompt : (index + 1) * samples_per_prompt]
            if progress is not None:
                progress(len(part))
    finally:
        if log is not None:
            log.close()
    return [generation for place in range(len(prompts)) for generation in found[place]]


def _row(name: str, start: int, part: Sequence[Generation]) -> dict[str, object]:
    return {
        "name": name,
        "start": start,
        "tokens": [one.token_ids for one in part],
        "finished": [one.finished for one in part],
    }


def _read(keep: Path | None, name: str) -> dict[int, list[Generation]]:
    """The finished parts of a file by their place in the order; a torn last line is passed over."""
    if keep is None:
        return {}
    return {
        row["start"]: [
            Generation(tokens, [], finished)
            for tokens, finished in zip(row["tokens"], row["finished"], strict=True)
        ]
        for row in iterate_lines(keep)
        if row.get("name") == name
    }
