"""Numbers: formulas, branches, digits, divisors, rounding, formatting, loops."""

from __future__ import annotations

from .core import Family, piece
from .inputs import INT, INT_B, POSITIVE, SMALL
from .vocabulary import NUM_COND, SMALL_COND, SMALL_NUMBERS

SIGN = (piece("+", "plus"), piece("-", "minus"))
INT_COND = tuple(
    piece(c.code.replace("x ", "{a} ").replace("-x", "-{a}"), *c.words) for c in NUM_COND
)
LABELS = (
    "yes",
    "no",
    "fizz",
    "buzz",
    "big",
    "small",
    "hot",
    "cold",
    "red",
    "blue",
    "left",
    "right",
)

FAMILIES = (
    Family(
        name="num_linear",
        level="easy",
        args=(INT,),
        options={"k": SMALL_NUMBERS, "o": SIGN, "m": tuple(range(1, 21))},
        names=("linear", "formula", "scale_and_shift", "apply_formula", "line_value"),
        does=(
            "multiplies {a} by {k} and then takes that {o} {m}",
            "computes {k} times {a} {o} {m}",
            "takes the number {a} times {k}, {o} {m}",
            "computes {a} times {k} {o} {m}",
        ),
        gives=(
            "{k} times {a} {o} {m}",
            "the value of {a} multiplied by {k} {o} {m}",
            "the product of {k} and {a}, {o} {m}",
            "{a} multiplied by {k}, {o} {m}",
        ),
        body="return {a} * {k} {o} {m}",
    ),
    Family(
        name="num_two_formula",
        level="easy",
        args=(INT, INT_B),
        options={"k": SMALL_NUMBERS, "o": SIGN, "m": SMALL_NUMBERS},
        names=("weighted_sum", "combine", "two_numbers", "mix_numbers", "blend"),
        does=(
            "computes {k} times {a} {o} {m} times {b}",
            "takes {k} times {a} {o} {m} times {b}",
            "multiplies {a} by {k} and takes that {o} {b} multiplied by {m}",
            "computes {a} times {k} {o} {b} times {m}",
        ),
        gives=(
            "{k} times {a} {o} {m} times {b}",
            "the value of {a} multiplied by {k} {o} {b} multiplied by {m}",
            "the product of {k} and {a} {o} the product of {m} and {b}",
            "{a} times {k} {o} {b} times {m}",
        ),
        body="return {a} * {k} {o} {b} * {m}",
    ),
    Family(
        name="num_branch",
        level="hard",
        args=(INT,),
        options={
            "c": INT_COND,
            "m": tuple(
                [piece(f"{{a}} * {k}", f"{k} times {{a}}") for k in range(2, 10)]
                + [piece(f"{{a}} + {k}", f"{{a}} plus {k}") for k in range(2, 10)]
            ),
            "e": tuple(
                [piece(f"{{a}} - {k}", f"{{a}} minus {k}") for k in range(2, 10)]
                + [piece(f"{{a}} // {k}", f"{{a}} floor-divided by {k}") for k in range(2, 10)]
            ),
        },
        names=("branch", "decide", "either_or", "two_ways", "step_function"),
        does=(
            "gives {m} if {a} is {c} and {e} otherwise",
            "computes {m} when {a} is {c}, else {e}",
            "checks if {a} is {c}: then it gives {m}, if not {e}",
            "gives {m} when {a} is {c} and {e} otherwise",
        ),
        gives=(
            "{m} if {a} is {c}, else {e}",
            "{m} when {a} is {c} and {e} otherwise",
            "{e}, unless {a} is {c}: then {m}",
            "{m} if {a} is {c} and else {e}",
        ),
        body="if {c}:\n    return {m}\nreturn {e}",
    ),
    Family(
        name="num_label",
        level="medium",
        args=(INT,),
        options={"c": INT_COND, "p": LABELS, "q": LABELS},
        names=("label", "describe", "name_number", "classify", "judge"),
        does=(
            "gives {p} if {a} is {c} and {q} otherwise",
            "labels the number {a}: {p} when it is {c}, else {q}",
            "checks if {a} is {c}: then it gives {p}, if not {q}",
            "gives {p} when {a} is {c}, else {q}",
        ),
        gives=(
            "{p} if {a} is {c}, else {q}",
            "the string {p} when {a} is {c} and {q} otherwise",
            "{q}, unless {a} is {c}: then {p}",
            "{p} if the number {a} is {c} and {q} otherwise",
        ),
        body="return {p} if {c} else {q}",
        valid=lambda v: v["p"] != v["q"],
    ),
    Family(
        name="num_digits",
        level="medium",
        args=(POSITIVE,),
        options={
            "g": (
                piece("sum(", "sum"),
                piece("max(", "largest"),
                piece("min(", "smallest"),
            ),
            "m": tuple(
                [piece(f"int(c) * {k}", f"times {k}") for k in range(2, 11)]
                + [piece(f"int(c) + {k}", f"plus {k}") for k in range(1, 11)]
                + [piece(f"int(c) ** {k}", f"to the power {k}") for k in range(2, 5)]
                + [piece(f"int(c) % {k}", f"modulo {k}") for k in range(2, 8)]
            ),
        },
        names=("digits", "digit_value", "sum_digits", "digit_score", "from_digits"),
        does=(
            "computes the {g} of the digits of {a}, each {m}",
            "takes every digit of {a} {m} and gives the {g}",
            "writes {a} out in digits and finds the {g} of each digit {m}",
            "gives the {g} of each digit of {a} {m}",
        ),
        gives=(
            "the {g} of the digits of {a}, each {m}",
            "the {g} of every digit of {a} {m}",
            "the {g} among all digits of the number {a}, each one {m}",
            "the {g} of the digits of the number {a}, every one {m}",
        ),
        body="return {g}{m} for c in str({a}))",
    ),
    Family(
        name="num_format",
        level="medium",
        args=(POSITIVE,),
        options={
            "k": tuple(range(3, 12)),
            "t": (
                piece("b", "in binary"),
                piece("o", "in octal"),
                piece("x", "in hexadecimal"),
                piece("d", "in decimal"),
            ),
            "c": ("0", "*", "#", "-", "."),
        },
        names=("format_number", "to_text", "show_number", "write_number", "digits_text"),
        does=(
            "writes {a} {t}, filled up on the left with {c} to {k} characters",
            "formats {a} {t} and pads it on the left with {c} to width {k}",
            "turns {a} into a string {t} of width {k}, padded left with {c}",
            "writes {a} {t} and pads it on the left with {c} to {k} characters",
        ),
        gives=(
            "the number {a} {t}, filled up on the left with {c} to {k} characters",
            "a string of {a} {t}, padded on the left with {c} to width {k}",
            "{a} written {t}, {k} characters wide, with {c} on the left",
            "{a} {t} as a string, padded on the left with {c} to width {k}",
        ),
        body="return format({a}, '{t}').rjust({k}, {c})",
    ),
    Family(
        name="num_loop",
        level="hard",
        args=(POSITIVE,),
        options={
            "k": tuple(range(3, 25)),
            "m": tuple(
                [piece(f"//= {k}", f"floor-dividing {{a}} by {k}") for k in range(2, 6)]
                + [piece(f"-= {k}", f"subtracting {k} from {{a}}") for k in range(2, 13)]
            ),
            "r": (piece(">", "greater than"), piece(">=", "at least")),
        },
        names=("count_steps", "loop_count", "how_often", "shrink_steps", "steps"),
        does=(
            "counts the steps of {m} while it is {r} {k}",
            "keeps {m} as long as it is {r} {k} and counts the steps",
            "counts how many times it goes on {m} while {a} is {r} {k}",
            "counts how many steps of {m} are made while it is {r} {k}",
        ),
        gives=(
            "the number of steps of {m} while it is {r} {k}",
            "how many steps are made by {m} as long as it is {r} {k}",
            "the count of rounds of {m}, which lasts while {a} is {r} {k}",
            "the number of steps of {m} as long as it is {r} {k}",
        ),
        body=("count = 0\nwhile {a} {r} {k}:\n    {a} {m}\n    count += 1\nreturn count"),
    ),
    Family(
        name="num_range_sum",
        level="medium",
        args=(SMALL,),
        options={
            "s": (0, 1, 2, 3, 4, 5),
            "c": tuple(c for c in SMALL_COND if "%" in c.code or "!=" in c.code),
            "k": tuple(range(1, 8)),
        },
        names=("range_sum", "sum_range", "add_numbers", "sum_up_to", "series_sum"),
        does=(
            "adds up the numbers from {s} to {a} that are {c}, each times {k}",
            "sums {k} times each number from {s} to {a} that is {c}",
            "totals {k} times all integers from {s} to {a} that are {c}",
        ),
        gives=(
            "the sum of the numbers from {s} to {a} that are {c}, each times {k}",
            "{k} times the sum of all numbers from {s} to {a} that are {c}",
            "the total of {k} times every integer from {s} to {a} that is {c}",
        ),
        body="return sum(x * {k} for x in range({s}, {a} + 1) if {c})",
        unseen=True,
    ),
)
