"""Test source made ready to run: which names come from the candidate, and what one test is.

A *unit* is what is counted. In a single string each top-level `assert` is a unit and the other
statements prepare; without any top-level assert, `check(candidate)` (HumanEval), `test_*`
functions, `TestCase` classes, or else the whole string are. In a sequence each string is one unit.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

IN_PLACE = "__in_place__"


@dataclass
class Unit:
    """Statements run together; `counted` ones are tests, the others only prepare."""

    source: str
    body: list[ast.stmt]
    counted: bool


@dataclass
class Suite:
    """Parsed tests.

    `names` are wanted from the candidate, `constructed` those of them the tests use as classes,
    `aliases` other names the tests import them under, `own` names of libraries that the tests use and
    do not import, `modules` those of them that are modules.
    """

    units: list[Unit]
    names: list[str] = field(default_factory=list)
    constructed: list[str] = field(default_factory=list)
    aliases: dict[str, str] = field(default_factory=dict)
    own: list[str] = field(default_factory=list)
    modules: set[str] = field(default_factory=set)


_DATA_ATTRIBUTES = {
    name
    for kind in (
        list,
        dict,
        set,
        frozenset,
        str,
        bytes,
        bytearray,
        tuple,
        int,
        float,
        complex,
        range,
    )
    for name in dir(kind)
}


class _Survey(ast.NodeVisitor):
    """Names loaded, bound and called, imports of unknown modules, and classes used as classes."""

    def __init__(self) -> None:
        self.loaded: set[str] = set()
        self.bound: set[str] = set()
        self.called: set[str] = set()
        self.bases: set[str] = set()
        """Names of which the tests take an attribute."""
        self.imported: dict[str, str] = {}
        self.constructed: set[str] = set()
        self._assigned: dict[str, set[str]] = {}
        self._attributed: set[str] = set()

    def visit_Name(self, node: ast.Name) -> None:
        (self.loaded if isinstance(node.ctx, ast.Load) else self.bound).add(node.id)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name):
            self.called.add(node.func.id)
            if node.func.id in ("isinstance", "issubclass") and len(node.args) == 2:
                self.constructed |= {
                    n.id for n in ast.walk(node.args[1]) if isinstance(n, ast.Name)
                }
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if isinstance(node.value, ast.Name):
            self.bases.add(node.value.id)
        if node.attr in _DATA_ATTRIBUTES:
            pass  # `f(x).sort()` says nothing: the result may be plain data
        elif isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Name):
            self.constructed.add(node.value.func.id)
        elif isinstance(node.value, ast.Name):
            self._attributed.add(node.value.id)
        elif isinstance(node.value, ast.Attribute):
            self._attributed.add(node.value.attr)  # self.stack.push
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        if isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Name):
            for target in node.targets:
                name = getattr(target, "id", getattr(target, "attr", None))
                if name:
                    self._assigned.setdefault(name, set()).add(node.value.func.id)
        self.generic_visit(node)

    def visit_withitem(self, node: ast.withitem) -> None:
        if isinstance(node.context_expr, ast.Call):
            function = node.context_expr.func
            if isinstance(function, ast.Name):
                self.constructed.add(function.id)
        self.generic_visit(node)

    def _define(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        self.bound.add(node.name)
        self.generic_visit(node)

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = _define

    def visit_arg(self, node: ast.arg) -> None:
        self.bound.add(node.arg)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.name:
            self.bound.add(node.name)
        self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.bound.add(alias.asname or alias.name.split(".")[0])

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            if unknown_module(node):
                self.imported[alias.asname or alias.name] = alias.name
            else:
                self.bound.add(alias.asname or alias.name)

    def finish(self) -> None:
        for variable, makers in self._assigned.items():
            if variable in self._attributed:
                self.constructed |= makers


def unknown_module(node: ast.ImportFrom) -> bool:
    """`from solution import f`: a module that is not the standard library's names the candidate."""
    top = (node.module or "").split(".")[0]
    return bool(node.level) or top not in sys.stdlib_module_names


class _Rewrite(ast.NodeTransformer):
    """Drop imports of the candidate; mark calls whose result is dropped."""

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.stmt:
        return ast.copy_location(ast.Pass(), node) if unknown_module(node) else node

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.value, ast.Call) and isinstance(
            node.value.func, ast.Name | ast.Attribute
        ):
            mark = ast.Name(id=IN_PLACE, ctx=ast.Load())
            node.value.func = ast.Call(func=mark, args=[node.value.func], keywords=[])
        return node


