"""Semantic similarity as a reward: to the reference where there is one, else to the intent.

Range 0..1. The answer's code is taken out of fences and prose by the package's one extractor first; an
empty answer is 0. Kinds of similarity to the reference:

* `token`: mean of chrF (character n-grams, sacrebleu) and the token similarity 2M / (|a| + |b|), M the
  longest common subsequence of CoNaLa code tokens (rapidfuzz). A tenth of a millisecond a pair, and closer to human
  grades than either part (docs/reward_model.md has the figures).
* `codebleu`: corrected CodeBLEU of `metrics.codebleu`.
* `embedding`: cosine of mean-pooled hidden states of an encoder, negative values cut to 0.

Without a reference, `without_reference="intent"` compares with the prompt: `embedding` by the same
cosine; the other two by the overlap (Dice) of the intent's content words with the words in the
identifiers and string constants of the code. Only code that parses counts, and comments and docstrings don't, so
repeating the question earns nothing. The details say which of the two was measured.
`without_reference="none"` gives None instead: the component does not apply.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Sequence
from typing import Any, Literal

import torch

from modern_rlhf.errors import ConfigError
from modern_rlhf.metrics.exact import parse_python
from modern_rlhf.metrics.texts import clean_text, code_tokens
from modern_rlhf.models.loading import Backbone
from modern_rlhf.reward_model.baselines import content_words
from modern_rlhf.reward_model.encoding import DEFAULT_MAX_LENGTH, length_limit
from modern_rlhf.reward_model.text_features import text_similarities
from modern_rlhf.rewards.base import RewardBatch, RewardScores
from modern_rlhf.sandbox.extract import answer_code

Kind = Literal["token", "codebleu", "embedding"]

_WORD_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


class SemanticReward:
    """See the module docstring.

    Args:
        kind: `token`, `codebleu` or `embedding`.
        backbone: the encoder of kind `embedding` (e.g. `load_backbone("minilm")`), frozen.
        without_reference: `intent` or `none`.
        batch_size: texts the encoder sees at a time.

    Raises:
        ConfigError: an unknown kind or rule, or a backbone missing or given in vain.
    """

    def __init__(
        self,
        kind: Kind = "token",
        *,
        backbone: Backbone | None = None,
        without_reference: Literal["intent", "none"] = "intent",
        name: str = "semantic",
        batch_size: int = 64,
    ) -> None:
        if kind not in ("token", "codebleu", "embedding"):
            raise ConfigError(f"kind={kind!r}: expected 'token', 'codebleu' or 'embedding'")
        if without_reference not in ("intent", "none"):
            raise ConfigError(
                f"without_reference={without_reference!r}: expected 'intent' or 'none'"
            )
        if (backbone is None) == (kind == "embedding"):
            raise ConfigError("a backbone belongs to kind='embedding', and only to it")
        self.name = name
        self.kind = kind
        self.without_reference = without_reference
        self._embedder = Embedder(backbone, batch_size=batch_size) if backbone is not None else None

    def score(self, batch: RewardBatch) -> RewardScores:
        """B similarities; None where there is neither a reference nor an intent to compare with, or the
        similarity is no number (such samples are marked `unscorable`)."""
        codes = [
            clean_text(answer_code(clean_text(text), prompt.task).code)
            for prompt, text in zip(batch.prompts, batch.responses, strict=True)
        ]
        targets: list[str | None] = []
        compared: list[str | None] = []
        for prompt in batch.prompts:
            target, what = prompt.reference, "reference"
            if target is None or not target.strip():
                target, what = prompt.prompt, "intent"
            usable = bool(target.strip()) and not (
                what == "intent" and self.without_reference == "none"
            )
            targets.append(target if usable else None)
            compared.append(what if usable else None)
        total: list[float | None] = [None] * len(batch)
        for what in ("reference", "intent"):
            rows = [i for i, found in enumerate(compared) if found == what]
            pairs = [(codes[i], str(targets[i])) for i in rows]
            for i, value in zip(rows, self._similarities(pairs, what), strict=True):
                total[i] = value
        broken = [
            what is not None and value is None for what, value in zip(compared, total, strict=True)
        ]
        return RewardScores(
            total, {self.name: list(total)}, {"compared_with": compared, "unscorable": broken}
        )

    def close(self) -> None:
        """Nothing to free."""

    def _similarities(self, pairs: list[tuple[str, str]], what: str) -> list[float | None]:
        if not pairs:
            return []
        values: Sequence[float | None]
        if self._embedder is not None:
            values = self._embedder.similarities(
                [code for code, _ in pairs], [clean_text(target) for _, target in pairs]
            )
        elif what == "intent":
            values = [intent_overlap(code, target) for code, target in pairs]
        elif self.kind == "codebleu":
            values = codebleu_similarities(pairs)
        else:
            values = token_similarities(pairs)
        # An encoder gives even an empty text some direction.
        return [
            0.0 if not code.strip() else _in_range(value)
            for value, (code, _) in zip(values, pairs, strict=True)
        ]


def _in_range(value: float | None) -> float | None:
    """Cut to 0..1; None for no number, of which `max` would make a 0."""
    return None if value is None or not math.isfinite(value) else min(1.0, max(0.0, value))


def token_similarities(pairs: Sequence[tuple[str, str]]) -> list[float]:
    """Mean of chrF and longest-common-subsequence similarity of code tokens, for (code, reference)."""
    cleaned = [(code, clean_text(reference)) for code, reference in pairs]
    return [(characters + tokens) / 2.0 for characters, tokens in text_similarities(cleaned)]


def codebleu_similarities(pairs: Sequence[tuple[str, str]]) -> list[float | None]:
    """Corrected CodeBLEU of (code, reference); None for a blank reference."""
    from modern_rlhf.metrics.codebleu import codebleu_scores

    codes = [code for code, _ in pairs]
    references = [[clean_text(reference)] for _, reference in pairs]
    found = codebleu_scores(
        codes,
        references,
        [code_tokens(code) for code in codes],
        [[code_tokens(text) for text in texts] for texts in references],
    )
    return list(found.per_item)


def intent_overlap(code: str, intent: str) -> float:
    """Dice overlap of the intent's content words with the words named in `code`; 0 if it doesn't parse."""
    tree = parse_python(code)
    asked = {part for word in content_words(intent) for part in _parts(word)}
    named = set() if tree is None else {part for word in named_words(tree) for part in _parts(word)}
    if not asked or not named:
        return 0.0
    return 2.0 * len(asked & named) / (len(asked) + len(named))


def named_words(tree: ast.Module) -> set[str]:
    """Identifiers, attribute names, imports and string constants of a program, without docstrings."""
    words: set[str] = set()
    bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) not in bare:  # a string standing alone is a docstring or a comment
                words.add(node.value)
        elif isinstance(node, ast.Name):
            words.add(node.id)
        elif isinstance(node, ast.Attribute):
            words.add(node.attr)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.alias)):
            words.add(node.name)
        elif isinstance(node, (ast.arg, ast.keyword)) and node.arg:
            words.add(node.arg)
    return words


def _parts(word: str) -> list[str]:
    return [part.lower() for part in _WORD_PART.findall(word)]


class Embedder:
    """Mean-pooled, normalised hidden states of a frozen encoder."""

    def __init__(self, backbone: Backbone, *, batch_size: int) -> None:
        self.model = backbone.model.eval().requires_grad_(False)
        self.tokenizer = backbone.tokenizer
        self.batch_size = batch_size
        self.limit = min(
            DEFAULT_MAX_LENGTH,
            length_limit(backbone.model.config, backbone.tokenizer) or DEFAULT_MAX_LENGTH,
        )

    def similarities(self, first: Sequence[str], second: Sequence[str]) -> list[float]:
        """Cosine of N pairs of texts; a text that occurs twice is encoded once."""
        texts = list(dict.fromkeys([*first, *second]))
        vectors = self._embed(texts)
        where = {text: i for i, text in enumerate(texts)}
        left = vectors[[where[text] for text in first]]
        right = vectors[[where[text] for text in second]]
        cosines: list[float] = (left * right).sum(-1).tolist()
        return cosines

    @torch.no_grad()
    def _embed(self, texts: list[str]) -> torch.Tensor:
        """(N, H) unit vectors on the CPU."""
        device = next(self.model.parameters()).device
        # Built without the tokenizer's own truncation and padding, which are state inside it (D37).
        rows: list[list[int]] = [
            list(ids) or [self.tokenizer.pad_token_id]
            for ids in self.tokenizer(texts, verbose=False)["input_ids"]
        ]
        rows = [
            row if len(row) <= self.limit else [*row[: self.limit - 1], row[-1]] for row in rows
        ]
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
        vectors: dict[int, Any] = {}
        for start in range(0, len(order), self.batch_size):
            part = order[start : start + self.batch_size]
            lengths = torch.tensor([len(rows[i]) for i in part], device=device)
            width = int(lengths.max())
            ids = torch.full((len(part), width), self.tokenizer.pad_token_id, device=device)
            for row, i in enumerate(part):
                ids[row, : len(rows[i])] = torch.tensor(rows[i], device=device)
            mask = (torch.arange(width, device=device) < lengths[:, None]).long()
            hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
            summed = hidden.masked_fill(~mask.bool()[..., None], 0.0).sum(1)
            mean = summed / lengths[:, None]
            vectors.update(
                zip(part, torch.nn.functional.normalize(mean, dim=-1).cpu(), strict=True)
            )
        return torch.stack([vectors[i] for i in range(len(texts))])
