"""The shared input of all metrics: extracted, cleaned and tokenised once, parsed when first asked.

Code is extracted from answers by the package's one extractor (`sandbox.extract`), which strips
Markdown fences and chat prose and completes what continues a task's beginning of a program.
Nothing here scores anything.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from modern_rlhf.errors import MetricError
from modern_rlhf.metrics.exact import parse_all
from modern_rlhf.metrics.ngrams import Row, pair_rows
from modern_rlhf.metrics.texts import CHARACTER_LIMIT, clean_text, code_tokens, reference_lists
from modern_rlhf.records import Task

AS_IS = "as-is"


@dataclass(frozen=True)
class Prepared:
    """N items in order. `predictions` are the extracted codes, `references` lists of texts.

    `samples` holds the extracted codes of k samples an item, empty where none were given;
    `extraction` is the account described at `results.MetricsReport`.
    """

    predictions: list[str]
    references: list[list[str]]
    prompts: list[str] | None
    tasks: list[Task | None] | None
    samples: list[list[str]] | None
    extraction: dict[str, Any]

    def __len__(self) -> int:
        return len(self.predictions)

    def part(self, start: int, stop: int) -> Prepared:
        """Predictions and references of the items from `start` up to `stop`, without the rest."""
        return prepared_texts(self.predictions[start:stop], self.references[start:stop])

    @cached_property
    def prediction_tokens(self) -> list[list[str]]:
        """Code tokens of every prediction."""
        return [code_tokens(text) for text in self.predictions]

    @cached_property
    def reference_tokens(self) -> list[list[list[str]]]:
        """Code tokens of every reference of every item; a text used twice is tokenised once."""
        known = {text: code_tokens(text) for texts in self.references for text in texts}
        return [[known[text] for text in texts] for texts in self.references]

    @cached_property
    def pairs(self) -> list[list[Row]]:
        """N-gram counts of every item with each of its references (`ngrams.pair_rows`)."""
        return pair_rows(self.prediction_tokens, self.reference_tokens)

    @cached_property
    def trees(self) -> dict[str, ast.Module | None]:
        """Syntax trees by text, for all predictions and references; None where invalid."""
        return parse_all({*self.predictions, *(text for one in self.references for text in one)})


def prepared_texts(predictions: list[str], references: list[list[str]]) -> Prepared:
    """Items whose texts are extracted and cleaned already, with nothing but these texts."""
    return Prepared(predictions, references, None, None, None, {})


def prepare(
    predictions: Sequence[str],
    references: Sequence[str | Sequence[str] | None],
    *,
    prompts: Sequence[str] | None = None,
    tasks: Sequence[Task | None] | None = None,
    samples: Sequence[Sequence[str]] | None = None,
    extract: bool = True,
) -> Prepared:
    """Check that the inputs belong together, extract the code and clean every text.

    Without `extract`, predictions and samples are taken as they are (cleaned, not stripped).

    Raises:
        MetricError: lengths differ, or a prediction is not a text.
    """
    n = len(predictions)
    for name, other in (
        ("references", references),
        ("prompts", prompts),
        ("tasks", tasks),
        ("samples", samples),
    ):
        if other is not None and len(other) != n:
            raise MetricError(
                f"{name} has {len(other)} items, predictions has {n}; they must agree"
            )
    for position, text in enumerate(predictions):
        if not isinstance(text, str):
            raise MetricError(f"predictions[{position}] is {text!r:.80}; expected a text")
    task_list = list(tasks) if tasks is not None else None
    owners = task_list or [None] * n
    wanted = reference_lists(references)
    changed, truncated, rules = 0, 0, Counter[str]()
    codes = []
    for text, task, texts in zip(predictions, owners, wanted, strict=True):
        code, how = _extract(text, task, texts) if extract else (clean_text(text), AS_IS)
        changed += how != AS_IS
        rules[how] += 1
        truncated += len(text) > CHARACTER_LIMIT
        codes.append(code)
    sampled = None
    if samples is not None:
        sampled = [
            [_extract(text, task, texts)[0] if extract else clean_text(text) for text in answers]
            for answers, task, texts in zip(samples, owners, wanted, strict=True)
        ]
    extraction = {
        "changed": changed,
        "how": dict(sorted(rules.items())),
        "empty": sum(not code.strip() for code in codes),
        "truncated": truncated,
        "character_limit": CHARACTER_LIMIT,
    }
    return Prepared(
        predictions=codes,
        references=wanted,
        prompts=list(prompts) if prompts is not None else None,
        tasks=task_list,
        samples=sampled,
        extraction=extraction,
    )


def _extract(text: str, task: Task | None, references: list[str]) -> tuple[str, str]:
    """The code of one answer, and which rules made it."""
    from modern_rlhf.sandbox.extract import answer_code

    text = clean_text(text)
    if text in references:
        return text, AS_IS  # even when the reference itself is no clean piece of code
    found = answer_code(text, task)
    return clean_text(found.code), found.how if found.changed else AS_IS
