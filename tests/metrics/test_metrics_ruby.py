"""RUBY: strings, both tree distances, graphs, and the mode that travels with the score."""

from __future__ import annotations

import ast
import random
import time
from functools import cache
from typing import Any

import pytest
from scipy.stats import pearsonr

from modern_rlhf.metrics.evaluator import ModernMetricsEvaluator
from modern_rlhf.metrics.ruby import (
    PARTS,
    Program,
    ruby_score,
    ruby_scores,
    string_similarity,
    tree_similarity,
    true_tree_similarity,
)
from modern_rlhf.metrics.ruby_graphs import NODE_LIMIT, graph_similarity, program_graph
from modern_rlhf.metrics.ruby_trees import LabelledTree, labelled_tree, tree_edit_distance


def graph(code: str) -> Any:
    return program_graph(ast.parse(code))


@pytest.mark.parametrize(
    ("reference", "prediction", "value"),
    [
        ("x = (1", "x = 1", 0.75),
        ("x.sort()", "you should sort the list", 0.2),
        ("sys.exit(1)", "sys.exit(`1`)", 0.75),
        ("x = (", "y = (", 2 / 3),
    ],
)
def test_published_string_mode_values(reference: str, prediction: str, value: float) -> None:
    score = ruby_score(Program(reference), Program(prediction))
    assert (score.mode, score.limited) == ("string", False)
    assert score.value == pytest.approx(value)


@pytest.mark.parametrize(
    ("reference", "prediction", "sts", "trs"),
    [
        ("x = 1", "x = 2", 0.666667, 0.944444),
        ("os.getcwd()", "os.listdir()", 0.8, 0.944444),
        ("print(a)", "print(a, b)", 0.666667, 0.857143),
        ("[i for i in x]", "[j for j in x]", 0.714286, 0.928571),
    ],
)
def test_published_string_and_tree_values(
    reference: str, prediction: str, sts: float, trs: float
) -> None:
    a, b = Program(reference), Program(prediction)
    assert string_similarity(a.tokens, b.tokens) == pytest.approx(sts, abs=5e-7)
    assert tree_similarity(a, b) == pytest.approx(trs, abs=5e-7)


def test_parts_as_metrics_of_their_own() -> None:
    evaluator = ModernMetricsEvaluator(metrics=list(PARTS), bootstrap_samples=0)
    predictions = ["x = 2", "", "sys.exit(`1`)", "x = 1"]
    references = ["x = 1", "x = 1", "sys.exit(1)", ["y.z()", "x = 1"]]
    found = evaluator.evaluate(predictions, references, extract=False)
    assert found["ruby_string"].per_item == pytest.approx([2 / 3, 0.0, 0.75, 1.0])
    # Trees of 9 nodes, one label apart in both distances; code that does not parse has no tree.
    for name in ("ruby_tree", "ruby_tree_edit"):
        assert found[name].per_item == [pytest.approx(17 / 18), 0.0, None, 1.0]
    # Graphs of 5, one relabelling.
    assert found["ruby_graph"].per_item == [pytest.approx(0.9), 0.0, None, 1.0]
    assert found["ruby_graph"].n == 3


def test_true_tree_distance_is_refused_by_its_cost_not_by_size() -> None:
    nested = "(".join(["f"] * 60) + ")" * 59
    changed = "(".join(["g"] * 60) + ")" * 59
    flat = "\n".join(["x"] * 60)
    start = time.process_time()
    assert true_tree_similarity(Program(nested), Program(changed)) is None
    assert true_tree_similarity(Program(flat), Program(flat + "\ny")) is not None
    assert true_tree_similarity(Program(nested), Program(nested)) == 1.0
    assert time.process_time() - start < 1.0


def test_empty_texts() -> None:
    both = ruby_score(Program(""), Program(""))
    assert (both.value, both.mode) == (1.0, "tree")
    one = ruby_score(Program(""), Program("x = 1"))
    assert (one.value, one.mode) == (0.0, "graph")
    assert string_similarity([], []) == 1.0
    assert string_similarity([], ["x"]) == 0.0
    assert ruby_scores(["", " "], [["x"], ["x"]]).per_item == [0.0, 0.0]


