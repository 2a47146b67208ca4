"""What a task family is, and how one task is built from it.

A family is a solution skeleton with parameters. The same parameters are worded in the prompt and
written into the reference, so that a solver has to read them; function and argument names vary too
and are always stated in the prompt. The last entry of `does` and of `gives` is never used for
training: it is the unseen phrasing of the evaluation.

A parameter combination belongs to the evaluation when the hash of its reference (with neutral names)
says so. That depends neither on the seed nor on the family list, so no two runs of the generator can
ever put one program on both sides of the split.

The tests of a task are calls whose results were computed with the reference. They are picked from a
pool of candidate inputs so that they tell the reference from its siblings (the same family with other
parameters), from any constant and from the identity: a reward by execution is worth little otherwise.

Knows no file and no command line. The references are this project's own programs and are executed
directly.
"""

from __future__ import annotations

import ast
import hashlib
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

HELD_OUT_ONE_IN = 4
POOL = 18
SIBLINGS = 10
MAX_ASSERT = 180
MAX_PROMPT = 200
MAX_CODE = 220
MAX_LINES = 6

DOES_FRAMES = (
    "Write a function `{sig}` that {core}.",
    "Define `{sig}` so that it {core}.",
    "Implement a Python function `{sig}` which {core}.",
    "Create a function `{sig}` that {core}.",
)
GIVES_FRAMES = (
    "Write a function `{sig}` that returns {core}.",
    "`{sig}` should return {core}.",
    "Implement `{sig}` returning {core}.",
    "Define `{sig}` so that it returns {core}.",
)
UNSEEN_DOES_FRAMES = ("I need a function `{sig}` that {core}.",)
UNSEEN_GIVES_FRAMES = ("Please write `{sig}`, returning {core}.",)

COMMON_NAMES = (
    "solve", "process", "compute", "transform", "answer", "run", "apply_rule", "get_result",
    "make_result", "handle", "build", "evaluate", "find_answer", "work_out", "do_task", "calculate",
)  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """A parameter whose wording differs from its code; one of `words` is used in a prompt."""

    code: str
    words: tuple[str, ...]


def piece(code: str, *words: str) -> Piece:
    return Piece(code, words)


Option = Piece | int | str


@dataclass(frozen=True)
class Hints:
    """The constants of a reference: inputs are drawn near them, so that boundaries are tested."""

    ints: tuple[int, ...] = ()
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kind:
    """A kind of argument: how values are drawn and what such an argument may be called."""

    draw: Callable[[random.Random, Hints], Any]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Family:
    """One kind of task. Templates see the arguments as `{a}`, `{b}`, the function as `{f}` and every
    key of `options` (its words in `does` and `gives`, its code in `body`; text is quoted in both).
    A piece may name arguments and other options itself."""

    name: str
    level: str
    args: tuple[Kind, ...]
    options: Mapping[str, Sequence[Option]]
    names: tuple[str, ...]
    does: tuple[str, ...]
    gives: tuple[str, ...]
    body: str
    valid: Callable[[Mapping[str, Option]], bool] | None = None
    unseen: bool = False
    topic: str = ""

    def combinations(self) -> int:
        """Upper bound of the number of parameter combinations (`valid` may rule some out)."""
        count = 1
        for options in self.options.values():
            count *= len(options)
        return count


@dataclass(frozen=True)
class Built:
    """One generated task, before it gets an id and a split."""

    family: str
    text: str
    code: str
    entry_point: str
    test_list: tuple[str, ...]
    params: str
    canonical: str
    wording: str = ""
    cases: tuple[str, ...] = field(default=())


def literal(value: Any) -> str:
    """`repr`, but a set in sorted order, so that the text does not depend on string hashing. Sets
    inside other values are not provided for: no family has them."""
    if isinstance(value, set):
        return "{" + ", ".join(repr(v) for v in sorted(value)) + "}" if value else "set()"
    return repr(value)


def draw_values(family: Family, rng: random.Random) -> dict[str, Option]:
    """One parameter combination that `valid` accepts."""
    while True:
        values = {key: rng.choice(list(options)) for key, options in family.options.items()}
        if family.valid is None or family.valid(values):
            return values


def _code_of(option: Option) -> str:
    return option.code if isinstance(option, Piece) else repr(option)


def fill(template: str, fields: Mapping[str, str]) -> str:
    """Put the fields into a template; a field's own text may name other fields (twice nested)."""
    text = template.format(**fields)
    for _ in range(2):
        for key, value in fields.items():
            text = text.replace("{" + key + "}", value)
    return text


def render_code(
    family: Family, values: Mapping[str, Option], name: str, arg_names: Sequence[str]
) -> str:
    """The reference program of one combination under the given names."""
    fields = {key: _code_of(option) for key, option in values.items()}
    fields.update(zip("abc", arg_names, strict=False))
    fields["f"] = name
    body = fill(family.body, fields)
    lines = [f"def {name}({', '.join(arg_names)}):"]
    lines += ["    " + line for line in body.split("\n")]
    return "\n".join(lines)


def canonical_code(family: Family, values: Mapping[str, Option]) -> str:
    """The reference with neutral names: what decides the side of the split and what is compared."""
    arg_names = [f"arg{i}" for i in range(len(family.args))]
    return render_code(family, values, "function", arg_names)


def is_held_out(canonical: str) -> bool:
    digest = hashlib.sha256(canonical.encode()).digest()
    return int.from_bytes(digest[:8], "big") % HELD_OUT_ONE_IN == 0


