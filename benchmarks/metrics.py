"""Speed of the metrics: ratios against other implementations in one run, and the leak check's memory.

    python -m benchmarks.metrics [--pairs 2360] [--rounds 3] [--workers 2] [--rows 598237]
        [--out result.json]

1. All text metrics of this package on N pairs, 95% bootstrap intervals included, against calling
   nltk (sentence BLEU), rouge_score, codebleu and a naive RUBY one after another, pair by pair. The
   naive RUBY parses each pair anew, fills the Levenshtein table in Python and takes the first graph
   edit path that networkx offers, on this package's graphs. `own_ruby` ratios replace that graph
   distance by this package's own, so that only the calling pair by pair remains naive.
   The others are timed by their CPU seconds (what they take alone on a core), this package by the
   clock on `--workers` cores, the start of its processes included (`ratio`, `ratio_own_ruby`), and by
   its CPU seconds on one (`ratio_one_core`, ...). On a machine with other work the clock counts that
   work against us alone; `cpu_seconds_of_all_processes` does not. Rounds alternate; a ratio is the median of the rounds', `best` the largest.
   Values are compared first: both sides must agree on BLEU, ROUGE and RUBY (with its own graphs), and
   one core with several.
2. The near-duplicate filter over a stream of generated rows as long as CoNaLa's mined set, against
   500 evaluation texts: rows a second, and the growth of the peak memory over a tenth of the stream.

The pairs are generated (no data is needed): snippets of one to six lines with renamed, dropped or
replaced parts, all distinct, so that caching by text gains nothing it would not gain on real answers.
"""

from __future__ import annotations

import argparse
import ast
import json
import logging
import os
import platform
import random
import resource
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from modern_rlhf.honesty import overlap_check
from modern_rlhf.metrics.evaluator import ModernMetricsEvaluator
from modern_rlhf.metrics.exact import parse_python
from modern_rlhf.metrics.ruby_graphs import ProgramGraph, graph_similarity, program_graph
from modern_rlhf.metrics.ruby_trees import label_similarity, labelled_tree
from modern_rlhf.metrics.texts import code_tokens

TEXT_METRICS = (
    "bleu",
    "sentence_bleu",
    "chrf",
    "rouge",
    "rouge1",
    "rouge2",
    "codebleu",
    "ruby",
    "exact_match",
    "syntax_valid",
)
MINED_ROWS = 598_237
EVAL_TEXTS = 500

_LINES = (
    "{a} = [{b} for {b} in {c} if {b} > {n}]",
    "{a} = {{{b}: {c}[{b}] for {b} in {c}}}",
    "{a} = sorted({b}, key=lambda {c}: {c}[{n}], reverse=True)",
    "{a} = re.findall('{c}', {b})",
    "{a} = {b}.groupby('{c}').{f}().reset_index()",
    "print('{c}'.join(str({a}) for {a} in {b}))",
    "{a}.{f}(os.path.join({b}, '{c}'))",
    "for {a} in range({n}): {b}.append({a} * {c})",
    "with open({a}, 'r') as {b}: {c} = {b}.read().{f}()",
    "{a} = dict(zip({b}, {c}))",
    "if {a} not in {b}: {b}[{a}] = {c}",
    "{a} = np.array({b}).reshape({n}, -1)[:, {c}]",
)
_NAMES = [
    "data",
    "items",
    "rows",
    "text",
    "value",
    "name",
    "path",
    "df",
    "result",
    "x",
    "y",
    "key",
    "total",
    "index",
    "words",
    "lines",
]
_CALLS = [
    "sort",
    "strip",
    "sum",
    "mean",
    "split",
    "join",
    "lower",
    "update",
    "insert_all",
    "readlines",
]


