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
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

CHARACTER_LIMIT = 8_192
FLOW_NODE_LIMIT = 3_000
FLOW_DEPTH_LIMIT = 200
FLOW_LOOP_LIMIT = 8

Flow = tuple[str, str, tuple[str, ...]]
"""A normalised data-flow item: variable, relation, the variables it comes from."""

_LOOPS = frozenset({"for_statement", "while_statement"})
_LOOPS_AND_BINDINGS = _LOOPS | {
    *("assignment", "augmented_assignment", "for_in_clause", "default_parameter")
}
_READ_BY_PLACE = _LOOPS | {
    *("assignment", "augmented_assignment", "for_in_clause", "default_parameter", "if_statement")
}
_SCOPES = frozenset({"function_definition", "class_definition"})


@dataclass(frozen=True)
class CodeTree:
    """Subtree numbers (the root's last), and the data-flow items.

    `flow` is None where it is out of reach, or was not asked for.
    """

    subtrees: tuple[int, ...]
    flow: Counter[Flow] | None


class _Node:
    """A copy of a tree-sitter node: reading one of theirs costs a call for every attribute.

    It has the attributes that `codebleu`'s data-flow extractor asks for. There `start_point` and
    `end_point` are only keys, so byte offsets do.
    """

    __slots__ = ("type", "start_point", "end_point", "role", "named", "children", "number")

    def __init__(self, kind: str, start: int, end: int, role: str | None, named: bool) -> None:
        self.type = kind
        self.start_point = start
        self.end_point = end
        self.role = role
        self.named = named  # part of the syntax: no token, comment or docstring
        self.children: list[_Node] = _NONE
        self.number = -1  # of the subtree, once it has one

    def child_by_field_name(self, name: str) -> _Node | None:
        """The first child in the field `name`."""
        return next((child for child in self.children if child.role == name), None)


_NONE: list[_Node] = []  # the children of every token; never added to


