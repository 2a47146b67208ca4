"""What a prompt and a response have in common, as numbers: the wide part of a wide-and-deep reward model.

A pooled vector of a small encoder does not compare two texts token by token, and people's grades of an
answer beside its reference follow such comparisons closely. These features stand beside the backbone's
and reach every head through one Linear of its own (Cheng et al. 2016, "Wide & Deep Learning for
Recommender Systems"). The first text is whatever the reward model is given as the prompt: a question, or
the reference where answers are graded beside one.

Knows nothing of models or heads.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import torch

from modern_rlhf.metrics.chrf import chrf_items
from modern_rlhf.metrics.texts import clean_text, code_tokens

TEXT_FEATURES = ("chrf", "token_lcs", "recall", "precision", "length_ratio", "length")
"""chrF and 2M / (|p| + |r|) with M the longest common subsequence of code tokens, both 0..1; share of the
prompt's tokens that the response has and the reverse, with repeats; log((1 + |r|) / (1 + |p|)); log(1 + |r|)."""


def text_features(prompts: Sequence[str], responses: Sequence[str]) -> torch.Tensor:
    """`TEXT_FEATURES` of N pairs, (N, 6) float32; about a tenth of a millisecond a pair of one-liners."""
    pairs = [
        (clean_text(response), clean_text(prompt))
        for prompt, response in zip(prompts, responses, strict=True)
    ]
    tokens = [(code_tokens(response), code_tokens(prompt)) for response, prompt in pairs]
    rows = [
        (*alike, *_counts(prompt, response))
        for alike, (response, prompt) in zip(_similarities(pairs, tokens), tokens, strict=True)
    ]
    return torch.tensor(rows).view(len(rows), len(TEXT_FEATURES))


def text_similarities(pairs: Sequence[tuple[str, str]]) -> list[tuple[float, float]]:
    """(chrF, longest-common-subsequence similarity of code tokens), 0..1, of each (answer, reference)."""
    return _similarities(pairs, [(code_tokens(text), code_tokens(other)) for text, other in pairs])


def _similarities(
    pairs: Sequence[tuple[str, str]], tokens: Sequence[tuple[list[str], list[str]]]
) -> list[tuple[float, float]]:
    from rapidfuzz.distance import Indel

    characters = chrf_items([text for text, _ in pairs], [[other] for _, other in pairs])
    return [
        (chrf or 0.0, Indel.normalized_similarity(*both))
        for chrf, both in zip(characters, tokens, strict=True)
    ]


def _counts(prompt: list[str], response: list[str]) -> tuple[float, float, float, float]:
    """Recall, precision, length ratio and length, as `TEXT_FEATURES` says."""
    common = sum((Counter(prompt) & Counter(response)).values())
    p, r = len(prompt), len(response)
    return common / max(1, p), common / max(1, r), math.log((1 + r) / (1 + p)), math.log(1 + r)