def parse(tests: Sequence[str] | str, setup: str, entry_point: str | None, mode: str) -> Suite:
    """Read tests and setup.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: the tests do not compile.
    """
    single = isinstance(tests, str)
    sources = [tests] if isinstance(tests, str) else list(tests)
    survey = _Survey()
    units: list[Unit] = []
    if setup.strip():
        tree = ast.parse(setup)
        survey.visit(tree)
        units.append(Unit("", tree.body, False))
    for source in sources:
        tree = ast.parse(source)
        survey.visit(tree)
        units += _units(source, tree, single=single or len(sources) == 1, mode=mode)
    survey.finish()
    check = _check_call(survey, entry_point)
    if check is not None:
        units.append(check)
        for unit in units[:-1]:
            unit.counted = unit.counted and any(isinstance(s, ast.Assert) for s in unit.body)
    for unit in units:
        unit.body = [_Rewrite().visit(statement) for statement in unit.body]
    names = wanted(survey, entry_point)
    own = [name for name in names if _is_own(name, survey, entry_point)]
    names = [name for name in names if name not in own]
    modules = {name for name in own if name in survey.bases and name not in survey.called}
    return Suite(units, names, sorted(survey.constructed), survey.imported, own, modules)


OTHER_MODULES = {
    "np": "numpy", "numpy": "numpy", "pd": "pandas", "pandas": "pandas", "scipy": "scipy", "sp": "scipy",
    "torch": "torch", "tf": "tensorflow", "nx": "networkx", "sympy": "sympy", "sklearn": "sklearn",
    "pytest": "pytest", "hypothesis": "hypothesis", "numpy_testing": "numpy.testing", "npt": "numpy.testing",
}  # fmt: skip
"""What modules beside the standard library's are called."""
LIBRARY_NAMES = {
    **dict.fromkeys(("isclose", "pi", "inf", "nan", "sqrt", "floor", "ceil", "fabs", "fsum", "isnan", "isinf",
                     "prod", "gcd", "lcm", "comb", "perm", "log", "exp", "hypot"), "math"),
    **dict.fromkeys(("Counter", "OrderedDict", "defaultdict", "deque", "namedtuple"), "collections"),
    **dict.fromkeys(("date", "datetime", "timedelta"), "datetime"), "ANY": "unittest.mock",
    "Decimal": "decimal", "Fraction": "fractions", "deepcopy": "copy", "reduce": "functools",
    "approx": "pytest", "raises": "pytest", "allclose": "numpy", "array_equal": "numpy",
    **dict.fromkeys(("assert_allclose", "assert_almost_equal", "assert_array_equal"), "numpy.testing"),
}  # fmt: skip
"""Names taken out of modules: the tests' own where the entry point is known to be something else."""


def _is_own(name: str, survey: _Survey, entry_point: str | None) -> bool:
    """Whether a name that the tests use and do not import is a library's, because the reference imports
    it. Then it is the tests' own: a candidate's `math` could say that everything `isclose`."""
    if name == entry_point or name in survey.imported.values():
        return False
    if name in survey.bases and name not in survey.called:
        return name in sys.stdlib_module_names or name in OTHER_MODULES
    return name in LIBRARY_NAMES and entry_point is not None


def own_names(parsed: Suite) -> dict[str, Any]:
    """What such tests need of libraries, by name; what is not installed here stays undefined."""
    found = {}
    for name in parsed.own:
        with contextlib.suppress(ImportError, AttributeError):
            if name in parsed.modules:
                found[name] = import_module(OTHER_MODULES.get(name, name))
            else:
                found[name] = getattr(import_module(LIBRARY_NAMES[name]), name)
    return found


def wanted(survey: _Survey, entry_point: str | None) -> list[str]:
    """Names the candidate is asked for. Only the entry point may shadow a built-in: a candidate
    that defines `abs` or `all` must not change what the tests' `abs` means."""
    free = survey.loaded - survey.bound - set(survey.imported)
    names = {name for name in free if not hasattr(builtins, name)}
    if entry_point:
        names.add(entry_point)
    elif not any(name in names for name in survey.called):
        names |= survey.called & free
    return sorted(names | set(survey.imported.values()))


def _units(source: str, tree: ast.Module, *, single: bool, mode: str) -> list[Unit]:
    if mode == "unittest" or not tree.body:
        return [Unit(source, tree.body, False)]
    if not single:
        return [Unit(source, tree.body, True)]
    if not any(isinstance(statement, ast.Assert) for statement in tree.body):
        runs = any(not _declares(statement) for statement in tree.body)
        return [Unit(source, tree.body, runs and not _defines_tests(tree))]
    return [
        Unit(ast.get_source_segment(source, s) or source, [s], isinstance(s, ast.Assert))
        for s in tree.body
    ]


def _defines_tests(tree: ast.Module) -> bool:
    """Whether the tests are functions or cases: then what stands beside them only prepares."""
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef) and statement.name.startswith("test"):
            return True
        if isinstance(statement, ast.ClassDef):
            bases = (getattr(base, "attr", getattr(base, "id", "")) for base in statement.bases)
            if any(str(name).endswith("TestCase") for name in bases):
                return True
    return False


def _declares(statement: ast.stmt) -> bool:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
    return isinstance(statement, (*kinds, ast.Assign, ast.AnnAssign)) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )


def _check_call(survey: _Survey, entry_point: str | None) -> Unit | None:
    """`check(entry_point)` where the tests define `check` and leave the call to the judge."""
    if "check" not in survey.bound or "check" in survey.called or not entry_point:
        return None
    source = f"check({entry_point})"
    return Unit(source, ast.parse(source).body, True)
