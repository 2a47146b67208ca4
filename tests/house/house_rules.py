"""The rules of the house as functions of a source tree; the tests run them on ours and on broken ones.

Every function takes the folder that holds `modern_rlhf/` and returns one line a fault, so that an
empty list means the tree is sound. Imports are read with `ast`, never executed: function-level ones
count too, since a late import is still knowledge of the other module.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "modern_rlhf"

LADDER = {
    "errors": 0,
    "records": 0,
    "version": 0,
    "utils": 0,
    "config": 0,
    "sandbox": 0,
    "feedback": 0,
    "ops": 1,
    "losses": 1,
    "advantages": 1,
    "models": 2,
    "metrics": 2,
    "data_loader": 2,
    "reward_model": 2,
    "rewards": 2,
    "tracking": 3,
    "checkpoint": 3,
    "rollout": 3,
    "trainer": 4,
    "evaluation": 5,
    "honesty": 5,
    "report": 5,
    "pipeline": 6,
    "cli": 7,
    "main": 7,
    "__main__": 7,
    "": 7,
}
"""The floor of every room (a package or module directly under `modern_rlhf`; "" is its __init__)."""

APART = {
    # Reports read files only, never live training objects (style rule 10).
    "report": ("trainer", "rollout", "checkpoint", "models", "pipeline"),
    # A loss or a metric knows no configuration (style rule 2).
    "losses": ("config",),
    "ops": ("config",),
    "advantages": ("config",),
}
"""Edges the ladder would allow and the style forbids."""


@dataclass(frozen=True)
class Edge:
    """One import: who imports, which module or package, at which line, and when it happens."""

    importer: str
    imported: str
    line: int
    late: bool
    names_a_facade: bool


def modules(root: Path) -> dict[str, Path]:
    """Dotted name -> file of every module of the package; a package's own name is its __init__."""
    found = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def room(module: str) -> str:
    """The part of the name that has a floor: `modern_rlhf.trainer.ppo` -> `trainer`."""
    return module.split(".")[1] if "." in module else ""


def edges(root: Path) -> list[Edge]:
    """Every import of one module of the package by another, `TYPE_CHECKING` blocks included."""
    known = modules(root)
    found = []
    for importer, path in known.items():
        is_package = path.name == "__init__.py"
        for node, late in _imports(ast.parse(path.read_text(encoding="utf-8"))):
            for target, facade in _targets(node, importer, is_package, known):
                if target != importer:
                    found.append(Edge(importer, target, node.lineno, late, facade))
    return found


def _imports(tree: ast.Module) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Import nodes, with whether they run later than the module's own import."""

    def walk(node: ast.AST, late: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import | ast.ImportFrom):
                yield child, late
            else:
                inner = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                typing_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
                yield from walk(child, late or inner or typing_only)

    yield from walk(tree, False)


def _targets(
    node: ast.Import | ast.ImportFrom, importer: str, is_package: bool, known: dict[str, Path]
) -> Iterator[tuple[str, bool]]:
    """The package's modules a node names, each with whether a facade was used to get at it."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.name.split(".")[0] == PACKAGE:
                yield alias.name, _is_facade(alias.name, known)
        return
    base = node.module or ""
    if node.level:
        parents = importer.split(".") if is_package else importer.split(".")[:-1]
        parents = parents[: len(parents) - node.level + 1]
        base = ".".join([*parents, *([base] if base else [])])
    if base.split(".")[0] != PACKAGE:
        return
    for alias in node.names:
        inner = f"{base}.{alias.name}"
        yield (inner, False) if inner in known else (base, _is_facade(base, known))


def _is_facade(name: str, known: dict[str, Path]) -> bool:
    return name in known and known[name].name == "__init__.py"


def ladder_faults(root: Path) -> list[str]:
    """Unlisted rooms, imports of what isn't there, upward edges, and edges kept apart by style."""
    known = modules(root)
    faults = [
        f"{name}: not on the ladder (list {room(name)!r} in house_rules.LADDER)"
        for name in known
        if room(name) not in LADDER
    ]
    for edge in edges(root):
        here, there = room(edge.importer), room(edge.imported)
        where = f"{edge.importer}:{edge.line} imports {edge.imported}"
        if edge.imported not in known:
            faults.append(f"{where}: there is no such module")
        elif LADDER.get(there, 0) > LADDER.get(here, 99):
            faults.append(f"{where}: upward, floor {LADDER[here]} to {LADDER[there]}")
        elif there in APART.get(here, ()):
            faults.append(f"{where}: {here} is kept apart from {there}")
    return faults


