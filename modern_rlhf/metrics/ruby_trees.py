"""The tree part of RUBY: nodes of a syntax tree, the closed-form distance, the true edit distance.

A tree has one node for every AST node, labelled by its type, and one for every other field value or
list element, labelled by its text (`None` included); lists themselves are no nodes.

* Closed form: `max(|A|, |B|) - |A & B|` over the multisets of labels. It is what the published
  values of RUBY on CoNaLa were computed with: blind to structure, linear in time.
* True tree edit distance: Zhang and Shasha, SIAM J. Comput. 1989, with unit costs. Between quadratic
  and quartic in the sizes, hence `EDIT_CELL_LIMIT`.
"""

from __future__ import annotations

import ast
from collections import Counter
from dataclasses import dataclass

from modern_rlhf.metrics.exact import literal_text

EDIT_CELL_LIMIT = 500_000
"""Most table cells that a true edit distance may take (about 0.2 s)."""


@dataclass(frozen=True)
class LabelledTree:
    """Labels in postorder, and for every node the postorder index of its leftmost leaf."""

    labels: tuple[str, ...]
    leftmost: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.labels)


def labelled_tree(tree: ast.Module) -> LabelledTree:
    """The nodes of `tree` in postorder, built without recursion."""
    labels: list[str] = []
    leftmost: list[int] = []
    # Entries are (node, None) to open and (None, (label, index of first own leaf)) to close.
    stack: list[tuple[object, tuple[str, int] | None]] = [(tree, None)]
    while stack:
        value, closing = stack.pop()
        if closing is not None:
            label, first = closing
            leftmost.append(first)
            labels.append(label)
        elif isinstance(value, ast.AST):
            stack.append((None, (type(value).__name__, len(labels))))
            children: list[object] = []
            for _, field in ast.iter_fields(value):
                children.extend(field if isinstance(field, list) else [field])
            stack.extend((child, None) for child in reversed(children))
        else:
            leftmost.append(len(labels))
            labels.append(literal_text(value))
    return LabelledTree(tuple(labels), tuple(leftmost))


def label_similarity(a: Counter[str], b: Counter[str]) -> float:
    """Closed-form TRS of two label multisets: 1 - (max(|A|, |B|) - |A & B|) / (|A| + |B|)."""
    size_a, size_b = a.total(), b.total()
    if len(a) > len(b):
        a, b = b, a
    shared = sum(min(count, b[label]) for label, count in a.items() if label in b)
    return 1.0 - (max(size_a, size_b) - shared) / (size_a + size_b)


def edit_similarity(a: LabelledTree, b: LabelledTree) -> float | None:
    """TRS with the true edit distance; None above `EDIT_CELL_LIMIT`."""
    if a.labels == b.labels and a.leftmost == b.leftmost:
        return 1.0
    if edit_cells(a) * edit_cells(b) > EDIT_CELL_LIMIT:
        return None
    return 1.0 - tree_edit_distance(a, b) / (len(a) + len(b))


def edit_cells(tree: LabelledTree) -> int:
    """Sum of the sizes of the subproblems; the product of two is the cost of their distance."""
    return sum(root - tree.leftmost[root] + 1 for root in _keyroots(tree))


def tree_edit_distance(a: LabelledTree, b: LabelledTree) -> int:
    """Fewest node insertions, deletions and relabellings that turn ordered tree `a` into `b`."""
    distance = [[0] * len(b) for _ in range(len(a))]
    for root_a in _keyroots(a):
        for root_b in _keyroots(b):
            _fill(distance, a, b, root_a, root_b)
    return distance[-1][-1]


def _keyroots(tree: LabelledTree) -> list[int]:
    """The highest node of every leftmost path: the roots of the subproblems, in postorder."""
    highest = {leaf: node for node, leaf in enumerate(tree.leftmost)}
    return sorted(highest.values())


def _fill(
    distance: list[list[int]], a: LabelledTree, b: LabelledTree, root_a: int, root_b: int
) -> None:
    """Distances of all subtree pairs on the leftmost paths of two key roots (forest recursion)."""
    first_a, first_b = a.leftmost[root_a], b.leftmost[root_b]
    rows, columns = root_a - first_a + 2, root_b - first_b + 2
    forest = [[0] * columns for _ in range(rows)]
    for i in range(1, rows):
        forest[i][0] = i
    forest[0] = list(range(columns))
    for i in range(1, rows):
        node_a = first_a + i - 1
        above, here = forest[i - 1], forest[i]
        for j in range(1, columns):
            node_b = first_b + j - 1
            best = min(above[j], here[j - 1]) + 1
            if a.leftmost[node_a] == first_a and b.leftmost[node_b] == first_b:
                relabel = a.labels[node_a] != b.labels[node_b]
                here[j] = min(best, above[j - 1] + relabel)
                distance[node_a][node_b] = here[j]
            else:
                before = forest[a.leftmost[node_a] - first_a][b.leftmost[node_b] - first_b]
                here[j] = min(best, before + distance[node_a][node_b])
