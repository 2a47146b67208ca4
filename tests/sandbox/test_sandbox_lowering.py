"""Tests turned into data, and tests run as code, give the same verdicts."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from modern_rlhf.sandbox.calibrate import stub
from modern_rlhf.sandbox.executor import SandboxExecutor
from modern_rlhf.sandbox.runtime import lower, scripts, suite
from modern_rlhf.sandbox.types import Program

MBPP = Path(__file__).resolve().parents[3] / "shared" / "data" / "mbpp" / "mbpp-train.jsonl"


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("-3", -3), ("[1, (2, {'a': {1, 2}})]", [1, (2, {"a": {1, 2}})]), ("10**9 + 7", 10**9 + 7),
        ("set()", set()), ("1e-3", 0.001), ("'a' 'b'", "ab"), ("2 - 1j", 2 - 1j),
    ],
)  # fmt: skip
def test_literals(source: str, value: Any) -> None:
    assert lower.literal(ast.parse(source, mode="eval").body) == value


@pytest.mark.parametrize(
    "source", ["x", "f()", "9**9**9", "'a' * 10**9", "[x for x in y]", "{**a}", "1 << 99", "a.b"]
)
def test_what_is_not_a_literal(source: str) -> None:
    with pytest.raises(lower.NotLowered):
        lower.literal(ast.parse(source, mode="eval").body)


@pytest.mark.parametrize(
    "test",
    [
        "assert abs(f(1)) == 1", "x = 1\nassert f(1) == 1", "assert f(x) == 1", "for i in y: pass",
        "assert 1 in f(1)", "assert f(1) == g(1)", "assert f(1) is 1", "assert len([1]) == 1",
        "import os\nassert f(1) == 1", "assert f(*[1]) == 1", "assert f(1) == 1 and f(2) == 2",
    ],
)  # fmt: skip
def test_code_is_not_lowered(test: str) -> None:
    assert lower.lower(test, "", "f", "assert") is None


def test_only_the_entry_point_may_shadow_a_builtin() -> None:
    assert lower.lower("assert sum(1, 2) == 3", "", "sum", "assert") is not None
    assert suite.parse("assert abs(f(1)) == 1", "", "f", "assert").names == ["f"]
    assert "sum" in suite.parse("assert sum(1, 2) == 3", "", None, "assert").names


def test_data_methods_are_no_evidence_of_a_class() -> None:
    assert suite.parse("r = f(1)\nr.sort()\nassert r == []", "", "f", "assert").constructed == []
    assert suite.parse("r = F(1)\nr.push(1)", "", "F", "assert").constructed == ["F"]


CANDIDATES = {
    "right": "def f(a, b=1):\n    return [a] * b",
    "wrong": "def f(a, b=1):\n    return [a]",
    "tuple": "def f(a, b=1):\n    return (a,) * b",
    "none": "def f(a, b=1):\n    return None",
    "true": "def f(a, b=1):\n    return True",
    "object": "def f(a, b=1):\n    return object()",
    "generator": "def f(a, b=1):\n    yield a",
    "raises": "def f(a, b=1):\n    raise ValueError(a)",
    "stops": "def f(a, b=1):\n    raise StopIteration",
    "mutates": "def f(a, b=1):\n    a.clear()\n    return a",
    "missing": "def g(a): return a",
    "exits": "import os\ndef f(a, b=1):\n    os._exit(0)",
    "late_exit": "import os\nn = 0\ndef f(a, b=1):\n    global n\n    n += 1\n    if n > 1: os._exit(0)\n"
    "    return [a] * b",
}
TESTS = (
    "assert f(1) == [1]", "assert f(2, b=2) == [2, 2]", "assert f([1]) != [2]", "assert not f(1, 0)",
    "assert f('a')", "assert f(1) is not None", "assert f(3) > [2]", "assert [1] == f(1)",
)  # fmt: skip


def as_code(test: str) -> str:
    """The same test in a form that has to be run."""
    return test.replace("assert ", "assert (lambda: True)() and ", 1)


def test_both_ways_agree_on_odd_candidates() -> None:
    assert all(lower.lower(test, "", "f", "assert") for test in TESTS)
    assert not any(lower.lower(as_code(test), "", "f", "assert") for test in TESTS)
    pairs = [(code, test) for code in CANDIDATES.values() for test in TESTS]
    data = [Program(code, (test,), "f") for code, test in pairs]
    code = [Program(code, (as_code(test),), "f") for code, test in pairs]
    with SandboxExecutor(workers=2) as executor:
        found = executor.run([*data, *code])
    lowered, run = found[: len(pairs)], found[len(pairs) :]
    different = [
        (pair, a.verdict, b.verdict)
        for pair, a, b in zip(pairs, lowered, run, strict=True)
        if a.verdict != b.verdict
    ]
    assert different == []
    assert {"pass", "fail", "crash"} <= {result.verdict for result in lowered}


@pytest.mark.slow
def test_mbpp_references_pass_stubs_fail_and_both_ways_agree() -> None:
    if not MBPP.exists():
        pytest.skip("shared/data/mbpp is not beside this checkout")
    rows = [json.loads(line) for line in MBPP.read_text(encoding="utf-8").splitlines()]
    with SandboxExecutor(timeout=10) as executor:
        groups = []
        for code in (lambda r: r["code"], lambda r: stub(r["code"])):
            for shape in (lambda t: t, as_code):
                programs = [
                    Program(code(r), [shape(t) for t in r["test_list"]], setup=r["test_setup_code"])
                    for r in rows
                ]
                groups.append([result.verdict for result in executor.run(programs)])
    assert groups[0] == groups[1] == ["pass"] * len(rows)
    assert "pass" not in groups[2] and "pass" not in groups[3] and groups[2] == groups[3]


def test_outputs_of_scripts() -> None:
    assert scripts.same_text(b"5 \n6\n\n", "5\n6")
    assert not scripts.same_text(b"5\n", "5\n6") and not scripts.same_text(b"5\n6\n7", "5\n6")
    assert not scripts.same_text(b"\xff", "5") and not scripts.same_text(b" 5", "5")
    assert scripts.cases('{"inputs": ["a"], "outputs": ["b"]}') == [("a", "b")]
    with pytest.raises(ValueError):
        scripts.cases('{"inputs": ["a"], "outputs": []}')


def test_json_comparison_knows_booleans_from_numbers() -> None:
    same = lower._same_as_json
    assert same((1, 2), [1, 2]) and same({1: 2}, {"1": 2}) and same(1, 1.0)
    assert not same(True, 1) and not same(1, True) and not same([1], [1, 2]) and not same(0, None)