def facade_faults(root: Path) -> list[str]:
    """Imports of a package's re-exports from inside; its own submodules are no facade."""
    return [
        f"{edge.importer}:{edge.line} imports the facade {edge.imported}, not the defining module"
        for edge in edges(root)
        if edge.names_a_facade
    ]


def cycle_faults(root: Path) -> list[str]:
    """Cycles of modules that import each other while they are being imported."""
    graph: dict[str, set[str]] = {name: set() for name in modules(root)}
    for edge in edges(root):
        if not edge.late and edge.imported in graph:
            graph[edge.importer].add(edge.imported)
    faults, done = [], set[str]()

    def visit(name: str, path: list[str]) -> None:
        if name in path:
            faults.append("import cycle: " + " -> ".join([*path[path.index(name) :], name]))
            return
        if name in done:
            return
        for following in sorted(graph[name]):
            visit(following, [*path, name])
        done.add(name)

    for name in graph:
        visit(name, [])
    return faults


def ground_floor_faults(root: Path) -> list[str]:
    """Modules of floor 0 that import something outside the standard library while being imported."""
    faults = []
    for name, path in modules(root).items():
        if LADDER.get(room(name)) != 0:
            continue
        for node, late in _imports(ast.parse(path.read_text(encoding="utf-8"))):
            if late or (isinstance(node, ast.ImportFrom) and node.level):
                continue
            names = (
                [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else [alias.name for alias in node.names]
            )
            for top in {part.split(".")[0] for part in names}:
                if top != PACKAGE and top not in sys.stdlib_module_names:
                    faults.append(f"{name}:{node.lineno} imports {top} at import, on floor 0")
    return faults


def docstring_faults(root: Path, limit: int = 350) -> list[str]:
    """Modules without a docstring, and long ones whose docstring doesn't give a reason."""
    faults = []
    for name, path in modules(root).items():
        text = path.read_text(encoding="utf-8")
        docstring = ast.get_docstring(ast.parse(text)) or ""
        if not docstring:
            faults.append(f"{name}: no module docstring")
        lines = len(text.splitlines())
        if lines > limit and f"{limit} lines" not in docstring:
            faults.append(
                f"{name}: {lines} lines; split it, or say in its docstring why it is "
                f"longer than {limit} lines"
            )
    return faults


def lazy_name_faults(root: Path) -> list[str]:
    """Facades whose `_HOMES`, `__all__` and `TYPE_CHECKING` imports don't name the same things."""
    faults = []
    for name, path in modules(root).items():
        if path.name != "__init__.py":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        tables = {
            node.targets[0].id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        if "_HOMES" not in tables:
            continue
        homes = ast.literal_eval(tables["_HOMES"])
        shown = tables.get("__all__")
        if shown is None or "_HOMES" in ast.dump(shown):  # __all__ = list(_HOMES)
            public = set(homes) if shown is not None else set()
        else:
            public = {name for name in ast.literal_eval(shown) if not name.startswith("__")}
        typed = {
            alias.name: node.module
            for node, late in _imports(tree)
            if late and isinstance(node, ast.ImportFrom) and node.module != "importlib"
            for alias in node.names
        }
        if public != set(homes):
            faults.append(f"{name}: __all__ and _HOMES differ in {sorted(public ^ set(homes))}")
        if typed and typed != homes:
            differ = sorted(dict(typed.items() ^ homes.items()))
            faults.append(f"{name}: TYPE_CHECKING imports and _HOMES differ in {differ}")
    return faults
