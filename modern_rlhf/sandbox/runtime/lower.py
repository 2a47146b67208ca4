"""Tests that are data become data: no test code has to run for `assert f(1, 2) == 3`.

Most tests compare a call with literal arguments to a literal. Such a suite is *lowered* to a list
of calls, sent to the candidate in one frame, and a list of checks that the judge makes itself on
the decoded values: no tester process, no round trip a call. HumanEval's `check(candidate)` with such
asserts is lowered as well, and stays one test. What cannot be lowered without changing its meaning
goes to `tester.py`; a test holds that both ways give the same verdicts.
"""

from __future__ import annotations

import ast
import builtins
import json
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from modern_rlhf.sandbox.runtime.values import Decoder, Encoder, ValueRefused

_COMPARE: dict[type, Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
}
_MAX_POWER = 64


class NotLowered(Exception):
    """The tests need code to run."""


@dataclass(frozen=True)
class Check:
    """One comparison: `compare(value, expected)`, or with `flip` the other way round.

    With `apart` it is `abs(value - apart)` that is compared.
    """

    source: str
    compare: Callable[[Any, Any], Any]
    expected: Any
    flip: bool = False
    apart: Any = None

    def holds(self, value: Any) -> bool:
        """Whether the value passes; a comparison that raises does not."""
        try:
            if self.apart is not None:
                value = abs(value - self.apart)
            if self.flip:
                return bool(self.compare(self.expected, value))
            return bool(self.compare(value, self.expected))
        except Exception:  # noqa: BLE001 - a comparison that raises does not hold
            return False


@dataclass(frozen=True)
class Lowered:
    """Calls as the candidate reads them, and a check for each; `together` they are one test, whose
    verdict is that of the first check that does not hold (HumanEval's `check(candidate)`)."""

    calls: list[list[Any]]
    checks: list[Check]
    together: bool = False


class Unknown:
    """An object of the candidate that has no data form: equal to nothing, true in itself."""


def _unknown(tag: str, payload: Any) -> Any:
    if tag != "handle":
        raise ValueRefused(f"unknown tag {tag}")
    return Unknown()


decode = Decoder(_unknown)
"""Values of candidates, where no handle is of use."""