def hints_of(code: str) -> Hints:
    """The integer and text constants of a program, in order of appearance."""
    ints: list[int] = []
    texts: list[str] = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str) and node.value and node.value not in texts:
                texts.append(node.value)
            elif type(node.value) is int and node.value not in ints:
                ints.append(node.value)
    return Hints(tuple(ints), tuple(texts))


@lru_cache(maxsize=20_000)
def load(code: str, entry_point: str) -> Callable[..., Any]:
    namespace: dict[str, Any] = {}
    exec(compile(code, "<reference>", "exec"), namespace)  # noqa: S102 - our own program
    function: Callable[..., Any] = namespace[entry_point]
    return function


_FAILED = "<raises>"


def _outcome(function: Callable[..., Any], arguments: tuple[Any, ...]) -> str:
    """The result as text, or a marker when the call raises."""
    try:
        return literal(function(*arguments))
    except (
        ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError
    ):  # fmt: skip
        return _FAILED


def _pick_cases(
    table: Mapping[str, tuple[str, Sequence[str]]], count: int
) -> list[tuple[str, str]] | None:
    """Greedy choice of `count` cases: each next one tells the most siblings apart that are still
    alive, new results first. None when fewer than two results are seen among them, or when sibling 0,
    the identity, gives them all."""
    alive = set(range(len(next(iter(table.values()))[1])))
    left = dict(table)
    chosen: list[tuple[str, str]] = []
    seen: set[str] = set()
    while left and len(chosen) < count:
        best = max(
            left,
            key=lambda a: (
                left[a][0] not in seen,
                sum(left[a][1][i] != left[a][0] for i in alive),
                -len(a),
            ),
        )
        result, others = left.pop(best)
        alive -= {i for i in alive if others[i] != result}
        seen.add(result)
        chosen.append((best, result))
    if len(chosen) < count or len(seen) < 2 or 0 in alive:
        return None
    return chosen


def _cases(
    family: Family,
    canonical: str,
    rng: random.Random,
    taken: frozenset[str] | set[str],
) -> list[tuple[str, str]] | None:
    hints = hints_of(canonical)
    function = load(canonical, "function")
    siblings: list[Callable[..., Any]] = [lambda *args: args[0]]
    for _ in range(SIBLINGS):
        other = canonical_code(family, draw_values(family, rng))
        if other != canonical:
            siblings.append(load(other, "function"))
    table: dict[str, tuple[str, list[str]]] = {}
    for _ in range(POOL):
        values = tuple(kind.draw(rng, hints) for kind in family.args)
        arguments = repr(values)
        result = _outcome(function, values)
        if result in (_FAILED, "None") or len(arguments) + len(result) > MAX_ASSERT - 40:
            continue
        if f"{arguments} -> {result}" in taken:
            continue
        table[arguments] = (result, [_outcome(other, values) for other in siblings])
        if repr(values) != arguments:
            raise ValueError(f"family {family.name} changes its arguments")
    if not table:
        return None
    return _pick_cases(table, rng.choice((3, 4, 4, 5)))


def build(
    family: Family,
    values: Mapping[str, Option],
    rng: random.Random,
    *,
    unseen_phrasing: bool,
    any_phrasing: bool = False,
    taken: frozenset[str] | set[str] = frozenset(),
) -> Built | None:
    """One task, or None when the draw has no good tests or breaks a length bound (draw again).

    `taken` holds cases (`arguments -> result`) that may not be used: the training cases, when an
    evaluation task is built. `any_phrasing` (wholly unseen families) uses every wording.
    """
    name = rng.choice(family.names if rng.random() < 0.6 else COMMON_NAMES)
    arg_names: list[str] = []
    for kind in family.args:
        arg_names.append(rng.choice([n for n in kind.names if n not in arg_names]))
    canonical = canonical_code(family, values)
    code = render_code(family, values, name, arg_names)

    cores: list[tuple[str, tuple[str, ...]]] = []
    for templates, frames, extra in (
        (family.does, DOES_FRAMES, UNSEEN_DOES_FRAMES),
        (family.gives, GIVES_FRAMES, UNSEEN_GIVES_FRAMES),
    ):
        if any_phrasing:
            cores += [(t, frames + extra) for t in templates]
        elif unseen_phrasing:
            cores += [(templates[-1], frames + extra)]
        else:
            cores += [(t, frames) for t in templates[:-1]]
    core, frames = rng.choice(cores)
    words = {
        key: rng.choice(option.words) if isinstance(option, Piece) else repr(option)
        for key, option in values.items()
    }
    words.update((key, f"`{n}`") for key, n in zip("abc", arg_names, strict=False))
    text = rng.choice(frames).format(sig=f"{name}({', '.join(arg_names)})", core=fill(core, words))
    if len(text) > MAX_PROMPT or len(code) > MAX_CODE or code.count("\n") >= MAX_LINES:
        return None

    cases = _cases(family, canonical, rng, taken)
    if cases is None:
        return None
    tests = []
    for arguments, result in cases:
        call = name + (arguments[:-2] + ")" if len(family.args) == 1 else arguments)
        test = f"assert {call} == {result}"
        if len(test) > MAX_ASSERT:
            return None
        tests.append(test)
    params = ", ".join(f"{key}={_code_of(option)}" for key, option in values.items())
    return Built(
        family=family.name,
        text=text,
        code=code,
        entry_point=name,
        test_list=tuple(tests),
        params=params,
        canonical=canonical,
        wording=core,
        cases=tuple(f"{arguments} -> {result}" for arguments, result in cases),
    )


def normalise(text: str) -> str:
    """Lower case, words and digits and signs with single blanks: how texts are compared for leaks."""
    return re.sub(r"\s+", " ", text).strip().lower()
