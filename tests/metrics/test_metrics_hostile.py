"""Hostile texts: no crash, no hang, no dependence on the hash seed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from modern_rlhf.metrics.evaluator import DEFAULT_METRICS, ModernMetricsEvaluator
from modern_rlhf.metrics.ruby import PARTS
from modern_rlhf.metrics.texts import CHARACTER_LIMIT

ROOT = Path(__file__).resolve().parents[2]
TEXT_METRICS = [name for name in DEFAULT_METRICS if name not in ("pass_at_1", "bertscore")]
LIMIT_SECONDS = 1.0

MEGABYTE = 1_000_000
HOSTILE = {
    "nul": "x = \x00 1\x00",
    "only nul": "\x00" * 1000,
    "lone surrogates": "x = '\ud800\udfff'\nprint(\udc80)",
    "megabyte of words": "word " * (MEGABYTE // 5),
    "megabyte of one character": "x" * MEGABYTE,
    "megabyte of brackets": "([{" * (MEGABYTE // 3),
    "megabyte of lines": "x = 1\n" * (MEGABYTE // 6),
    "megabyte of quotes": "'\"" * (MEGABYTE // 2),
    "deep parentheses": "(" * 10_000 + ")" * 10_000,
    "deep open parentheses": "(" * 10_000,
    "deep lists": "[" * 10_000 + "]" * 10_000,
    "deep unary": "-" * 10_000 + "1",
    "deep not": "not " * 10_000 + "x",
    "deep attributes": "a" + ".b" * 10_000,
    "deep calls": "f" + "()" * 10_000,
    "deep sum": "1" + "+1" * 10_000,
    "deep lambda": "lambda:" * 4_000 + "1",
    "deep elif": "if a:\n    pass\n" + "elif b:\n    pass\n" * 2_000,
    "deep blocks": "".join(" " * i + "if a:\n" for i in range(95)) + " " * 95 + "pass",
    "deep loops": "".join(" " * i + "for a in b:\n" for i in range(95)) + " " * 95 + "pass",
    "many loops": "for a in b:\n    c = a\n" * 300,
    "wide assignment": ", ".join(f"a{i}" for i in range(800)) + " = " + ", ".join("b" * 800),
    "line continuations": "\\\n" * 15_000,
    "decorators": "@a\n" * 10_000 + "def f(): pass",
    "tabs and crlf": "if x:\r\n\ty = 1\r\n\tz = 2\r\n",
    "non-ascii": "größe = naïve + 变量\nprint(größe, '🎉')",
    "unbalanced fences": "```python\nx = 1\n``\n```` ```py\ny = (",
    "open fence": "Sure!\n```python\nx = 1",
    "many fences": "```\n" * 5_000,
    "many prompts": ">>> x\n" * 5_000,
    "huge number": "x = 0x" + "f" * 20_000,
    "long decimal": "x = " + "9" * 20_000,
    "control characters": "".join(chr(i) for i in range(32)) * 20,
    "format string": "f'" + "{" * 500 + "x" + "}" * 500 + "'",
}


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    """Imports happen once and are no part of the time a text takes."""
    ModernMetricsEvaluator(metrics=TEXT_METRICS).evaluate(["x = 1"], ["for i in x: y(i)"])


@pytest.mark.parametrize("name", HOSTILE)
def test_no_crash_no_hang(name: str) -> None:
    text = HOSTILE[name]
    evaluator = ModernMetricsEvaluator(metrics=[*TEXT_METRICS, *PARTS], bootstrap_samples=0)
    # CPU time: what else the machine does is not the text's fault.
    start = time.process_time()
    as_prediction = evaluator.evaluate([text], ["x = sorted(y)"])
    seconds = time.process_time() - start
    assert seconds < LIMIT_SECONDS
    start = time.process_time()
    as_both = evaluator.evaluate([text], [text])
    assert time.process_time() - start < LIMIT_SECONDS
    for metric in TEXT_METRICS:
        value, same = as_prediction[metric].value, as_both[metric].value
        assert value is not None and 0.0 <= value <= 1.0
        if metric != "syntax_valid" and text.strip():
            assert same == pytest.approx(1.0), metric


def test_tools_survive_all_of_them_at_once() -> None:
    import resource

    def cpu() -> float:
        who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        return sum(sum(resource.getrusage(one)[:2]) for one in who)

    names = ("complexity", "style", "safety", "codebleu_package")
    texts = list(HOSTILE.values())
    evaluator = ModernMetricsEvaluator(metrics=names, bootstrap_samples=0)
    start = cpu()
    report = evaluator.evaluate(texts, texts)
    assert cpu() - start < LIMIT_SECONDS * len(texts)
    for name in names:
        # No text takes the others down with it: some have a value, by name.
        assert report[name].reason is None
        assert report[name].n >= 5, name


@pytest.mark.slow
def test_no_text_stops_the_encoder() -> None:
    pytest.importorskip("torch")
    evaluator = ModernMetricsEvaluator(metrics=["bertscore"], bootstrap_samples=0)
    evaluator.evaluate(["x"], ["x"])
    for name, text in HOSTILE.items():
        start = time.process_time()
        value = evaluator.evaluate([text], [text])["bertscore"].value
        assert time.process_time() - start < LIMIT_SECONDS, name
        assert value == pytest.approx(1.0, abs=1e-5), name


def test_truncation_is_told() -> None:
    evaluator = ModernMetricsEvaluator(metrics=["bleu"], bootstrap_samples=0)
    report = evaluator.evaluate(["x" * (CHARACTER_LIMIT + 1), "x"], ["x", "x"])
    assert report.extraction["truncated"] == 1


SCRIPT = """
import json, sys
from modern_rlhf.metrics.evaluator import ModernMetricsEvaluator
pairs = json.load(sys.stdin)
names = sys.argv[1].split(",")
report = ModernMetricsEvaluator(metrics=names, bootstrap_samples=200).evaluate(*zip(*pairs))
print(json.dumps(report.to_dict(), sort_keys=True))
"""


def test_nothing_depends_on_the_hash_seed() -> None:
    loop = "for a, b in c:\n    d = a + b\n    a, b = b, d\nwhile d:\n    d = a + b + c"
    other = "for k, v in z:\n    w = v + k\n    k = w\nwhile w:\n    w = k + z + v"
    pairs = [[loop, other], [other, loop], ["x = {a, b, c}", "x = {c, b, a}"], ["x", "y = x"]]
    names = ",".join([*TEXT_METRICS, *PARTS, "codebleu_package"])
    outputs = []
    for seed in ("1", "2", "3"):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, names],
            input=json.dumps(pairs),
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
        )
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1] == outputs[2]
