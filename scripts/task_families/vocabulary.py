"""The shared parameters: conditions, mappings, sort keys and constants, each with words and code.

Families reuse them, so what a solver learns in one family (that "at least 7" is `>= 7`) helps in all
the others. Number pieces speak of `x`, word pieces of `w`, dictionary pieces of `v`.
"""

from __future__ import annotations

from .core import Piece, piece

SMALL_NUMBERS = tuple(range(2, 13))
NUMBERS = tuple(range(2, 31))
SEPARATORS = ("-", ",", ";", ":", "/", "|", "_", "+", "*", "#")
LETTERS = ("a", "e", "o", "n", "r", "t", "s", "l", "i", "p")
TAGS = ("ab", "to", "my", "un", "re", "ok", "id", "in", "x1", "no", "up", "go")
KEYS = ("name", "age", "price", "total", "count", "color", "size", "year", "rank", "level")


def number_conditions(var: str = "x", top: int = 20) -> tuple[Piece, ...]:
    out: list[Piece] = [
        piece(f"{var} % 2 == 0", "even"),
        piece(f"{var} % 2 == 1", "odd"),
        piece(f"{var} > 0", "positive", "greater than 0"),
        piece(f"{var} < 0", "negative", "below 0"),
    ]
    for k in range(1, top + 1):
        out.append(piece(f"{var} > {k}", f"greater than {k}", f"above {k}", f"larger than {k}"))
        out.append(piece(f"{var} < {k}", f"less than {k}", f"below {k}", f"smaller than {k}"))
        out.append(piece(f"{var} >= {k}", f"at least {k}"))
        out.append(piece(f"{var} <= {k}", f"at most {k}"))
        out.append(piece(f"{var} != {k}", f"not equal to {k}", f"different from {k}"))
    for k in range(3, 10):
        out.append(piece(f"{var} % {k} == 0", f"divisible by {k}", f"a multiple of {k}"))
        out.append(piece(f"{var} % {k} != 0", f"not divisible by {k}", f"not a multiple of {k}"))
    return tuple(out)


def number_maps(var: str = "x", top: int = 15) -> tuple[Piece, ...]:
    """Wordings complete "every number ..."."""
    out: list[Piece] = [
        piece(f"{var} ** 2", "squared"),
        piece(f"{var} ** 3", "cubed"),
        piece(f"-{var}", "negated"),
        piece(f"abs({var})", "replaced by its absolute value"),
    ]
    for k in range(2, top + 1):
        out.append(piece(f"{var} * {k}", f"multiplied by {k}", f"times {k}"))
        out.append(piece(f"{var} + {k}", f"increased by {k}", f"plus {k}"))
        out.append(piece(f"{var} - {k}", f"decreased by {k}", f"minus {k}"))
        out.append(piece(f"{k} - {var}", f"subtracted from {k}"))
    for k in range(2, 10):
        out.append(piece(f"{var} // {k}", f"floor-divided by {k}"))
        out.append(piece(f"{var} % {k}", f"modulo {k}", f"reduced modulo {k}"))
    return tuple(out)


def word_conditions(var: str = "w") -> tuple[Piece, ...]:
    """Wordings complete "the words ..."."""
    out: list[Piece] = []
    for k in range(2, 9):
        out.append(piece(f"len({var}) > {k}", f"longer than {k} characters"))
        out.append(piece(f"len({var}) < {k}", f"shorter than {k} characters"))
        out.append(piece(f"len({var}) == {k}", f"of exactly {k} characters", f"of length {k}"))
        out.append(piece(f"len({var}) >= {k}", f"of at least {k} characters"))
    for c in LETTERS:
        out.append(
            piece(f"{var}.startswith({c!r})", f"starting with {c!r}", f"beginning with {c!r}")
        )
        out.append(piece(f"{var}.endswith({c!r})", f"ending with {c!r}", f"ending in {c!r}"))
        out.append(piece(f"{c!r} in {var}", f"containing {c!r}", f"with {c!r} in them"))
        out.append(piece(f"{c!r} not in {var}", f"not containing {c!r}", f"without {c!r}"))
    return tuple(out)


def word_maps(var: str = "w") -> tuple[Piece, ...]:
    """Wordings complete "every word ..."."""
    out: list[Piece] = [
        piece(f"{var}.upper()", "in upper case", "converted to upper case"),
        piece(f"{var}.capitalize()", "capitalized", "with a capital first letter"),
        piece(f"{var}[::-1]", "reversed", "spelled backwards"),
        piece(f"{var}.title()", "in title case"),
    ]
    for k in range(2, 7):
        out.append(piece(f"{var}[:{k}]", f"cut to its first {k} characters"))
        out.append(piece(f"{var}[{k}:]", f"without its first {k} characters"))
        out.append(piece(f"{var}[-{k}:]", f"cut to its last {k} characters"))
        out.append(piece(f"{var} * {k}", f"repeated {k} times"))
    for tag in TAGS:
        out.append(piece(f"{tag!r} + {var}", f"prefixed with {tag!r}", f"with {tag!r} in front"))
        out.append(piece(f"{var} + {tag!r}", f"followed by {tag!r}", f"with {tag!r} appended"))
    for old, new in zip(LETTERS, LETTERS[3:] + LETTERS[:3], strict=True):
        out.append(piece(f"{var}.replace({old!r}, {new!r})", f"with {old!r} replaced by {new!r}"))
    return tuple(out)


def number_keys() -> tuple[Piece, ...]:
    """Sort keys; wordings complete "sorted by ..."."""
    out = [
        piece("key=abs", "absolute value"),
        piece("key=lambda x: x % 10", "last digit", "remainder modulo 10"),
    ]
    for k in range(2, 10):
        out.append(piece(f"key=lambda x: x % {k}", f"remainder modulo {k}"))
    for k in range(3, 26):
        out.append(piece(f"key=lambda x: abs(x - {k})", f"distance from {k}", f"distance to {k}"))
    return tuple(out)


def word_keys() -> tuple[Piece, ...]:
    out = [
        piece("key=len", "length"),
        piece("key=lambda w: w[-1]", "last letter"),
        piece("key=lambda w: w[::-1]", "reversed spelling"),
        piece("key=lambda w: len(set(w))", "number of different letters"),
    ]
    for k in range(1, 6):
        out.append(piece(f"key=lambda w: w[{k}:]", f"the part from index {k} on"))
        out.append(piece(f"key=lambda w: w[:-{k}]", f"the part before the last {k} letters"))
    for c in LETTERS:
        out.append(piece(f"key=lambda w: w.count({c!r})", f"number of {c!r}", f"count of {c!r}"))
    return tuple(out)


NUM_COND = number_conditions()
SMALL_COND = number_conditions(top=9)
NUM_MAP = number_maps()
WORD_COND = word_conditions()
WORD_MAP = word_maps()
NUM_KEY = number_keys()
WORD_KEY = word_keys()
VALUE_COND = number_conditions("v")
VALUE_MAP = number_maps("v")
ORDER = (
    piece("", "ascending", "increasing"),
    piece(", reverse=True", "descending", "decreasing"),
)
FIELDS = ("age", "score")
