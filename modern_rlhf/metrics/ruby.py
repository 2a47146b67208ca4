"""RUBY: similarity of two programs by graph, else by tree, else by string.

Tran et al., ICPC 2019: RUBY(R, T) = GRS(R, T) if both program graphs can be built, else TRS(R, T) if
both syntax trees can be built, else STS(R, T). A score means little without its mode, so the two
travel together.

* STS = 1 - token edit distance / longer length, on code tokens.
* TRS = 1 - tree edit distance / (|AST_R| + |AST_T|); used here with the closed-form distance (the
  variant is named in the result); the true distance is in `ruby_trees`.
* GRS: see `ruby_graphs`. The published implementation stops its graph matching on a clock and is not
  reproducible; equality with published values is expected in string mode only.

Programs beyond a size limit fall back to the next mode, named: graphs above
`ruby_graphs.NODE_LIMIT` nodes to the tree mode, trees above `TREE_NODE_LIMIT` nodes to strings.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Literal, NamedTuple

from rapidfuzz.distance import Levenshtein

from modern_rlhf.metrics.exact import parse_python
from modern_rlhf.metrics.results import ItemScores
from modern_rlhf.metrics.ruby_graphs import ProgramGraph, graph_similarity, program_graph
from modern_rlhf.metrics.ruby_trees import (
    LabelledTree,
    edit_similarity,
    label_similarity,
    labelled_tree,
)
from modern_rlhf.metrics.texts import code_tokens

Mode = Literal["graph", "tree", "string"]

TREE_NODE_LIMIT = 20_000
"""Larger syntax trees are compared as strings."""


class RubyScore(NamedTuple):
    """The score, the mode it was reached in, and whether a size limit forced a lower mode."""

    value: float
    mode: Mode
    limited: bool = False


class Program:
    """One text with everything RUBY asks of it, each made once when first needed."""

    def __init__(
        self, text: str, tokens: Sequence[str] | None = None, tree: ast.Module | None = None
    ) -> None:
        self.text = text
        self._tokens = tokens
        self._parsed = tree

    @cached_property
    def tokens(self) -> Sequence[str]:
        """Code tokens."""
        return code_tokens(self.text) if self._tokens is None else self._tokens

    @cached_property
    def parsed(self) -> ast.Module | None:
        """The syntax tree, None when the text is not valid Python."""
        return parse_python(self.text) if self._parsed is None else self._parsed

    @cached_property
    def tree(self) -> LabelledTree | None:
        """The labelled tree, None when there is none or it is above `TREE_NODE_LIMIT`."""
        if self.parsed is None:
            return None
        tree = labelled_tree(self.parsed)
        return tree if len(tree) <= TREE_NODE_LIMIT else None

    @cached_property
    def labels(self) -> Counter[str]:
        """The multiset of labels of `tree`."""
        return Counter(self.tree.labels if self.tree is not None else ())

    @cached_property
    def graph(self) -> ProgramGraph | None:
        """The def-use graph, None when there is no tree or it is above the node limit."""
        return None if self.parsed is None else program_graph(self.parsed)


def string_similarity(a: Sequence[str], b: Sequence[str]) -> float:
    """STS of two token lists: both empty 1, one empty 0."""
    return float(Levenshtein.normalized_similarity(a, b))


def tree_similarity(a: Program, b: Program) -> float | None:
    """Closed-form TRS; None when either has no tree."""
    if a.tree is None or b.tree is None:
        return None
    return label_similarity(a.labels, b.labels)


def true_tree_similarity(a: Program, b: Program) -> float | None:
    """TRS with the true edit distance; None when either has no tree or they are too large."""
    if a.tree is None or b.tree is None:
        return None
    return edit_similarity(a.tree, b.tree)


def graph_part(a: Program, b: Program) -> float | None:
    """GRS; None when either has no graph or both are empty."""
    if a.graph is None or b.graph is None:
        return None
    return graph_similarity(a.graph, b.graph)


PARTS: dict[str, Callable[[Program, Program], float | None]] = {
    "ruby_string": lambda a, b: string_similarity(a.tokens, b.tokens),
    "ruby_tree": tree_similarity,
    "ruby_tree_edit": true_tree_similarity,
    "ruby_graph": graph_part,
}
"""The similarities behind RUBY as metrics of their own: STS, both variants of TRS, GRS."""


def part_items(
    part: str, predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> list[float | None]:
    """One of `PARTS` of N items, the best reference of each.

    None without references, or where no reference has the part in common with the answer (no tree, or
    above a limit); 0 for a blank answer.
    """
    scores: list[float | None] = []
    for prediction, texts in zip(predictions, references, strict=True):
        mine = Program(prediction)
        found = [PARTS[part](Program(text), mine) for text in texts] if prediction.strip() else []
        known = [score for score in found if score is not None]
        blank = 0.0 if texts and not prediction.strip() else None
        scores.append(max(known, default=blank))
    return scores


def part_summary(scores: Sequence[float | None]) -> ItemScores:
    """The scores with what a reader must know about them."""
    details = {"unscored": "no tree or above a limit", "references": "maximum over references"}
    return ItemScores(list(scores), details)


def ruby_score(reference: Program, prediction: Program) -> RubyScore:
    """RUBY of a prediction against one reference, with its mode."""
    if reference.parsed is None or prediction.parsed is None:
        return RubyScore(string_similarity(reference.tokens, prediction.tokens), "string")
    limited = reference.graph is None or prediction.graph is None
    graphs = graph_part(reference, prediction)
    if graphs is not None:
        return RubyScore(graphs, "graph")
    trees = tree_similarity(reference, prediction)
    if trees is not None:
        return RubyScore(trees, "tree", limited)
    return RubyScore(string_similarity(reference.tokens, prediction.tokens), "string", limited=True)


def ruby_items(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    trees: Mapping[str, ast.Module | None] | None = None,
) -> list[RubyScore | None]:
    """RUBY of N items, the best reference of each; None without references, 0 for a blank answer.

    Args:
        trees: syntax trees by text, where they are known already.
    """
    programs: dict[str, Program] = {}

    def program(text: str) -> Program:
        if text not in programs:
            programs[text] = Program(text, tree=(trees or {}).get(text))
        return programs[text]

    best: list[RubyScore | None] = []
    for prediction, texts in zip(predictions, references, strict=True):
        if not texts:
            best.append(None)
        elif not prediction.strip():
            best.append(RubyScore(0.0, "string"))
        else:
            scores = [ruby_score(program(text), program(prediction)) for text in texts]
            best.append(max(scores, key=lambda score: score.value))
    return best


def ruby_summary(items: Sequence[RubyScore | None]) -> ItemScores:
    """The values of N items, with the mode of each."""
    best = [None if score is None else RubyScore(*score) for score in items]
    modes: Counter[str] = Counter(score.mode for score in best if score is not None)
    details = {
        "modes": dict(sorted(modes.items())),
        "mode_per_item": [None if score is None else score.mode for score in best],
        "size_limited": sum(score.limited for score in best if score is not None),
        "tree_distance": "closed form over label multisets",
        "graph_distance": "bipartite assignment bound",
        "references": "maximum over references",
    }
    return ItemScores([None if score is None else score.value for score in best], details)


def ruby_scores(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> ItemScores:
    """RUBY of N items, the best reference of each; None without references, 0 for a blank answer."""
    return ruby_summary(ruby_items(predictions, references))
