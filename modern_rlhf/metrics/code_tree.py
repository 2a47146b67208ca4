"""Concrete syntax trees by tree-sitter, as the syntax and data-flow parts of CodeBLEU need them.

tree-sitter parses anything, valid or not. A subtree is identified by the kinds of its named nodes and
the fields they stand in, as in tree-sitter's S-expressions; equal subtrees get equal numbers from one
interning table, so comparing two programs is comparing integers. Comments are no nodes here, nor are
docstrings (a string that opens a function, class or longer module; a lone string is an answer).

The data-flow graph comes from `codebleu`'s own extractor, whose output order depends on Python's hash
seed; parents are put back into the order of the text, which makes it a function of the code alone.
Limits, each leading to a named None: texts above `CHARACTER_LIMIT` (tree-sitter is quadratic on some
hostile texts); data flow above `FLOW_NODE_LIMIT` nodes, `FLOW_DEPTH_LIMIT` levels (the extractor
recurses) or `FLOW_LOOP_LIMIT` nested loops (it visits every loop body twice, so its cost doubles with
each level).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

CHARACTER_LIMIT = 8_192
FLOW_NODE_LIMIT = 3_000
FLOW_DEPTH_LIMIT = 200
FLOW_LOOP_LIMIT = 8

Flow = tuple[str, str, tuple[str, ...]]
"""A normalised data-flow item: variable, relation, the variables it comes from."""

_LOOPS = frozenset({"for_statement", "while_statement"})


@dataclass(frozen=True)
class CodeTree:
    """Subtree numbers (root last), and the data-flow items or None where they are out of reach."""

    subtrees: tuple[int, ...]
    flow: Counter[Flow] | None


class CodeTreeBuilder:
    """Parses texts into `CodeTree`s whose numbers are comparable with each other."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[Any, ...], int] = {}
        self._parser = _python_parser()

    def build(self, code: str) -> CodeTree | None:
        """The tree of `code`; None above `CHARACTER_LIMIT`."""
        if len(code) > CHARACTER_LIMIT:
            return None
        source = code.encode("utf-8")
        tree = self._parser.parse(source)
        subtrees, flows = self._subtrees(tree)
        return CodeTree(tuple(subtrees), data_flow(tree.root_node, source) if flows else None)

    def _subtrees(self, tree: Any) -> tuple[list[int], bool]:
        """Numbers of the root and of all nodes with children; whether data flow is within limits."""
        subtrees: list[int] = []
        nodes = depth = loops = most_loops = 0
        cursor = tree.walk()
        open_nodes: list[_Open] = []
        while True:
            node = cursor.node
            nodes += 1
            loops += node.type in _LOOPS
            most_loops = max(most_loops, loops)
            visible = (node.is_named or node.is_missing) and not _is_comment(node)
            kind = f"MISSING {node.type}" if node.is_missing else node.type
            open_nodes.append(_Open(kind, cursor.field_name, visible, node.child_count > 0))
            depth = max(depth, len(open_nodes))
            if visible and cursor.goto_first_child():
                continue
            while True:  # close this node, and every parent whose last child it was
                done = open_nodes.pop()
                loops -= done.kind in _LOOPS
                if done.visible:
                    key = (done.kind, *done.children)
                    number = self._numbers.setdefault(key, len(self._numbers))
                    if done.counted or not open_nodes:
                        subtrees.append(number)
                    if open_nodes:
                        open_nodes[-1].children.append((done.role, number))
                if not open_nodes:
                    flows = depth <= FLOW_DEPTH_LIMIT and most_loops <= FLOW_LOOP_LIMIT
                    return subtrees, flows and nodes <= FLOW_NODE_LIMIT
                if cursor.goto_next_sibling():
                    break
                cursor.goto_parent()


@dataclass
class _Open:
    """A node on the way from the root to the cursor."""

    kind: str
    role: str | None
    visible: bool
    counted: bool
    children: list[tuple[str | None, int]] = field(default_factory=list)


