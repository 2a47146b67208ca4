"""Splits that keep groups together, and training sets freed of what would give the evaluation away.

A record's side is decided by a hash of its group id and the seed alone: rows of one question never
land on both sides, and adding or removing other rows moves nobody.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from modern_rlhf.data_loader.columns import group_of_prompt
from modern_rlhf.data_loader.overlap import NGRAM, THRESHOLD, Overlap, OverlapIndex
from modern_rlhf.errors import ConfigError
from modern_rlhf.records import Demonstration, LabelledAnswer, PreferencePair, Prompt, Rating, Task

T = TypeVar("T")


def group_id_of(item: Any) -> str:
    """What a record is split by: its group id, a task's id, else its normalised prompt."""
    if isinstance(item, Task):
        return item.task_id
    return str(item.group_id) or group_of_prompt(item.prompt)


def prompt_of(item: Any) -> str:
    """The prompt text of any record."""
    return str(item.prompt)


def answer_of(item: Any) -> str:
    """The text a record teaches or is judged by: response, reference or chosen answer; else empty."""
    match item:
        case Demonstration() | Rating():
            return item.response
        case Task() | Prompt():
            return item.reference or ""
        case PreferencePair():
            return item.chosen
        case LabelledAnswer():
            return item.completion
    return ""


def split_by_group(
    items: Iterable[T],
    *,
    fractions: Mapping[str, float],
    seed: int,
    group: Callable[[T], str] = group_id_of,
) -> dict[str, list[T]]:
    """Deal `items` into named splits, whole groups at a time, order kept.

    Args:
        fractions: split name -> expected share of the groups; they add up to 1. A share is met in
            expectation only: a hash decides, so a tiny set can leave a split empty.
        seed: another seed, another split.
        group: the group id of an item.

    Raises:
        ConfigError: the fractions are negative or do not add up to 1.
    """
    if not fractions or any(share < 0 for share in fractions.values()):
        raise ConfigError(f"split fractions {dict(fractions)}: expected numbers from 0 to 1")
    if not math.isclose(sum(fractions.values()), 1.0, abs_tol=1e-9):
        raise ConfigError(
            f"split fractions {dict(fractions)}: add up to {sum(fractions.values()):g}, expected 1"
        )
    splits: dict[str, list[T]] = {name: [] for name in fractions}
    sides: dict[str, str] = {}
    for item in items:
        key = group(item)
        if key not in sides:
            sides[key] = _side(key, fractions, seed)
        splits[sides[key]].append(item)
    return splits


def group_key_of(
    demonstrations: Sequence[Demonstration], prompts: Sequence[Prompt]
) -> Callable[[Demonstration | Prompt], str]:
    """One key for both lists, so that a demonstration and a prompt of one question stay together.

    The question id where the lists share ids (or one of them is empty), else the normalised prompt.
    """
    shared = {d.group_id for d in demonstrations} & {p.group_id for p in prompts}
    by_id = bool(shared) or not demonstrations

    def key(item: Demonstration | Prompt) -> str:
        return item.group_id if by_id and item.group_id else group_of_prompt(item.prompt)

    return key


def hold_out(
    demonstrations: Sequence[Demonstration],
    prompts: Sequence[Prompt],
    *,
    fraction: float,
    seed: int,
) -> tuple[list[Demonstration], list[Prompt], list[Prompt]]:
    """What a run without an evaluation file trains on and is evaluated on.

    Returns:
        Demonstrations and prompts that remain, and the prompts held out: about `fraction` of the
        questions, none of which is in the former two.
    """
    shares = {"train": 1.0 - fraction, "held": fraction}
    group = group_key_of(demonstrations, prompts)
    parts = split_by_group(prompts, fractions=shares, seed=seed, group=group)
    shown = split_by_group(demonstrations, fractions=shares, seed=seed, group=group)["train"]
    return shown, parts["train"], parts["held"]


def _side(key: str, fractions: Mapping[str, float], seed: int) -> str:
    digest = hashlib.sha256(f"{seed}\0{key}".encode()).digest()
    point = int.from_bytes(digest[:8], "big") / 2**64  # uniform in [0, 1)
    chosen, edge = "", 0.0
    for name, share in fractions.items():
        if share > 0 and (point >= edge or not chosen):
            chosen = name
        edge += share
    return chosen


@dataclass(frozen=True)
class OverlapRemoval(Generic[T]):
    """What `remove_overlap` did.

    Attributes:
        kept: the training items that give nothing away, in order (all of them with `remove=False`).
        counts: training items concerned, by `exact_prompt`, `near_prompt`, `exact_answer`,
            `near_answer` and `same_group`; an item can count under several.
        concerned: training items concerned, each counted once.
        eval_concerned: evaluation items that at least one training item gives away.
        matches: (`prompt` | `answer` | `group`, Overlap) for every pair found by text.
    """

    kept: list[T]
    counts: Mapping[str, int]
    concerned: int
    eval_concerned: int
    matches: tuple[tuple[str, Overlap], ...]

    def line(self) -> str:
        """The counts as one line for the log."""
        kinds = ", ".join(f"{count} {name}" for name, count in self.counts.items() if count)
        return (
            f"leak check: {self.concerned} training rows concern {self.eval_concerned} evaluation "
            f"rows ({kinds or 'no match'}); {len(self.kept)} training rows kept"
        )


def remove_overlap(
    train: Iterable[T],
    evaluation: Sequence[Any],
    *,
    threshold: float = THRESHOLD,
    n: int = NGRAM,
    answers: bool = True,
    groups: bool = True,
    remove: bool = True,
) -> OverlapRemoval[T]:
    """Count, and take out of `train`, the items that share a prompt or an answer with `evaluation`.

    Args:
        train: any iterable of records; consumed once.
        evaluation: the records to be protected.
        threshold: n-gram containment from which a text is a near duplicate.
        answers: look at answers (snippets) too, not at prompts only.
        groups: a shared group id (question id) counts as a leak whatever the texts.
        remove: with False the counts are made but every item is kept.
    """
    prompts = OverlapIndex(map(prompt_of, evaluation), threshold=threshold, n=n)
    replies = OverlapIndex(map(answer_of, evaluation) if answers else (), threshold=threshold, n=n)
    by_group: dict[str, list[int]] = {}
    for index, item in enumerate(evaluation if groups else ()):
        by_group.setdefault(group_id_of(item), []).append(index)
    counts: Counter[str] = Counter()
    kept: list[T] = []
    matches: list[tuple[str, Overlap]] = []
    touched: set[int] = set()
    concerned = 0
    for position, item in enumerate(train):
        kinds = set()
        for field, protected, text in (
            ("prompt", prompts, prompt_of(item)),
            ("answer", replies, answer_of(item) if answers else ""),
        ):
            for match in protected.match(position, text):
                matches.append((field, match))
                touched.add(match.eval_index)
                kinds.add(f"{match.kind}_{field}")
        if groups and (same := by_group.get(group_id_of(item))):
            touched.update(same)
            kinds.add("same_group")
        counts.update(kinds)
        concerned += bool(kinds)
        if not kinds or not remove:
            kept.append(item)
    return OverlapRemoval(kept, dict(counts), concerned, len(touched), tuple(matches))
