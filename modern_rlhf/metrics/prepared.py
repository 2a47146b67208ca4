"""The shared input of all metrics: extracted, cleaned and tokenised once, parsed when first asked.

Code is extracted from answers by the package's one extractor (`sandbox.extract`), which strips
Markdown fences and chat prose. Nothing here scores anything.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from modern_rlhf.errors import MetricError
from modern_rlhf.metrics.exact import parse_python
from modern_rlhf.metrics.texts import CHARACTER_LIMIT, clean_text, code_tokens, reference_lists
from modern_rlhf.records import Task


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
    def trees(self) -> dict[str, ast.Module | None]:
        """Syntax trees by text, for all predictions and references; None where invalid."""
        texts = {*self.predictions, *(text for group in self.references for text in group)}
        return {text: parse_python(text) for text in texts}


def prepare(
    predictions: Sequence[str],
    references: Sequence[str | Sequence[str] | None],
    *,
    prompts: Sequence[str] | None = None,
    tasks: Sequence[Task | None] | None = None,
    samples: Sequence[Sequence[str]] | None = None,
) -> Prepared:
    """Check that the inputs belong together, extract the code and clean every text.

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
    entry_points = [task.entry_point if task else None for task in task_list or [None] * n]

    changed, truncated, rules = 0, 0, Counter[str]()
    codes = []
    for text, entry_point in zip(predictions, entry_points, strict=True):
        code, was_changed, how = _extract(text, entry_point)
        changed += was_changed
        rules[how] += 1
        truncated += len(text) > CHARACTER_LIMIT
        codes.append(code)
    sampled = None
    if samples is not None:
        sampled = [
            [_extract(text, entry_point)[0] for text in texts]
            for texts, entry_point in zip(samples, entry_points, strict=True)
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
        references=reference_lists(references),
        prompts=list(prompts) if prompts is not None else None,
        tasks=task_list,
        samples=sampled,
        extraction=extraction,
    )


def _extract(text: str, entry_point: str | None) -> tuple[str, bool, str]:
    from modern_rlhf.sandbox.extract import extract_code

    found = extract_code(clean_text(text), entry_point=entry_point)
    return clean_text(found.code), bool(found.changed), str(found.how)