def snippets(count: int, seed: int) -> list[tuple[str, str]]:
    """`count` distinct (prediction, reference) pairs; about one prediction in six does not parse."""
    draw = random.Random(seed)
    pairs: dict[tuple[str, str], None] = {}
    while len(pairs) < count:
        lines = [_line(draw, draw.choice(_LINES)) for _ in range(draw.choice((1, 1, 1, 1, 2, 6)))]
        reference = "\n".join(lines)
        prediction = reference
        for _ in range(draw.randint(1, 3)):
            prediction = prediction.replace(draw.choice(_NAMES), draw.choice(_NAMES))
        if draw.random() < 0.3:
            prediction = "\n".join([*lines[1:], _line(draw, draw.choice(_LINES))])
        if draw.random() < 0.17:
            prediction = prediction.replace("(", "((", 1).replace("'", "`")
        pairs[prediction, reference] = None
    return list(pairs)


def _line(draw: random.Random, template: str) -> str:
    a, b, c = (f"{name}{draw.randint(0, 99)}" for name in draw.sample(_NAMES, 3))
    return template.format(a=a, b=b, c=c, f=draw.choice(_CALLS), n=draw.randint(0, 50))


def plain_levenshtein(a: Sequence[str], b: Sequence[str]) -> int:
    """The textbook table, a row at a time."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        above, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (x != y))
    return row[-1]


def networkx_similarity(a: ProgramGraph, b: ProgramGraph) -> float | None:
    """Graph similarity by the first edit path of networkx, as RUBY's public implementation does."""
    import networkx

    built = []
    for graph in (a, b):
        one = networkx.DiGraph()
        one.add_nodes_from((node, {"label": label}) for node, label in enumerate(graph.labels))
        one.add_edges_from((u, v, {"kind": kind}) for kind, u, v in graph.edges)
        built.append(one)
    total = sum(graph.number_of_nodes() + graph.number_of_edges() for graph in built)
    paths = networkx.optimize_graph_edit_distance(
        *built,
        node_match=lambda u, v: u["label"] == v["label"],
        edge_match=lambda u, v: u["kind"] == v["kind"],
    )
    return 1 - next(paths) / total if total else None


def naive_ruby(
    prediction: str,
    reference: str,
    similarity: Callable[[ProgramGraph, ProgramGraph], float | None],
) -> float:
    """RUBY of one pair, every stage computed, nothing shared between pairs."""
    mine, theirs = code_tokens(prediction), code_tokens(reference)
    strings = 1 - plain_levenshtein(mine, theirs) / max(len(mine), len(theirs), 1)
    trees: list[ast.Module] = []
    for text in (prediction, reference):
        tree = parse_python(text)
        if tree is None:
            return strings
        trees.append(tree)
    labels = [Counter(labelled_tree(tree).labels) for tree in trees]
    by_tree = label_similarity(labels[0], labels[1])
    graphs = [program_graph(tree) for tree in trees]
    if graphs[0] is None or graphs[1] is None:
        return by_tree
    by_graph = similarity(graphs[0], graphs[1])
    return by_tree if by_graph is None else by_graph


