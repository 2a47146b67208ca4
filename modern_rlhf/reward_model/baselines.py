"""Scores that need no learning: what a reward model must beat to have learned anything.

Each is a function `(prompts, responses) -> list[float]`, higher is better. Knows no model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from modern_rlhf.metrics.exact import parse_python
from modern_rlhf.metrics.texts import clean_text

Baseline = Callable[[Sequence[str], Sequence[str]], list[float]]

_WORD = re.compile(r"[a-z0-9_]+")
_STOP_TEXT = (
    "a an and are as at be by can do does for from has have how i if in into is it its me my of on or "
    "so that the then there this to use using want was what when where which with you your"
)
_STOP_WORDS = frozenset(_STOP_TEXT.split())


def longer(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """Length of the answer in characters."""
    return [float(len(text)) for text in responses]


def shorter(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """Minus the length: where answers ramble, people prefer the short one."""
    return [-value for value in longer(prompts, responses)]


def parses(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """1 when the answer's code is Python syntax (and not empty), else 0."""
    from modern_rlhf.sandbox.extract import extract_code

    scores = []
    for text in responses:
        code = extract_code(clean_text(text)).code
        scores.append(float(bool(code.strip()) and parse_python(clean_text(code)) is not None))
    return scores


def question_overlap(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """Share of the question's content words that the answer holds."""
    scores = []
    for prompt, response in zip(prompts, responses, strict=True):
        asked = content_words(prompt)
        scores.append(len(asked & content_words(response)) / len(asked) if asked else 0.0)
    return scores


def content_words(text: str) -> set[str]:
    """Lower-case words without the commonest English ones."""
    return set(_WORD.findall(text.lower())) - _STOP_WORDS


BASELINES: dict[str, Baseline] = {
    "longer_wins": longer,
    "shorter_wins": shorter,
    "parses_wins": parses,
    "question_overlap": question_overlap,
}
