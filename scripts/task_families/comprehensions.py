"""Comprehensions: filter then map, map or keep, two conditions, ranges, nested loops."""

from __future__ import annotations

from .core import Family, piece
from .inputs import INTS, LONG_INTS, MATRIX, SMALL, SMALL_INTS, TWO_INTS, TWO_INTS_B
from .vocabulary import NUM_COND, NUM_MAP, SMALL_COND

AGGREGATE = (
    piece("sum", "sum"),
    piece("max", "largest"),
    piece("min", "smallest"),
)
LOGIC = (piece("and", "and"), piece("or", "or"))
RANGE_COND = tuple(c for c in SMALL_COND if "% " in c.code)

FAMILIES = (
    Family(
        name="comp_filter_map",
        level="hard",
        args=(INTS,),
        options={"m": NUM_MAP, "c": NUM_COND},
        names=("filter_map", "select_and_change", "pick_and_map", "convert_some", "refine"),
        does=(
            "takes the numbers in {a} that are {c} and gives each one {m}",
            "keeps numbers of {a} that are {c} and lists them {m}",
            "picks from {a} what is {c}, then lists every such number {m}",
            "keeps the numbers in {a} that are {c}, each {m}",
        ),
        gives=(
            "the numbers in {a} that are {c}, each {m}",
            "a list of every number of {a} that is {c}, {m}",
            "each entry {m}, but only for entries of {a} that are {c}",
            "every number in {a} that is {c}, {m}",
        ),
        body="return [{m} for x in {a} if {c}]",
    ),
    Family(
        name="comp_sum_filter",
        level="medium",
        args=(INTS,),
        options={"m": NUM_MAP, "c": NUM_COND},
        names=("sum_some", "total_of", "sum_matching", "add_up", "partial_sum"),
        does=(
            "adds up the numbers in {a} that are {c}, each {m}",
            "sums every number {m} over those numbers of {a} that are {c}",
            "totals the entries of {a} that are {c} after each is {m}",
            "computes the sum of numbers in {a} that are {c}, each {m}",
        ),
        gives=(
            "the sum of the numbers in {a} that are {c}, each {m}",
            "the sum over {a} of each number {m} if it is {c}",
            "the total of all entries of {a} that are {c}, every one {m}",
            "the sum of every number {m} for numbers in {a} that are {c}",
        ),
        body="return sum({m} for x in {a} if {c})",
    ),
    Family(
        name="comp_map_or_keep",
        level="hard",
        args=(INTS,),
        options={"m": NUM_MAP, "c": NUM_COND},
        names=("change_some", "map_or_keep", "update_some", "adjust", "touch_up"),
        does=(
            "gives each number in {a} {m} if it is {c}, else unchanged",
            "changes {a} so that numbers that are {c} are {m} and others stay",
            "leaves {a} as it is, except that numbers that are {c} get {m}",
            "makes numbers in {a} that are {c} {m} and leaves the others unchanged",
        ),
        gives=(
            "a list of the numbers in {a}, {m} where they are {c}, else unchanged",
            "{a} with every number that is {c} {m} and the others kept",
            "the entries of {a}, those that are {c} being {m}, the rest as before",
            "the list {a} where numbers that are {c} are {m}, the others unchanged",
        ),
        body="return [{m} if {c} else x for x in {a}]",
    ),
    Family(
        name="comp_two_conditions",
        level="medium",
        args=(LONG_INTS,),
        options={"c": NUM_COND, "o": LOGIC, "e": NUM_COND},
        names=("filter_both", "double_filter", "select_by_two", "narrow", "sift"),
        does=(
            "keeps the numbers in {a} that are {c} {o} {e}",
            "filters {a} for numbers that are {c} {o} {e}",
            "throws away all of {a} except numbers that are {c} {o} {e}",
            "takes only the numbers in {a} that are {c} {o} {e}",
        ),
        gives=(
            "the list of numbers in {a} that are {c} {o} {e}",
            "all numbers of {a} that are {c} {o} {e}",
            "those entries of {a} which are {c} {o} {e}",
            "a list of the numbers of {a} that are {c} {o} {e}",
        ),
        body="return [x for x in {a} if {c} {o} {e}]",
        valid=lambda v: v["c"].code[:3] != v["e"].code[:3],
    ),
    Family(
        name="comp_count_two",
        level="medium",
        args=(LONG_INTS,),
        options={"c": NUM_COND, "o": LOGIC, "e": NUM_COND},
        names=("count_both", "count_by_two", "tally_two", "count_special", "matches"),
        does=(
            "counts the numbers in {a} that are {c} {o} {e}",
            "counts how many numbers of {a} are {c} {o} {e}",
            "tells how many entries of {a} are {c} {o} {e}",
        ),
        gives=(
            "how many numbers in {a} are {c} {o} {e}",
            "the number of values in {a} that are {c} {o} {e}",
            "the count of entries of {a} being {c} {o} {e}",
        ),
        body="return sum(1 for x in {a} if {c} {o} {e})",
        valid=lambda v: v["c"].code[:3] != v["e"].code[:3],
        unseen=True,
    ),
    Family(
        name="comp_range_filter",
        level="medium",
        args=(SMALL,),
        options={"s": tuple(range(0, 6)), "m": NUM_MAP, "c": RANGE_COND},
        names=("range_values", "numbers_up_to", "list_range", "make_range", "series"),
        does=(
            "lists the numbers from {s} to {a} that are {c}, each {m}",
            "goes from {s} up to {a} and lists every number that is {c}, {m}",
            "collects the integers {s} to {a} being {c}, every one {m}",
            "collects the numbers from {s} to {a} that are {c}, {m}",
        ),
        gives=(
            "the numbers from {s} to {a} that are {c}, each {m}",
            "a list of all integers from {s} to {a} that are {c}, {m}",
            "every integer between {s} and {a}, both included, that is {c}, {m}",
            "all numbers from {s} to {a} that are {c}, each {m}",
        ),
        body="return [{m} for x in range({s}, {a} + 1) if {c}]",
    ),
    Family(
        name="comp_every_nth",
        level="medium",
        args=(LONG_INTS,),
        options={"k": (2, 3, 4), "r": (0, 1, 2, 3), "m": NUM_MAP},
        names=("every_nth", "pick_positions", "by_index", "sample_list", "skip_some"),
        does=(
            "takes every {k}th number of {a} starting at index {r}, each {m}",
            "starts at index {r} of {a}, steps by {k} and lists each number {m}",
            "walks through {a} from index {r} in steps of {k}, each number {m}",
            "takes every {k}th number of {a} from index {r} on, {m}",
        ),
        gives=(
            "every {k}th number of {a} from index {r} on, each {m}",
            "the numbers of {a} at index {r} and every {k} further, {m}",
            "what stands at index {r} of {a} and each {k} places later, {m}",
            "every {k}th number of {a} starting at index {r}, {m}",
        ),
        body="return [{m} for x in {a}[{r}::{k}]]",
    ),
    Family(
        name="comp_index_weight",
        level="medium",
        args=(INTS,),
        options={
            "s": (0, 1, 2, 3, 5, 10),
            "o": (piece("+", "plus"), piece("-", "minus"), piece("*", "times")),
            "k": (1, 2, 3, 4, 5, 6, 7, 8, 9, 10),
        },
        names=("with_index", "index_values", "weighted", "number_list", "weigh"),
        does=(
            "numbers the items of {a} from {s} and gives each item {o} {k} times its number",
            "lists each number of {a} {o} {k} times its position, counted from {s}",
            "enumerates {a} from {s} and takes every item {o} {k} times the counter",
            "gives each number of {a} {o} {k} times its index, counting from {s}",
        ),
        gives=(
            "each number of {a} {o} {k} times its position, counting from {s}",
            "a list of the items of {a}, each {o} {k} times its index counted from {s}",
            "for every entry of {a} its value {o} {k} times its number, the first being {s}",
            "every number of {a} {o} {k} times its position, counted from {s}",
        ),
        body="return [x {o} {k} * i for i, x in enumerate({a}, {s})]",
        valid=lambda v: not (v["o"].code == "*" and v["s"] == 0),
    ),
    Family(
        name="comp_nested_map",
        level="hard",
        args=(MATRIX,),
        options={"m": NUM_MAP, "c": NUM_COND},
        names=("map_rows", "clean_rows", "row_lists", "nested_map", "change_grid"),
        does=(
            "keeps in each row of {a} the numbers that are {c} and gives them {m}",
            "goes row by row through {a} and lists numbers that are {c}, each {m}",
            "reduces every row of {a} to numbers that are {c}, each {m}",
            "lists for each row of {a} the numbers that are {c}, each {m}",
        ),
        gives=(
            "for each row of {a} the list of its numbers that are {c}, each {m}",
            "the rows of {a} with only numbers that are {c}, each {m}",
            "a nested list: row by row the entries of {a} that are {c}, {m}",
            "the rows of {a}, keeping numbers that are {c}, each {m}",
        ),
        body="return [[{m} for x in row if {c}] for row in {a}]",
    ),
    Family(
        name="comp_pairs",
        level="hard",
        args=(TWO_INTS, TWO_INTS_B),
        options={
            "o": (
                piece("p + q", "sum"),
                piece("p * q", "product"),
                piece("p - q", "difference"),
                piece("max(p, q)", "maximum"),
                piece("min(p, q)", "minimum"),
            ),
            "r": (
                piece(">", "greater than"),
                piece("<", "less than"),
                piece(">=", "at least"),
                piece("<=", "at most"),
            ),
            "k": tuple(range(3, 31)),
        },
        names=("find_pairs", "make_pairs", "pair_list", "all_pairs", "match_pairs"),
        does=(
            "lists the pairs (p, q) with p in {a} and q in {b} whose {o} is {r} {k}",
            "pairs each p of {a} with each q of {b} if their {o} is {r} {k}",
            "tries p from {a} with q from {b}, keeping pairs with a {o} {r} {k}",
            "finds all pairs (p, q) from {a} and {b} whose {o} is {r} {k}",
        ),
        gives=(
            "all pairs (p, q) of p in {a} and q in {b} whose {o} is {r} {k}",
            "the list of (p, q) from {a} and {b} where the {o} is {r} {k}",
            "those combinations (p, q) of {a} and {b} that have a {o} {r} {k}",
            "the list of pairs (p, q) with p in {a}, q in {b} and a {o} {r} {k}",
        ),
        body="return [(p, q) for p in {a} for q in {b} if {o} {r} {k}]",
    ),
    Family(
        name="comp_map_then_filter",
        level="hard",
        args=(SMALL_INTS,),
        options={"m": NUM_MAP, "c": NUM_COND},
        names=("map_then_filter", "change_then_keep", "two_steps", "pipeline", "stages"),
        does=(
            "takes every number of {a} {m} and then keeps results that are {c}",
            "first makes each number in {a} {m}, then drops what is not {c}",
            "turns {a} into each number {m}, of which only those that are {c} stay",
        ),
        gives=(
            "the results that are {c} after every number of {a} is {m}",
            "from the numbers of {a}, each {m}, those results that are {c}",
            "whichever results are {c} once all of {a} is {m}",
        ),
        body="return [x for x in [{m} for x in {a}] if {c}]",
        valid=lambda v: "not" not in v["c"].words[0],
        unseen=True,
    ),
    Family(
        name="comp_max_mapped",
        level="hard",
        args=(INTS,),
        options={
            "g": (piece("max", "largest", "biggest"), piece("min", "smallest")),
            "m": NUM_MAP,
            "c": NUM_COND,
        },
        names=("best_result", "top_value", "limit_of", "peak", "edge_value"),
        does=(
            "finds the {g} result of each number {m} among numbers of {a} that are {c}",
            "gives the {g} value of numbers in {a} that are {c}, each {m}",
            "takes numbers of {a} that are {c}, each {m}, and picks the {g}",
        ),
        gives=(
            "the {g} of the numbers in {a} that are {c}, each {m}",
            "the {g} result when every number of {a} that is {c} is {m}",
            "the {g} among entries of {a} that are {c}, each one {m}",
        ),
        body="return {g}({m} for x in {a} if {c})",
        unseen=True,
    ),
)
