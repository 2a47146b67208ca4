"""The records that flow through the house, before any tokenizer has seen them.

A record is a frozen dataclass of plain Python values. Loaders make records, everything above consumes
them; nothing here knows files, tensors or models. `group_id` is what splits are made by (a question
id, a task id, or the normalised prompt): two records of one group never land on both sides of a split.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from modern_rlhf.errors import DataError

ASPECTS = ("consistent", "correct", "useful")
"""The three aspects a human rates on a comparison form; the default heads of the reward model."""

OVERALL = "overall"
"""The aspect under which a source's single rating is stored."""

TestMode = Literal["assert", "unittest", "stdio", "call"]


@dataclass(frozen=True)
class DataSample:
    """One row as notebook users see it: the public, format-independent view of a record.

    `rating` is on the 1-5 scale; `metadata` carries whatever else the source row held.
    """

    prompt: str
    response: str = ""
    reference: str | None = None
    rating: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Message:
    """One turn of a conversation. `role` is `system`, `user` or `assistant`."""

    role: str
    content: str


@dataclass(frozen=True)
class Demonstration:
    """A prompt and the answer to imitate.

    `messages` holds the full conversation when the source is a multi-turn one (its last turn is the
    assistant's and equals `response`); else it is empty and the prompt stands alone.
    """

    prompt: str
    response: str
    group_id: str = ""
    source: str = ""
    messages: tuple[Message, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """A prompt with a reference solution and tests that decide by execution.

    Attributes:
        prompt: what the model is asked, in words (for HumanEval also the signature).
        reference: a full program that passes `tests`.
        tests: one source string a test, e.g. `("assert add(1, 2) == 3", ...)`; for `mode="stdio"`
            each is a JSON object `{"input": ..., "output": ...}`, for `mode="call"` a JSON object
            `{"args": [...], "kwargs": {...}, "expected": ...}`.
        entry_point: the function the tests call, or None when unknown.
        setup: source executed before the tests on the tester's side (imports, helpers).
        family: the kind of task, used to report seen and unseen families apart.
        split: `train`, `eval_seen` (known family, unseen parameters) or `eval_unseen`; free otherwise.
    """

    task_id: str
    prompt: str
    reference: str
    tests: tuple[str, ...]
    entry_point: str | None = None
    mode: TestMode = "assert"
    setup: str = ""
    family: str = ""
    split: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Prompt:
    """What an online trainer samples from: the text, and what its reward may look at."""

    prompt: str
    reference: str | None = None
    task: Task | None = None
    group_id: str = ""


@dataclass(frozen=True)
class PreferencePair:
    """Two answers to one prompt, the first preferred.

    `margin` is the strength of the preference (score gap; 0 when the source has none) and `weight`
    the pair's weight in the loss (rater weight).
    """

    prompt: str
    chosen: str
    rejected: str
    margin: float = 0.0
    weight: float = 1.0
    group_id: str = ""
    source: str = ""
    rater: str = ""
    synthetic: bool = False


@dataclass(frozen=True)
class Rating:
    """One answer rated by one rater: scores by aspect on the -2..2 scale (1-5 ratings minus 3).

    A source with a single overall rating stores it under the aspect `OVERALL`.
    """

    prompt: str
    response: str
    scores: Mapping[str, float]
    rater: str = ""
    weight: float = 1.0
    group_id: str = ""
    source: str = ""
    synthetic: bool = False

    @property
    def overall(self) -> float:
        """The overall rating on -2..2; where the source has none, the mean of the aspects.

        Raises:
            DataError: there is no score at all.
        """
        if OVERALL in self.scores:
            return float(self.scores[OVERALL])
        if not self.scores:
            raise DataError(f"the rating of {self.response!r} has no score")
        return sum(self.scores.values()) / len(self.scores)


@dataclass(frozen=True)
class LabelledAnswer:
    """An answer labelled desirable or not: the data of KTO."""

    prompt: str
    completion: str
    label: bool
    weight: float = 1.0
    group_id: str = ""
    source: str = ""