def syntax_match(candidate: CodeTree, reference: CodeTree) -> float:
    """Share of the reference's subtrees that occur in the candidate (CodeBLEU's Match_ast)."""
    known = set(candidate.subtrees)
    return sum(number in known for number in reference.subtrees) / len(reference.subtrees)


def flow_match(candidate: CodeTree, reference: CodeTree) -> float | None:
    """Share of the reference's data-flow items found in the candidate (CodeBLEU's Match_df).

    None when the reference has no data flow, or when either side's is out of reach.
    """
    if candidate.flow is None or not reference.flow:
        return None
    return (candidate.flow & reference.flow).total() / reference.flow.total()


def data_flow(root: Any, source: bytes) -> Counter[Flow]:
    """The normalised data-flow items under `root`, a tree within the limits.

    Variables are numbered in order of appearance, so renaming changes nothing. A tree too broken for
    the extractor (error nodes where it expects a name) has no data flow.
    """
    from codebleu.parser import DFG_python

    extract: Any = DFG_python

    spans = _leaf_spans(root)
    lines = source.split(b"\n")
    tokens = [_slice(lines, span) for span in spans]
    by_span = {span: (place, tokens[place]) for place, span in enumerate(spans)}
    try:
        raw, _ = extract(root, by_span, {})
    except (KeyError, AttributeError, IndexError, TypeError):
        return Counter()
    raw = sorted(raw, key=lambda item: item[1])
    used = {place for item in raw if item[3] for place in (item[1], *item[4])}
    merged: dict[int, tuple[str, str, list[int]]] = {}
    for name, place, relation, _, sources in raw:
        if place not in used:
            continue
        if place in merged:
            first_of_name: dict[str, int] = {}
            for one in sorted({*merged[place][2], *sources}):
                first_of_name.setdefault(tokens[one], one)
            merged[place] = (*merged[place][:2], list(first_of_name.values()))
        else:
            merged[place] = (name, relation, list(sources))
    numbers: dict[str, str] = {}
    items: Counter[Flow] = Counter()
    for name, relation, sources in merged.values():
        parents = [tokens[one] for one in sources]
        for variable in (*parents, name):
            numbers.setdefault(variable, f"var_{len(numbers)}")
        items[(numbers[name], relation, tuple(numbers[one] for one in parents))] += 1
    return items


def _leaf_spans(root: Any) -> list[tuple[Any, Any]]:
    """(start, end) of every token of the tree in order; a string literal is one token."""
    spans = []
    stack = [root]
    while stack:
        node = stack.pop()
        if node.type == "comment":
            continue
        if node.child_count == 0 or node.type == "string":
            spans.append((node.start_point, node.end_point))
        else:
            stack.extend(reversed(node.children))
    return spans


def _slice(lines: list[bytes], span: tuple[Any, Any]) -> str:
    """The text of a span; columns count bytes."""
    (first, start), (last, end) = span
    if first == last:
        text = lines[first][start:end]
    else:
        text = b"".join([lines[first][start:], *lines[first + 1 : last], lines[last][:end]])
    return str(text, "utf-8", errors="replace")


def _is_comment(node: Any) -> bool:
    """Whether a node is a comment, or a docstring (the first statement of a body, a lone string)."""
    if node.type == "comment":
        return True
    if node.type != "expression_statement" or node.child_count != 1 or node.prev_sibling:
        return False
    if node.children[0].type != "string" or node.parent is None:
        return False
    if node.parent.type == "module":
        return node.next_named_sibling is not None
    owner = node.parent.parent
    return owner is not None and owner.type in ("function_definition", "class_definition")


@lru_cache(maxsize=1)
def _python_parser() -> Any:
    import tree_sitter_python
    from tree_sitter import Language, Parser

    return Parser(Language(tree_sitter_python.language()))
