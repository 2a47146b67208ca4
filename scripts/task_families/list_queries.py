"""Lists, second part: flattening, columns, best values, checks, two lists at once, positions."""

from __future__ import annotations

from .core import Family, piece
from .inputs import INTS, LONG_INTS, MATRIX, TWO_INTS, TWO_INTS_B, WIDE_MATRIX
from .vocabulary import NUM_COND, NUMBERS

FAMILIES = (
    Family(
        name="list_flatten_if",
        level="medium",
        args=(MATRIX,),
        options={"c": NUM_COND},
        names=("flatten_rows", "collect", "flat_list", "unnest", "join_rows"),
        does=(
            "flattens {a} into one list, keeping numbers that are {c}",
            "collects from all rows of {a} the numbers that are {c}",
            "goes over the nested list {a} and lists each number that is {c}",
            "lists all numbers in the rows of {a} that are {c}",
        ),
        gives=(
            "one flat list of the numbers in the rows of {a} that are {c}",
            "all numbers in the nested list {a} that are {c}",
            "every number that is {c} from the rows of {a}, in a single list",
            "a flat list of all numbers of {a} that are {c}",
        ),
        body="return [x for row in {a} for x in row if {c}]",
    ),
    Family(
        name="list_column",
        level="easy",
        args=(WIDE_MATRIX,),
        options={
            "i": (0, 1, 2, 3),
            "m": tuple(
                [piece(f"* {k}", f"multiplied by {k}") for k in range(2, 16)]
                + [piece(f"+ {k}", f"increased by {k}") for k in range(2, 16)]
                + [piece(f"- {k}", f"decreased by {k}") for k in range(2, 16)]
            ),
        },
        names=("get_column", "column", "pick_column", "extract", "column_values"),
        does=(
            "takes the item at index {i} of every row in {a}, {m}",
            "lists the value at index {i} of each row of {a}, {m}",
            "reads column {i} of {a} and gives each value {m}",
            "gives the item at index {i} of each row of {a}, {m}",
        ),
        gives=(
            "a list of the items at index {i} of the rows in {a}, {m}",
            "for each row of {a} its value at index {i}, {m}",
            "the column with index {i} of {a}, every value {m}",
            "the value at index {i} of every row in {a}, {m}",
        ),
        body="return [row[{i}] {m} for row in {a}]",
    ),
    Family(
        name="list_best_or_default",
        level="medium",
        args=(INTS,),
        options={
            "g": (piece("max", "largest", "biggest"), piece("min", "smallest")),
            "c": NUM_COND,
            "d": (0, -1, 1, 5, 7, 10, 99, 100),
        },
        names=("best_or_default", "extreme", "find_best", "pick_best", "search"),
        does=(
            "finds the {g} number in {a} that is {c}, or gives {d} if there is none",
            "looks for the {g} number of {a} that is {c}, with {d} when none exists",
            "picks the {g} entry that is {c} from {a}, falling back to {d}",
            "gives the {g} number of {a} that is {c}, or {d} if none exists",
        ),
        gives=(
            "the {g} number in {a} that is {c}, or {d} if there is none",
            "the {g} of those numbers in {a} that are {c}, {d} by default",
            "{d} if no entry of {a} is {c}, else the {g} such entry",
            "the {g} number of {a} that is {c}, {d} if there is none",
        ),
        body="return {g}([x for x in {a} if {c}], default={d})",
    ),
    Family(
        name="list_any_all",
        level="easy",
        args=(INTS,),
        options={
            "q": (
                piece("any", "at least one number"),
                piece("all", "every number"),
                piece("not any", "no number"),
            ),
            "c": NUM_COND,
        },
        names=("check_numbers", "test_list", "check_list", "verify", "holds"),
        does=(
            "checks whether {q} in {a} is {c}",
            "tells if {q} of {a} is {c}",
            "decides whether in {a} {q} is {c}",
            "tells whether {q} in the list {a} is {c}",
        ),
        gives=(
            "True if {q} in {a} is {c}, else False",
            "whether {q} of {a} is {c}",
            "True exactly when {q} of the list {a} is {c}",
            "True if {q} of {a} is {c} and False otherwise",
        ),
        body="return {q}({c} for x in {a})",
    ),
    Family(
        name="list_zip_formula",
        level="medium",
        args=(TWO_INTS, TWO_INTS_B),
        options={
            "o": (
                piece("+", "plus"),
                piece("-", "minus"),
                piece("*", "times"),
            ),
            "k": NUMBERS,
        },
        names=("combine", "zip_lists", "merge_lists", "pair_up", "mix"),
        does=(
            "combines {a} and {b}: each number of {a} {o} {k} times its partner in {b}",
            "lists, position by position, the number in {a} {o} {k} times the one in {b}",
            "goes through {a} and {b} together and takes p {o} {k} times q",
            "takes each number of {a} {o} {k} times the matching number of {b}",
        ),
        gives=(
            "for each position the number of {a} {o} {k} times the number of {b}",
            "the list of p {o} {k} times q for p, q from {a} and {b}",
            "the elements of {a}, each {o} {k} times the matching element of {b}",
            "a list of each number of {a} {o} {k} times its partner in {b}",
        ),
        body="return [p {o} {k} * q for p, q in zip({a}, {b})]",
    ),
    Family(
        name="list_pad",
        level="medium",
        args=(INTS,),
        options={
            "v": (0, 1, -1, 5, 7, 9, 10, 99),
            "k": tuple(range(4, 11)),
            "s": (
                piece("{a} + [{v}] * ({k} - len({a}))", "at the end", "on the right"),
                piece("[{v}] * ({k} - len({a})) + {a}", "at the start", "on the left"),
            ),
        },
        names=("pad_list", "fill_up", "fill_list", "stretch", "pad_to"),
        does=(
            "pads the list {a} {s} with {v} up to length {k}",
            "fills {a} up {s} with the value {v} until it has {k} items",
            "adds {v} {s} of {a} as often as needed to reach {k} items",
            "extends the list {a} {s} with {v} to length {k}",
        ),
        gives=(
            "the list {a} padded {s} with {v} to length {k}",
            "{a} filled up {s} with {v} so that it has {k} items",
            "{a} extended {s} by copies of {v} to {k} elements",
            "the list {a} filled up {s} with {v} to length {k}",
        ),
        body="return {s}",
    ),
    Family(
        name="list_positions",
        level="medium",
        args=(LONG_INTS,),
        options={"c": NUM_COND, "k": (0, 1, 10, 100)},
        names=("positions", "find_indexes", "index_list", "locate", "where"),
        does=(
            "lists the indexes of numbers in {a} that are {c}, counting from {k}",
            "finds the positions, counted from {k}, of numbers in {a} that are {c}",
            "numbers the entries of {a} from {k} and lists where they are {c}",
            "lists the positions of numbers of {a} that are {c}, counting from {k}",
        ),
        gives=(
            "the indexes of the numbers in {a} that are {c}, counting from {k}",
            "the positions of all numbers of {a} that are {c}, starting at {k}",
            "where in {a}, if numbered from {k}, the entries are {c}",
            "the indexes, counted from {k}, of numbers in {a} that are {c}",
        ),
        body="return [i for i, x in enumerate({a}, {k}) if {c}]",
    ),
)