def one_after_another(pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Means of the other implementations, called pair by pair; and their CPU seconds by name."""
    from codebleu import calc_codebleu
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
    from rouge_score.rouge_scorer import RougeScorer

    class Tokens:
        def tokenize(self, text: str) -> list[str]:
            return code_tokens(text)

    smoothing = SmoothingFunction().method3
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=Tokens())
    calls: dict[str, Callable[[str, str], float]] = {
        "nltk": lambda p, r: float(
            sentence_bleu(
                [code_tokens(r)], code_tokens(p), smoothing_function=smoothing, auto_reweigh=True
            )
        ),
        "rouge_score": lambda p, r: float(scorer.score(r, p)["rougeL"].fmeasure),
        "codebleu": lambda p, r: float(calc_codebleu([[r]], [p], "python")["codebleu"]),
        "ruby": lambda p, r: naive_ruby(p, r, networkx_similarity),
        "own_ruby": lambda p, r: naive_ruby(p, r, graph_similarity),
    }
    found: dict[str, float] = {}
    for name, call in calls.items():
        start = time.process_time()
        found[name] = statistics.fmean(call(p, r) for p, r in pairs)
        found[f"{name}_seconds"] = time.process_time() - start
    return found


def compare_speed(count: int, rounds: int, workers: int) -> dict[str, Any]:
    """Ratios of time, others over ours, on `count` pairs."""
    logging.disable(logging.WARNING)
    one_core = ModernMetricsEvaluator(metrics=TEXT_METRICS, workers=1)
    several = ModernMetricsEvaluator(metrics=TEXT_METRICS, workers=workers)
    warm = snippets(20, seed=1)
    one_core.evaluate(*zip(*warm, strict=True), extract=False)
    one_after_another(warm)
    pairs = snippets(count, seed=0)
    predictions, references = zip(*pairs, strict=True)
    timed: dict[str, list[float]] = {"one_core": [], "clock": [], "all_processes": []}
    ratios: dict[str, list[float]] = {}
    others: dict[str, float] = {}
    for _ in range(rounds):
        start = time.process_time()
        report = one_core.evaluate(predictions, references, extract=False)
        timed["one_core"].append(time.process_time() - start)
        start, cpu = time.perf_counter(), _cpu_of_all()
        same = several.evaluate(predictions, references, extract=False)
        timed["clock"].append(time.perf_counter() - start)
        timed["all_processes"].append(_cpu_of_all() - cpu)
        if same != report:
            raise SystemExit(f"{workers} cores and one do not agree")
        others = one_after_another(pairs)
        packages = sum(others[f"{name}_seconds"] for name in ("nltk", "rouge_score", "codebleu"))
        for ending, ruby in (("", "ruby_seconds"), ("_own_ruby", "own_ruby_seconds")):
            theirs = packages + others[ruby]
            ratios.setdefault(f"ratio{ending}", []).append(theirs / timed["clock"][-1])
            ratios.setdefault(f"ratio{ending}_one_core", []).append(theirs / timed["one_core"][-1])
    for name, metric in (("nltk", "sentence_bleu"), ("rouge_score", "rouge"), ("own_ruby", "ruby")):
        mine = report[metric].value
        if mine is None or abs(mine - others[name]) > 1e-9:
            raise SystemExit(f"{metric}: {mine} here, {others[name]} there; not the same work")
    return {
        "pairs": count,
        "rounds": rounds,
        "workers": workers,
        "seconds_on_one_core": statistics.median(timed["one_core"]),
        "clock_seconds": timed["clock"],
        "cpu_seconds_of_all_processes": timed["all_processes"],
        "others": others,
        **{name: statistics.median(values) for name, values in ratios.items()},
        "best": {name: max(values) for name, values in ratios.items()},
    }


def _cpu_of_all() -> float:
    """CPU seconds of this process and of those it has waited for."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(sum(resource.getrusage(one)[:2]) for one in who)


def mined(rows: int) -> Iterator[str]:
    """A stream of generated intents, as many as asked for."""
    draw = random.Random(2)
    words = [
        f"{a}{b}" for a in ("list", "file", "sum", "re", "dict", "col", "path") for b in range(90)
    ]
    for _ in range(rows):
        yield " ".join(draw.choices(words, k=draw.randint(5, 16)))


def measure_filter(rows: int) -> dict[str, Any]:
    """Rows a second of the near-duplicate filter, and how its peak memory grows with the stream."""
    targets = list(mined(EVAL_TEXTS))

    def peak() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    overlap_check(mined(rows // 10), targets)
    before = peak()
    start = time.process_time()
    found = overlap_check(mined(rows), targets)
    seconds = time.process_time() - start
    return {
        "rows": rows,
        "seconds": seconds,
        "rows_a_second": rows / seconds,
        "peak_memory_growth_kib": peak() - before,
        "eval_items_found": found["evidence"]["eval_items_exact"],
    }


def main() -> None:
    """Run both parts and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=2360)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rows", type=int, default=MINED_ROWS)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    result = {
        "machine": {"processor": platform.processor(), "cores": os.cpu_count()},
        "python": platform.python_version(),
        "speed": compare_speed(given.pairs, given.rounds, given.workers),
        "filter": measure_filter(given.rows),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if given.out is not None:
        given.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