PROGRAMS = [
    "x",
    "x = 1",
    "[i for i in x if i not in y]",
    "def f(a, *b, c=1, **d):\n    try:\n        return a\n    except E as e:\n        raise e",
    "for i in range(3):\n    s += i\n    if s: break\nelse:\n    print(s)",
    "with open(p) as f, g() as h:\n    d = {k: v for k, v in f}\nwhile d: d.pop()",
    "f = lambda q: (yield q)\nx = y = f'{x!r:>{w}}'\ndel x, y[0], y.z",
    "async def f():\n    async for a in b:\n        await a\n    global g; nonlocal h",
    "class A(B, metaclass=C):\n    x: int = 1\n    @p\n    def m(self): return self.x",
    "x = 0x" + "f" * 5000,
    "match a:\n    case [1, *r] if r: pass\n    case {'k': v, **w}: pass\n    case A(b=c) | None: pass",
]


def test_identical_is_one_in_every_way() -> None:
    for text in PROGRAMS:
        score = ruby_score(Program(text), Program(text))
        assert (score.value, score.mode) == (1.0, "graph"), text
        assert tree_similarity(Program(text), Program(text)) == 1.0
        assert true_tree_similarity(Program(text), Program(text)) == 1.0


def test_graph_renaming_a_local_changes_nothing_renaming_a_free_name_does() -> None:
    assert graph_similarity(graph("a = g(b)\nh(a)"), graph("c = g(b)\nh(c)")) == 1.0
    changed = graph_similarity(graph("a = g(b)"), graph("a = g(c)"))
    assert changed is not None and changed < 1.0


def test_graph_arithmetic_by_hand() -> None:
    # `x = 1`: nodes Assign, int 1, variable; edges 1 -> Assign, variable -> Assign.
    one = graph("x = 1")
    assert sorted(one.labels) == ["Assign", "int 1", "variable"]
    assert len(one.edges) == 2
    # One relabelling over 3 + 2 + 3 + 2.
    assert graph_similarity(one, graph("x = 2")) == pytest.approx(1 - 1 / 10)
    # Deleting both nodes and the two edges of `y = ` + nothing to insert: `1` alone is Expr, int.
    assert graph_similarity(one, graph("")) == 0.0


def test_graph_similarity_is_symmetric() -> None:
    graphs = [graph(text) for text in PROGRAMS]
    for a in graphs:
        for b in graphs:
            assert graph_similarity(a, b) == graph_similarity(b, a)


def test_definition_edges_tell_which_variable_is_used() -> None:
    straight = graph("a = f()\nb = g()\nh(a)")
    crossed = graph("a = f()\nb = g()\nh(b)")
    assert straight.labels == crossed.labels
    assert straight.edges != crossed.edges
    # The least is one definition edge to delete and one to insert; the bound may miss it by one pair.
    similarity, size = graph_similarity(straight, crossed), straight.size + crossed.size
    assert similarity is not None
    assert 1 - 4 / size <= similarity <= 1 - 2 / size


def test_use_before_definition_is_linked_inside_a_loop_only() -> None:
    looped = graph("while c:\n    f(a)\n    a = 1")
    plain = graph("f(a)\na = 1")
    assert sum(kind == 1 for kind, _, _ in looped.edges) == 1
    assert sum(kind == 1 for kind, _, _ in plain.edges) == 0


def test_bounded_distance_is_never_below_the_true_graph_edit_distance() -> None:
    networkx = pytest.importorskip("networkx")

    def as_networkx(one: Any) -> Any:
        result = networkx.MultiDiGraph()
        for node, label in enumerate(one.labels):
            result.add_node(node, label=label)
        for kind, source, target in one.edges:
            result.add_edge(source, target, key=kind, kind=kind)
        return result

    texts = ["x = 1", "x = y", "f(x)", "x.f()", "x[1]"]
    gaps = []
    for first in texts:
        for second in texts:
            a, b = graph(first), graph(second)
            exact = networkx.graph_edit_distance(
                as_networkx(a),
                as_networkx(b),
                node_match=lambda u, v: u["label"] == v["label"],
                # Relabelling an edge costs a deletion and an insertion here, so forbid it.
                edge_subst_cost=lambda u, v: 0 if u == v else 2,
            )
            similarity = graph_similarity(a, b)
            assert similarity is not None
            bound = round((1 - similarity) * (a.size + b.size), 9)
            assert bound >= exact - 1e-9
            gaps.append(bound - exact)
    # The bound is tight on most of these small graphs.
    assert sum(gap == 0 for gap in gaps) >= 0.7 * len(gaps)


