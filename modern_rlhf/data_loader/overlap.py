"""Do training texts give away evaluation texts? Exact and near duplicates, found in one pass.

Near duplicates are measured by n-gram containment (Broder 1997, "On the resemblance and containment
of documents"; n-gram overlap is also the leak check of the GPT-3 paper, appendix C): the share of the
evaluation text's token n-grams that stand in one training text. The index is built over the
evaluation texts, so the training texts may be a stream of any length: memory grows with the
evaluation set and the matches only.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Literal, NamedTuple

from modern_rlhf.errors import ConfigError

NGRAM = 5
THRESHOLD = 0.8

_TOKEN = re.compile(r"\w+|[^\w\s]")
_QUOTED = re.compile(r'\s*("""|\'\'\')(?P<text>.*?)\1\s*', re.DOTALL)

Kind = Literal["exact", "near"]


class Overlap(NamedTuple):
    """One training text that gives away one evaluation text; `score` is the containment, 1 if exact."""

    train_index: int
    eval_index: int
    kind: Kind
    score: float


def unwrap(text: str) -> str:
    """The text inside triple quotes when they wrap the whole of it (a prompt in docstring form)."""
    match = _QUOTED.fullmatch(text)
    return match["text"] if match else text


def normalise(text: str) -> str:
    """The form in which two texts count as the same.

    Unicode NFKC, case folded, docstring quotes around the whole dropped, runs of white space made one
    space, and the ends freed of spaces and of `.`, `?` and `!`.
    """
    folded = unicodedata.normalize("NFKC", unwrap(text)).casefold()
    return " ".join(folded.split()).strip(".?! ")


def tokens(text: str) -> list[str]:
    """Words and single punctuation marks of the normalised text."""
    return _TOKEN.findall(normalise(text))


def ngrams(text: str, n: int = NGRAM) -> set[tuple[str, ...]]:
    """The distinct n-grams of `text`; empty when it is shorter than `n` tokens."""
    words = tokens(text)
    return set(zip(*(words[start:] for start in range(n)), strict=False))


def ngram_containment(a: str, b: str, n: int = NGRAM) -> float:
    """The share of the n-grams of `a` that also stand in `b`, from 0 to 1.

    Texts shorter than `n` tokens have no n-gram: the result is then 1 if the normalised texts are
    equal and 0 otherwise.
    """
    grams = ngrams(a, n)
    if not grams:
        return float(normalise(a) == normalise(b))
    return len(grams & ngrams(b, n)) / len(grams)


class OverlapIndex:
    """Evaluation texts, ready to be compared with any number of training texts.

    Args:
        eval_texts: texts to be protected; empty ones match nothing.
        threshold: containment from which a text counts as a near duplicate, in (0, 1].
        n: tokens in an n-gram.
    """

    def __init__(
        self, eval_texts: Iterable[str], *, threshold: float = THRESHOLD, n: int = NGRAM
    ) -> None:
        if not 0 < threshold <= 1:
            raise ConfigError(f"overlap threshold {threshold!r}: expected a number in (0, 1]")
        if n < 1:
            raise ConfigError(f"overlap n {n!r}: expected at least 1 token")
        self.threshold = threshold
        self.n = n
        self._exact: defaultdict[str, list[int]] = defaultdict(list)
        self._postings: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
        self._sizes: dict[int, int] = {}
        for index, text in enumerate(eval_texts):
            key = normalise(text)
            if not key:
                continue
            self._exact[key].append(index)
            grams = ngrams(text, n)
            self._sizes[index] = len(grams)
            for gram in grams:
                self._postings[gram].append(index)

    def match(self, train_index: int, text: str) -> list[Overlap]:
        """The evaluation texts that `text` gives away, exact ones first, by evaluation index."""
        same = self._exact.get(normalise(text), [])
        found = [Overlap(train_index, index, "exact", 1.0) for index in same]
        shared: Counter[int] = Counter()
        for gram in ngrams(text, self.n):
            shared.update(self._postings.get(gram, ()))
        exact = set(same)
        for index in sorted(shared):
            score = shared[index] / self._sizes[index]
            if score >= self.threshold and index not in exact:
                found.append(Overlap(train_index, index, "near", score))
        return found
