"""Recursion: recurrences over numbers, digits, lists and strings. `{f}` is the function itself."""

from __future__ import annotations

from .core import Family, Kind, piece
from .inputs import INT_NAMES, POSITIVE, SMALL_INTS, WORD, int_value
from .vocabulary import SEPARATORS, SMALL_COND, SMALL_NUMBERS

DEPTH = Kind(int_value(0, 8), INT_NAMES)
STEPS = Kind(int_value(0, 20), INT_NAMES)
HEAD_COND = tuple(piece(c.code.replace("x ", "{a}[0] "), *c.words) for c in SMALL_COND)
HEAD_MAP = tuple(
    [piece(f"{{a}}[0] * {k}", f"times {k}") for k in range(2, 13)]
    + [piece(f"{{a}}[0] + {k}", f"plus {k}") for k in range(2, 13)]
    + [piece(f"{{a}}[0] - {k}", f"minus {k}") for k in range(2, 13)]
)
DIGIT_COND = tuple(
    [piece(f"{{a}} % 10 == {k}", f"equal to {k}") for k in range(10)]
    + [piece(f"{{a}} % 10 > {k}", f"greater than {k}") for k in range(1, 9)]
    + [piece(f"{{a}} % 10 < {k}", f"less than {k}") for k in range(1, 9)]
    + [piece(f"{{a}} % 10 != {k}", f"not equal to {k}") for k in range(10)]
)
LONG_NUMBER = Kind(int_value(1, 99_999), INT_NAMES)