def brute_force_distance(a: LabelledTree, b: LabelledTree) -> int:
    """Tree edit distance by the textbook recursion over ordered forests (memoised)."""

    def nested(tree: LabelledTree) -> Any:
        stack: list[Any] = []
        for place, label in enumerate(tree.labels):
            size = place - tree.leftmost[place]
            children: list[Any] = []
            taken = 0
            while taken < size:
                child = stack.pop()
                children.insert(0, child)
                taken += child[2]
            stack.append((label, tuple(children), size + 1))
        return tuple(stack)

    @cache
    def distance(one: Any, two: Any) -> int:
        if not one or not two:
            return sum(tree[2] for tree in (*one, *two))
        (label_a, children_a, _), (label_b, children_b, _) = one[-1], two[-1]
        return min(
            distance((*one[:-1], *children_a), two) + 1,
            distance(one, (*two[:-1], *children_b)) + 1,
            distance(one[:-1], two[:-1]) + distance(children_a, children_b) + (label_a != label_b),
        )

    return distance(nested(a), nested(b))


def test_true_tree_distance_equals_the_textbook_recursion() -> None:
    texts = ["x = 1", "x = y", "f(x)", "x.sort()", "sorted(x)", "pass", "a\nb", "-x"]
    trees = [labelled_tree(ast.parse(text)) for text in texts]
    for a in trees:
        for b in trees:
            assert tree_edit_distance(a, b) == brute_force_distance(a, b)


def test_closed_form_bounds_the_true_tree_similarity_from_above() -> None:
    draw = random.Random(0)
    for _ in range(20):
        a, b = Program(draw.choice(PROGRAMS[:6])), Program(draw.choice(PROGRAMS[:6]))
        closed, true = tree_similarity(a, b), true_tree_similarity(a, b)
        assert closed is not None and true is not None and true <= closed + 1e-12


def test_large_programs_fall_back_by_name() -> None:
    wide = "\n".join(f"x{i} = {i}" for i in range(NODE_LIMIT))
    score = ruby_score(Program(wide), Program("x = 1"))
    assert (score.mode, score.limited) == ("tree", True)
    result = ruby_scores([wide], [[wide]])
    assert result.per_item == [1.0]
    assert result.details["modes"] == {"tree": 1}
    assert result.details["size_limited"] == 1


def test_best_reference_with_its_mode() -> None:
    result = ruby_scores(["x.sort()", "x"], [["x = (", "x.sort()"], []])
    assert result.per_item == [1.0, None]
    assert result.details["mode_per_item"] == ["graph", None]


def test_stored_values_of_the_graded_set(graded_rows: list[dict[str, Any]]) -> None:
    strings = trees = 0
    for row in graded_rows:
        prediction = Program(row["hyp"])
        for text, stored in zip(row["refs"], row["per_ref"], strict=True):
            reference = Program(text)
            similarity = string_similarity(reference.tokens, prediction.tokens)
            assert similarity == pytest.approx(stored["sts"], abs=1e-6)
            by_tree = tree_similarity(reference, prediction)
            if stored["trs"] is None:
                assert by_tree is None
            else:
                assert by_tree == pytest.approx(stored["trs"], abs=1e-6)
                trees += 1
            if len(row["refs"]) == 1 and stored["mode"] == "string":
                score = ruby_score(reference, prediction)
                assert score.mode == "string"
                assert score.value == pytest.approx(row["ruby"], abs=5.01e-4)
                strings += 1
    assert (strings, trees) == (530, 671)


def test_graph_mode_agrees_with_the_published_scores(graded_rows: list[dict[str, Any]]) -> None:
    ours = ruby_scores([r["hyp"] for r in graded_rows], [r["refs"] for r in graded_rows]).per_item
    stored = [row["ruby"] for row in graded_rows]
    human = [row["human"] for row in graded_rows]
    assert pearsonr(ours, stored)[0] > 0.9
    assert pearsonr(ours, human)[0] == pytest.approx(pearsonr(stored, human)[0], abs=0.02)


def test_worked_examples(ruby_examples: list[dict[str, Any]]) -> None:
    for one in ruby_examples:
        a, b = Program(one["ref"]), Program(one["hyp"])
        assert ruby_score(a, b).mode == one["ruby"][1], one["name"]
        assert string_similarity(a.tokens, b.tokens) == pytest.approx(one["STS"])
        assert tree_similarity(a, b) == (None if one["TRS"] is None else pytest.approx(one["TRS"]))