def literal(node: ast.expr) -> Any:
    """The value of a literal, with signs, `set()` and small constant arithmetic.

    Raises:
        NotLowered: it is not one.
    """
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.List):
        return [literal(item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(literal(item) for item in node.elts)
    if isinstance(node, ast.Set):
        return {literal(item) for item in node.elts}
    if isinstance(node, ast.Dict):
        if any(key is None for key in node.keys):
            raise NotLowered
        keys = [literal(key) for key in node.keys if key is not None]
        return dict(zip(keys, [literal(item) for item in node.values], strict=True))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = literal(node.operand)
        if type(value) in (int, float, complex):
            return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp):
        return _arithmetic(node)
    if _is_empty_set(node):
        return set()
    raise NotLowered


def _arithmetic(node: ast.BinOp) -> Any:
    left, right = literal(node.left), literal(node.right)
    numbers = (int, float, complex)
    if type(left) not in numbers or type(right) not in numbers:
        raise NotLowered
    if isinstance(node.op, ast.Add):
        return left + right
    if isinstance(node.op, ast.Sub):
        return left - right
    if isinstance(node.op, ast.Mult):
        return left * right
    whole = type(left) is int and type(right) is int
    if isinstance(node.op, ast.Pow) and whole and 0 <= right <= _MAX_POWER and abs(left) <= 1 << 16:
        return left**right
    raise NotLowered


def _is_empty_set(node: ast.expr) -> bool:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        return False
    return node.func.id == "set" and not node.args and not node.keywords


class _Lowering:
    def __init__(self, entry_point: str | None) -> None:
        self.entry_point = entry_point
        self.candidate: str | None = None
        """The parameter that stands for the entry point inside `check`."""
        self.encode = Encoder()
        self.calls: list[list[Any]] = []
        self.checks: list[Check] = []

    def statement(self, source: str, statement: ast.stmt) -> None:
        if isinstance(statement, ast.Import):
            if all(alias.name in _HARMLESS for alias in statement.names):
                return
            raise NotLowered
        if not isinstance(statement, ast.Assert):
            raise NotLowered
        if self.candidate is not None and isinstance(statement.test, ast.Constant):
            if statement.test.value is True:
                return  # HumanEval's `assert True, "..."`
            raise NotLowered
        test, negated = statement.test, False
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            test, negated = test.operand, True
        if isinstance(test, ast.Call):
            self._call(test)
            truth = operator.is_not if negated else operator.is_
            # bool(value) is True, or is not True
            self.checks.append(Check(source, lambda v, e: truth(bool(v), e), True))
            return
        if negated or not isinstance(test, ast.Compare) or len(test.ops) != 1:
            raise NotLowered
        compare = _COMPARE.get(type(test.ops[0]))
        left, right = test.left, test.comparators[0]
        if compare is None:
            raise NotLowered
        distance = self._distance(left)
        if distance is not None and compare in (operator.lt, operator.le):
            called, apart = distance
            limit = literal(right)
            if type(limit) not in (int, float):
                raise NotLowered
            self._call(called)
            self.checks.append(Check(source, compare, limit, apart=apart))
            return
        flip = not self._is_call(left)
        call, other = (right, left) if flip else (left, right)
        if not isinstance(call, ast.Call):
            raise NotLowered
        expected = literal(other)
        by_identity = compare in (operator.is_, operator.is_not)
        if by_identity and expected is not None and type(expected) is not bool:
            raise NotLowered
        self._call(call)
        self.checks.append(Check(source, compare, expected, flip))

    def _is_call(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Call) and not _is_empty_set(node)

    def _distance(self, node: ast.expr) -> tuple[ast.Call, int | float] | None:
        """The call and the number in `abs(call - number)` or `abs(number - call)`."""
        if not (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "abs" != self.entry_point
            and len(node.args) == 1
            and not node.keywords
            and isinstance(node.args[0], ast.BinOp)
            and isinstance(node.args[0].op, ast.Sub)
        ):
            return None
        sides = (node.args[0].left, node.args[0].right)
        call, other = sides if isinstance(sides[0], ast.Call) else sides[::-1]
        if not isinstance(call, ast.Call):
            raise NotLowered
        number = literal(other)
        if type(number) not in (int, float):
            raise NotLowered
        return call, number

    def check_function(self, node: ast.FunctionDef) -> None:
        """The asserts of HumanEval's `check(candidate)`."""
        given = node.args
        plain = len(given.args) == 1 and not (
            given.defaults or given.posonlyargs or given.kwonlyargs or given.vararg or given.kwarg
        )
        if not plain or node.decorator_list or self.entry_point is None:
            raise NotLowered
        self.candidate = given.args[0].arg
        for statement in node.body:
            if isinstance(statement, ast.Pass) or _is_text(statement):
                continue
            if isinstance(statement, ast.Import):
                raise NotLowered  # a name of its own inside the function
            self.statement(f"check({self.entry_point})", statement)
        self.candidate = None

    def _call(self, node: ast.Call) -> None:
        if not isinstance(node.func, ast.Name):
            raise NotLowered
        name = node.func.id
        if self.candidate is not None:
            if name != self.candidate or self.entry_point is None:
                raise NotLowered
            name = self.entry_point
        if hasattr(builtins, name) and name != self.entry_point:
            raise NotLowered
        args = [self.encode(literal(item)) for item in node.args]
        kwargs: dict[str, Any] = {}
        for keyword in node.keywords:
            if keyword.arg is None:
                raise NotLowered
            kwargs[keyword.arg] = self.encode(literal(keyword.value))
        self.calls.append([name, args, kwargs])


_HARMLESS = {"math", "re", "itertools", "collections", "functools", "string", "random", "typing"}


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _human_eval(work: _Lowering, tests: str) -> Lowered | None:
    """`METADATA = ...` and `def check(candidate)`, with or without the call of it."""
    checked = False
    for statement in ast.parse(tests).body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "check" and not checked:
            work.check_function(statement)
            checked = True
        elif isinstance(statement, ast.Assign) and not checked:
            target = statement.targets[0]
            if not isinstance(target, ast.Name) or target.id != "METADATA":
                raise NotLowered
            literal(statement.value)
        elif isinstance(statement, ast.Expr) and checked:
            if ast.unparse(statement) != f"check({work.entry_point})":
                raise NotLowered
        else:
            raise NotLowered
    return Lowered(work.calls, work.checks, together=True) if work.checks else None


def lower(
    tests: str | Sequence[str], setup: str, entry_point: str | None, mode: str
) -> Lowered | None:
    """The tests as calls and checks, or None when code has to run."""
    work = _Lowering(entry_point)
    sources = [tests] if isinstance(tests, str) else list(tests)
    try:
        for statement in ast.parse(setup).body:
            if not isinstance(statement, ast.Import):
                return None
            work.statement("", statement)
        if len(sources) == 1 and "def check" in sources[0]:
            return _human_eval(work, sources[0])
        for source in sources:
            tree = ast.parse(source)
            counted = [s for s in tree.body if isinstance(s, ast.Assert)]
            if len(sources) > 1 and len(counted) != 1:
                return None  # a string of a sequence is one test, whatever it holds
            for statement in tree.body:
                text = ast.get_source_segment(source, statement) or source
                work.statement(text, statement)
    except (NotLowered, ValueRefused, SyntaxError, ValueError, TypeError):
        return None
    except (RecursionError, MemoryError, OverflowError):
        return None
    return Lowered(work.calls, work.checks) if work.checks else None


def from_cases(tests: Sequence[str], entry_point: str | None) -> Lowered:
    """`call` mode: JSON objects `{"args", "kwargs", "expected"}`, compared with ==.

    JSON has no tuples, so a tuple result equals a list of the same items here.

    Raises:
        ValueError: not such an object, or no entry point.
    """
    if not entry_point:
        raise ValueError("call mode needs an entry point")
    encode = Encoder()
    calls: list[list[Any]] = []
    checks: list[Check] = []
    for source in tests:
        case = json.loads(source)
        if type(case) is not dict or "expected" not in case:
            raise ValueError(f"a call test is an object with 'expected', not {source[:80]!r}")
        args = [encode(item) for item in case.get("args", [])]
        kwargs = {str(key): encode(item) for key, item in case.get("kwargs", {}).items()}
        calls.append([entry_point, args, kwargs])
        checks.append(Check(source, _same_as_json, case["expected"]))
    return Lowered(calls, checks)


def _same_as_json(value: Any, expected: Any) -> bool:
    """Equality with a value read from JSON; booleans are not numbers, tuples are lists, Counters objects."""
    if type(expected) is list:
        if not isinstance(value, (list, tuple)) or len(value) != len(expected):
            return False
        return all(_same_as_json(v, e) for v, e in zip(value, expected, strict=True))
    if type(expected) is dict:
        if not isinstance(value, dict) or len(value) != len(expected):
            return False
        keyed = {key if type(key) is str else json.dumps(key): item for key, item in value.items()}
        return all(key in keyed and _same_as_json(keyed[key], expected[key]) for key in expected)
    if type(expected) is bool or type(value) is bool or expected is None:
        return value is expected
    return bool(value == expected)
