"""Sets: union, intersection and difference, distinct results, missing numbers, membership."""

from __future__ import annotations

from .core import Family, piece
from .inputs import INTS, LONG_INTS, POSITIVE_INTS, SENTENCE, SMALL_INTS, Kind, int_list
from .vocabulary import NUM_COND, NUM_MAP, ORDER, SMALL_COND

LEFT = Kind(int_list(0, 15, 4, 7), ("first", "left", "xs", "one"))
RIGHT = Kind(int_list(0, 15, 4, 7), ("second", "right", "ys", "two"))
OPERATIONS = (
    piece("&", "in both {a} and {b}"),
    piece("|", "in {a} or {b}"),
    piece("-", "in {a} but not in {b}"),
    piece("^", "in exactly one of {a} and {b}"),
)

FAMILIES = (
    Family(
        name="set_map",
        level="easy",
        args=(SMALL_INTS,),
        options={"m": NUM_MAP},
        names=("result_set", "map_to_set", "distinct_results", "make_set", "value_set"),
        does=(
            "makes a set with every number of {a} {m}",
            "takes {a} and collects each number {m} in a set",
            "builds a set holding all numbers of {a}, each {m}",
            "collects every number of {a} {m} in a set",
        ),
        gives=(
            "a set with every number of {a} {m}",
            "the set of the numbers of {a}, each {m}",
            "the different results of all numbers of {a} {m}, as a set",
            "the set of every number of {a} {m}",
        ),
        body="return {{{m} for x in {a}}}",
    ),
    Family(
        name="set_count_distinct",
        level="medium",
        args=(SMALL_INTS,),
        options={
            "m": tuple(m for m in NUM_MAP if "%" in m.code or "//" in m.code),
            "c": SMALL_COND,
        },
        names=("count_distinct", "count_different", "variety", "distinct", "unique_count"),
        does=(
            "counts the distinct results of the numbers in {a} that are {c}, each {m}",
            "counts how many different values numbers of {a} that are {c} give, each {m}",
            "tells how many distinct results each number {m} has, if it is in {a} and {c}",
        ),
        gives=(
            "the number of distinct results of numbers in {a} that are {c}, each {m}",
            "how many different values numbers of {a} that are {c} have, each {m}",
            "the size of the set of entries of {a} that are {c}, each {m}",
        ),
        body="return len({{{m} for x in {a} if {c}}})",
        unseen=True,
    ),
    Family(
        name="set_combine",
        level="medium",
        args=(LEFT, RIGHT),
        options={"o": OPERATIONS, "r": ORDER, "c": SMALL_COND},
        names=("combine_sets", "compare_lists", "set_values", "merge_sets", "shared"),
        does=(
            "lists the distinct numbers {o} that are {c}, in {r} order",
            "finds the numbers {o} that are {c} and sorts them {r}",
            "sorts in {r} order all different numbers {o} that are {c}",
            "lists in {r} order the distinct numbers {o} that are {c}",
        ),
        gives=(
            "the distinct numbers {o} that are {c}, in {r} order",
            "a list of the numbers {o} that are {c}, sorted {r}",
            "all different values {o} which are {c}, {r}",
            "all numbers {o} that are {c}, sorted {r}, each once",
        ),
        body="return sorted([x for x in set({a}) {o} set({b}) if {c}]{r})",
    ),
    Family(
        name="set_missing",
        level="medium",
        args=(POSITIVE_INTS,),
        options={"s": tuple(range(0, 8)), "e": tuple(range(10, 26))},
        names=("missing_numbers", "find_missing", "gaps", "absent", "not_there"),
        does=(
            "lists the numbers from {s} to {e} that are not in {a}",
            "finds all integers from {s} up to {e} that {a} lacks",
            "goes from {s} to {e} and lists each number missing in {a}",
            "finds the numbers from {s} to {e} that are not in {a}",
        ),
        gives=(
            "the numbers from {s} to {e} that are not in {a}",
            "a list of all integers from {s} up to {e} missing in {a}",
            "whichever numbers of {s} to {e} do not occur in {a}",
            "all numbers from {s} to {e} missing in {a}",
        ),
        body="return [x for x in range({s}, {e} + 1) if x not in {a}]",
    ),
    Family(
        name="set_edit",
        level="easy",
        args=(SMALL_INTS,),
        options={
            "p": tuple(range(0, 13)),
            "q": tuple(range(0, 13)),
            "o": (
                piece("|", "with {p} and {q} added"),
                piece("-", "with {p} and {q} removed"),
                piece("&", "reduced to {p} and {q} as far as present"),
            ),
        },
        names=("edit_set", "change_set", "set_with", "to_set", "adjust_set"),
        does=(
            "turns {a} into a set {o}",
            "makes a set of the numbers in {a} {o}",
            "converts the list {a} to a set {o}",
            "gives the set of the numbers in {a} {o}",
        ),
        gives=(
            "the set of the numbers in {a} {o}",
            "a set of all numbers of {a} {o}",
            "the entries of {a} as a set {o}",
            "the numbers of {a} as a set {o}",
        ),
        body="return set({a}) {o} {{{p}, {q}}}",
        valid=lambda v: v["p"] != v["q"],
    ),
    Family(
        name="set_letters",
        level="medium",
        args=(SENTENCE,),
        options={
            "c": tuple(
                [
                    piece(f"c not in {t!r}", f"not in {t!r}")
                    for t in (
                        "aeiou",
                        "abc",
                        "xyz",
                        "rst",
                        " ",
                        " a",
                        " e",
                        "lmn",
                        "nop",
                        "ae",
                        "io",
                        "st",
                    )
                ]
                + [
                    piece(f"c in {t!r}", f"in {t!r}")
                    for t in (
                        "aeiou",
                        "abcde",
                        "lmnop",
                        "rstuv",
                        "acegi",
                        "bdfhj",
                        "nopqr",
                        "stone",
                        "table",
                    )
                ]
                + [piece(f"c > {t!r}", f"after {t!r} in the alphabet") for t in "cdefghklmnoprst"]
            ),
            "r": ORDER,
            "j": ("", "-", ",", "."),
        },
        names=("letters_of", "distinct_letters", "letter_set", "used_chars", "alphabet_of"),
        does=(
            "sorts the distinct characters of {a} {c} in {r} order and joins them with {j}",
            "joins with {j} the different characters of {a} {c}, sorted {r}",
            "collects the characters of {a} {c} once each, {r}, joined with {j}",
            "joins the distinct characters of {a} {c} in {r} order with {j}",
        ),
        gives=(
            "the distinct characters of {a} {c} in {r} order, joined with {j}",
            "a string of the different characters in {a} {c}, sorted {r}, joined with {j}",
            "every character of {a} {c}, once, {r}, with {j} between",
            "the different characters of {a} {c}, {r}, joined with {j}",
        ),
        body="return {j}.join(sorted([c for c in set({a}) if {c}]{r}))",
    ),
    Family(
        name="set_unique_sorted",
        level="medium",
        args=(LONG_INTS,),
        options={"m": NUM_MAP, "r": ORDER},
        names=("unique_sorted", "sorted_results", "unique_values", "ordered_set", "dedupe"),
        does=(
            "lists the distinct results of every number in {a} {m}, in {r} order",
            "sorts in {r} order the different values of each number of {a} {m}",
            "removes duplicates from the numbers of {a}, each {m}, and sorts them {r}",
        ),
        gives=(
            "the distinct results of every number in {a} {m}, in {r} order",
            "a list in {r} order of the different values of each number of {a} {m}",
            "all different results of numbers of {a}, each {m}, sorted {r}",
        ),
        body="return sorted({{{m} for x in {a}}}{r})",
        unseen=True,
    ),
    Family(
        name="set_filter",
        level="medium",
        args=(INTS,),
        options={"c": NUM_COND},
        names=("filter_to_set", "chosen_set", "set_of", "unique_matching", "pick_set"),
        does=(
            "makes a set of the numbers in {a} that are {c}",
            "collects numbers of {a} that are {c} in a set",
            "takes {a} and builds a set of all numbers that are {c}",
        ),
        gives=(
            "the set of numbers in {a} that are {c}",
            "a set of all numbers of {a} that are {c}",
            "those entries of {a} which are {c}, as a set",
        ),
        body="return {{x for x in {a} if {c}}}",
        unseen=True,
    ),
)