class CodeTreeBuilder:
    """Parses texts into `CodeTree`s whose numbers are comparable with each other."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[Any, ...], int] = {}
        self._parser = _python_parser()

    def build(self, code: str, *, with_flow: bool = True) -> CodeTree | None:
        """The tree of `code`, with its data flow or without; None above `CHARACTER_LIMIT`."""
        if len(code) > CHARACTER_LIMIT:
            return None
        source = code.encode("utf-8")
        nodes, within = _copy(self._parser.parse(source))
        _hide_docstrings(nodes)
        subtrees = []
        for node in reversed(nodes):  # children before their parents
            if node.named:
                key: tuple[Any, ...] = (node.type,)
                if node.children:
                    key += tuple((one.role, one.number) for one in node.children if one.number >= 0)
                node.number = self._numbers.setdefault(key, len(self._numbers))
                if node.children or node is nodes[0]:
                    subtrees.append(node.number)
        flow = None
        if with_flow and within:
            flow = data_flow(nodes[0], source) if _may_flow(nodes, source) else Counter()
        return CodeTree(tuple(subtrees), flow)


def syntax_match(candidate: CodeTree, reference: CodeTree) -> float:
    """Share of the reference's subtrees that occur in the candidate (CodeBLEU's Match_ast)."""
    known = set(candidate.subtrees)
    return sum(map(known.__contains__, reference.subtrees)) / len(reference.subtrees)


def flow_match(candidate: CodeTree, reference: CodeTree) -> float | None:
    """Share of the reference's data-flow items found in the candidate (CodeBLEU's Match_df).

    None when the reference has no data flow, or when either side's is out of reach.
    """
    if not reference.flow or candidate.flow is None:
        return None
    return (candidate.flow & reference.flow).total() / reference.flow.total()


def data_flow(root: _Node, source: bytes) -> Counter[Flow]:
    """The normalised data-flow items under `root`, a tree within the limits.

    Variables are numbered in order of appearance, so renaming changes nothing. A tree too broken for
    the extractor (error nodes where it expects a name) has no data flow.
    """
    from codebleu.parser import DFG_python

    extract: Any = DFG_python
    leaves, inner = _leaves(root)
    spans = [(leaf.start_point, leaf.end_point) for leaf in leaves]
    if source.isascii():
        text = source.decode("ascii")
        tokens = [text[start:end] for start, end in spans]
    else:
        tokens = [str(source[start:end], "utf-8", "replace") for start, end in spans]
    by_span = {span: (place, tokens[place]) for place, span in enumerate(spans)}
    _drop_marks(
        inner, {leaf for leaf, token in zip(leaves, tokens, strict=True) if token == leaf.type}
    )
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


def _may_flow(nodes: list[_Node], source: bytes) -> bool:
    """Whether data can flow at all: something is bound or repeated, or some word occurs twice.

    Half of all short references have none of these, and need no extractor to be found empty.
    """
    seen = set()
    for node in nodes:
        if node.type in _LOOPS_AND_BINDINGS:
            return True
        if not node.children and node.type != "comment":
            text = source[node.start_point : node.end_point]
            if text in seen and text != node.type.encode():
                return True
            seen.add(text)
    return False


def _copy(tree: Any) -> tuple[list[_Node], bool]:
    """All nodes in the order of the text, root first; and whether data flow is within the limits."""
    cursor = tree.walk()
    down, onward, up = cursor.goto_first_child, cursor.goto_next_sibling, cursor.goto_parent
    nodes: list[_Node] = []
    open_nodes: list[_Node] = []
    siblings: list[_Node] = []
    loops = most_loops = depth = 0
    while True:
        theirs = cursor.node
        start, end, kind = theirs.start_byte, theirs.end_byte, theirs.type
        # Nodes that the parser made up to repair the text have no width.
        if start == end and theirs.is_missing:
            kind, named = f"MISSING {kind}", True
        else:
            named = theirs.is_named and kind != "comment"
        node = _Node(kind, start, end, cursor.field_name, named)
        siblings.append(node)
        nodes.append(node)
        if down():
            open_nodes.append(node)
            node.children = siblings = []
            depth = max(depth, len(open_nodes))
            if kind in _LOOPS:
                loops += 1
                most_loops = max(most_loops, loops)
            continue
        while not onward():
            if not up():
                within = depth <= FLOW_DEPTH_LIMIT and most_loops <= FLOW_LOOP_LIMIT
                return nodes, within and len(nodes) <= FLOW_NODE_LIMIT
            loops -= open_nodes.pop().type in _LOOPS
            siblings = open_nodes[-1].children if open_nodes else []


def _leaves(root: _Node) -> tuple[list[_Node], list[_Node]]:
    """The tokens of the tree in order, a string literal being one, and the nodes above them."""
    leaves, inner = [], []
    stack = [root]
    while stack:
        node = stack.pop()
        if not node.children or node.type == "string":
            if node.type != "comment":
                leaves.append(node)
        else:
            inner.append(node)
            stack.extend(reversed(node.children))
    return leaves, inner


def _drop_marks(inner: list[_Node], marks: set[_Node]) -> None:
    """Take marks (tokens spelt like their kind: brackets, keywords) away where they say nothing.

    The extractor recurses into each of them to find nothing, which is half of its work. Only the nodes
    in `_READ_BY_PLACE`, and both sides of an assignment, are read by the place or number of children.
    """
    for node in inner:
        if node.type not in _READ_BY_PLACE and node.role not in ("left", "right"):
            # A node left without any child would be taken for a token itself.
            node.children = [one for one in node.children if one not in marks] or node.children


def _hide_docstrings(nodes: list[_Node]) -> None:
    """Take docstrings out of the syntax: lone strings that open a function, class or longer module."""
    root = nodes[0]
    bodies = [child for node in nodes if node.type in _SCOPES for child in node.children]
    for body in [*(body for body in bodies if body.type == "block"), root]:
        first = body.children[0] if body.children else None
        if first is None or first.type != "expression_statement":
            continue
        alone = body is root and not any(child.named for child in body.children[1:])
        if [child.type for child in first.children] == ["string"] and not alone:
            hidden = [first]
            for node in hidden:
                node.named = False
                hidden.extend(node.children)


@lru_cache(maxsize=1)
def _python_parser() -> Any:
    import tree_sitter_python
    from tree_sitter import Language, Parser

    return Parser(Language(tree_sitter_python.language()))
