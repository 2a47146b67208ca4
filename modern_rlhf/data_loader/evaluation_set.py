"""The items that models are evaluated on: CoNaLa, MBPP, HumanEval, ODEX, the project's tasks, prompts.

Whatever the file, an item is a prompt with its reference and, where there are any, its tests.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from modern_rlhf.data_loader.prompts import load_prompts
from modern_rlhf.records import Prompt, Task


@dataclass(frozen=True)
class EvaluationSet:
    """N items, aligned with everything an evaluation returns.

    `source` is where they came from; `is_conala` switches the CoNaLa-specific honesty checks on.
    """

    items: list[Prompt]
    source: str
    is_conala: bool = False

    def __len__(self) -> int:
        return len(self.items)

    @property
    def prompts(self) -> list[str]:
        return [item.prompt for item in self.items]

    @property
    def references(self) -> list[str | None]:
        return [item.reference for item in self.items]

    @property
    def tasks(self) -> list[Task | None]:
        return [item.task for item in self.items]

    @property
    def splits(self) -> list[str]:
        """The task's split (`eval_seen`, `eval_unseen`), or an empty string."""
        return [item.task.split if item.task is not None else "" for item in self.items]

    def subset(self, count: int, *, seed: int) -> EvaluationSet:
        """A fixed random part of at most `count` items, order kept."""
        if count >= len(self.items):
            return self
        chosen = sorted(random.Random(seed).sample(range(len(self.items)), count))
        return EvaluationSet([self.items[i] for i in chosen], self.source, self.is_conala)


def load_evaluation_set(path: str, *, max_items: int | None, seed: int) -> EvaluationSet:
    """Read tasks, demonstrations or prompts to be evaluated on.

    Raises:
        DataError: unreadable, or no usable row.
    """
    loaded = load_prompts(path)
    found = EvaluationSet(list(loaded.items), path, is_conala=is_conala_path(path))
    return found if max_items is None else found.subset(max_items, seed=seed)


def is_conala_path(path: str) -> bool:
    """Whether a path names CoNaLa data, by its file or folder name."""
    return "conala" in path.lower()