FAMILIES = (
    Family(
        name="rec_linear",
        level="medium",
        args=(DEPTH,),
        options={
            "s": tuple(range(1, 11)),
            "k": tuple(range(2, 8)),
            "o": (piece("+", "plus"), piece("-", "minus")),
            "m": tuple(range(1, 13)),
        },
        names=("sequence", "term", "recur", "nth_term", "recurrence"),
        does=(
            "is {s} for {a} = 0 and else {k} times its value for {a} - 1, {o} {m}",
            "recursively gives {s} at {a} = 0, else {k} times the previous term {o} {m}",
            "starts with {s} at {a} = 0; each further term is {k} times the last, {o} {m}",
            "gives {s} if {a} = 0, else {k} times its value at {a} - 1, {o} {m}",
        ),
        gives=(
            "{s} if {a} is 0, else {k} times its own value at {a} - 1, {o} {m}",
            "term {a} of: term 0 is {s}, each next is {k} times the previous {o} {m}",
            "entry {a} when entry 0 is {s} and every next is {k} times the last, {o} {m}",
            "{s} at {a} = 0, else {k} times its own value for {a} - 1, {o} {m}",
        ),
        body="if {a} == 0:\n    return {s}\nreturn {k} * {f}({a} - 1) {o} {m}",
    ),
    Family(
        name="rec_two_term",
        level="medium",
        args=(DEPTH,),
        options={
            "s": tuple(range(0, 6)),
            "e": tuple(range(1, 7)),
            "k": (2, 3, 4),
            "o": (piece("+", "plus"), piece("-", "minus")),
        },
        names=("two_terms", "fib_like", "term", "series_term", "sequence"),
        does=(
            "gives {s} for 0, {e} for 1, else the last term {o} {k} times the one before",
            "recursively takes the previous term {o} {k} times the one before it, from {s} and {e}",
            "starts with {s}, {e} and goes on with the last term {o} {k} times the one before",
            "gives term {a} of {s}, {e} and then the last term {o} {k} times the one before",
        ),
        gives=(
            "term {a}: {s} for 0, {e} for 1, else the last {o} {k} times the one before",
            "term {a} of a series from {s}, {e}: the previous {o} {k} times the one before",
            "entry {a} if 0 gives {s}, 1 gives {e}, then the last {o} {k} times the one before",
            "term {a} when it starts {s}, {e} and goes on with the last {o} {k} times the one before",
        ),
        body=(
            "if {a} < 2:\n    return [{s}, {e}][{a}]\nreturn {f}({a} - 1) {o} {k} * {f}({a} - 2)"
        ),
    ),
    Family(
        name="rec_countdown",
        level="medium",
        args=(STEPS,),
        options={
            "e": tuple(range(0, 6)),
            "k": tuple(range(1, 6)),
            "w": (
                piece("[{a}] + {f}({a} - {k})", "from {a} down"),
                piece("{f}({a} - {k}) + [{a}]", "up to {a}"),
            ),
            "m": (piece("[]", "an empty list"), piece("[0]", "[0]"), piece("[-1]", "[-1]")),
        },
        names=("count_down", "make_steps", "ladder", "walk_down", "stairs"),
        does=(
            "recursively lists the numbers {w} in steps of {k}, with {m} for {a} < {e}",
            "is {m} for {a} < {e}, else recursively the list {w} in steps of {k}",
            "builds by recursion the list {w} in steps of {k}; below {e} it is {m}",
            "recursively gives the list {w} in steps of {k}, and {m} for {a} < {e}",
        ),
        gives=(
            "recursively the list {w} in steps of {k}, and {m} if {a} < {e}",
            "{m} for {a} < {e}, else the list {w} in steps of {k}, by recursion",
            "the numbers {w} in steps of {k} by recursion, {m} when {a} is below {e}",
            "{m} if {a} < {e}, else recursively the list {w} in steps of {k}",
        ),
        body="if {a} < {e}:\n    return {m}\nreturn {w}",
    ),
    Family(
        name="rec_list_fold",
        level="hard",
        args=(SMALL_INTS,),
        options={"s": (0, 1, 2, 3, 5, 10, 100), "m": HEAD_MAP},
        names=("fold_list", "recursive_sum", "sum_rec", "total_rec", "list_fold"),
        does=(
            "recursively adds up each number of {a} {m}, with {s} for the empty list",
            "is {s} for an empty {a}, else the first number {m} plus the rest, by recursion",
            "sums by recursion every entry of {a} {m}; the empty list gives {s}",
            "is {s} for the empty list, else the first number of {a} {m} plus the rest, recursively",
        ),
        gives=(
            "by recursion the sum of each number of {a} {m}, with {s} for the empty list",
            "{s} for an empty {a}, else its first number {m} plus the result for the rest",
            "the recursive total of every entry of {a} {m}, starting from {s} if empty",
            "recursively the sum of each number of {a} {m}, and {s} for an empty list",
        ),
        body="if not {a}:\n    return {s}\nreturn {m} + {f}({a}[1:])",
    ),
    Family(
        name="rec_digit_count",
        level="hard",
        args=(LONG_NUMBER,),
        options={"c": DIGIT_COND, "k": (1, 2, 3, 5, 10)},
        names=("count_digits", "digit_count", "rec_digits", "digits_like", "digit_points"),
        does=(
            "recursively counts {k} for each digit of {a} that is {c}",
            "adds {k} for every digit of {a} that is {c}, by recursion",
            "goes through the digits of {a} by recursion, {k} for each that is {c}",
            "counts by recursion {k} for each digit of {a} that is {c}",
        ),
        gives=(
            "by recursion {k} times the number of digits of {a} that are {c}",
            "recursively the sum of {k} for each digit of {a} that is {c}",
            "{k} for all digits of {a} that are {c}, added up recursively",
            "recursively {k} times the number of digits of {a} that are {c}",
        ),
        body="if {a} == 0:\n    return 0\nreturn {k} * ({c}) + {f}({a} // 10)",
    ),
    Family(
        name="rec_divide_count",
        level="medium",
        args=(POSITIVE,),
        options={
            "k": tuple(range(2, 8)),
            "e": tuple(range(1, 9)),
            "m": (1, 2, 3, 5, 10),
        },
        names=("count_divisions", "levels", "halvings", "log_steps", "divide_down"),
        does=(
            "recursively floor-divides {a} by {k} until it is at most {e}, adding {m} a step",
            "is 0 if {a} <= {e}, else {m} plus its value for {a} floor-divided by {k}",
            "counts {m} for each floor division of {a} by {k}, by recursion, down to {e}",
            "adds recursively {m} for each floor division of {a} by {k} until it is at most {e}",
        ),
        gives=(
            "0 if {a} is at most {e}, else {m} plus its value at {a} floor-divided by {k}",
            "recursively {m} for each floor division of {a} by {k} until it is at most {e}",
            "{m} a step for floor-dividing {a} by {k} recursively, 0 from {e} down",
            "0 when {a} is at most {e}, else {m} plus its value for {a} floor-divided by {k}",
        ),
        body="if {a} <= {e}:\n    return 0\nreturn {m} + {f}({a} // {k})",
    ),
    Family(
        name="rec_filter",
        level="hard",
        args=(SMALL_INTS,),
        options={"c": HEAD_COND},
        names=("filter_rec", "rec_filter", "keep_rec", "select_rec", "recursive_keep"),
        does=(
            "keeps by recursion the numbers in {a} that are {c}",
            "recursively filters {a}, keeping numbers that are {c}",
            "goes through {a} by recursion and keeps what is {c}",
        ),
        gives=(
            "by recursion the list of numbers in {a} that are {c}",
            "recursively all numbers of {a} that are {c}",
            "those entries of {a} which are {c}, found by recursion",
        ),
        body=(
            "if not {a}:\n    return []\nif {c}:\n    return [{a}[0]] + {f}({a}[1:])\n"
            "return {f}({a}[1:])"
        ),
        unseen=True,
    ),
    Family(
        name="rec_string",
        level="medium",
        args=(WORD,),
        options={
            "s": SEPARATORS + (".", "~", "=", "!"),
            "w": (
                piece("{a}[0] + {s} + {f}({a}[1:])", "puts {s} between the characters of {a}"),
                piece(
                    "{f}({a}[1:]) + {s} + {a}[0]", "reverses {a} with {s} between its characters"
                ),
            ),
            "e": SMALL_NUMBERS[:4],
        },
        names=("spread", "rec_text", "weave", "thread_text", "rec_join"),
        does=(
            "recursively {w}, leaving {a} alone if shorter than {e}",
            "by recursion {w}; if {a} is shorter than {e} it stays as it is",
            "{w} by recursion, except that a string shorter than {e} stays",
            "by recursion {w}, where a string shorter than {e} stays as it is",
        ),
        gives=(
            "{a} if it is shorter than {e}, else what recursively {w}",
            "the result of a recursion that {w}; shorter than {e} it stays",
            "the string of a recursion that {w} until it is shorter than {e}",
            "what recursively {w}, or {a} alone if it is shorter than {e}",
        ),
        body="if len({a}) < {e}:\n    return {a}\nreturn {w}",
    ),
)
