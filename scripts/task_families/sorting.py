"""Sorting: by keys, filtered, mapped, the first few, pairs and rows."""

from __future__ import annotations

from .core import Family, piece
from .inputs import INTS, LONG_INTS, PAIRS, RECORDS, WORD_LIST
from .vocabulary import NUM_COND, NUM_KEY, NUM_MAP, ORDER, WORD_COND, WORD_KEY

LIMITS = tuple(range(2, 6))

FAMILIES = (
    Family(
        name="sort_numbers_key",
        level="medium",
        args=(LONG_INTS,),
        options={"k": NUM_KEY, "r": ORDER},
        names=("sort_numbers", "order_numbers", "arrange", "sort_by", "rank_numbers"),
        does=(
            "sorts {a} by {k} in {r} order",
            "puts the numbers of {a} in {r} order of their {k}",
            "arranges the list {a} by {k}, {r}",
            "sorts the numbers of {a} by {k}, {r}",
        ),
        gives=(
            "the numbers of {a} sorted by {k} in {r} order",
            "{a} sorted by {k}, {r}",
            "a list of the numbers in {a}, ordered by {k}, {r}",
            "the list {a} sorted by {k} in {r} order",
        ),
        body="return sorted({a}, {k}{r})",
    ),
    Family(
        name="sort_words_key",
        level="medium",
        args=(WORD_LIST,),
        options={"k": WORD_KEY, "r": ORDER},
        names=("sort_words", "order_words", "arrange_words", "words_by", "rank_words"),
        does=(
            "sorts the words {a} by {k} in {r} order",
            "puts the words of {a} in {r} order of their {k}",
            "arranges the words in {a} by {k}, {r}",
            "sorts the words of {a} in {r} order of their {k}",
        ),
        gives=(
            "the words of {a} sorted by {k} in {r} order",
            "the words in {a}, sorted by {k}, {r}",
            "a list of the words in {a}, ordered by {k}, {r}",
            "the words {a}, sorted by {k} in {r} order",
        ),
        body="return sorted({a}, {k}{r})",
    ),
    Family(
        name="sort_top",
        level="medium",
        args=(LONG_INTS,),
        options={
            "r": (piece(", reverse=True", "largest", "biggest"), piece("", "smallest")),
            "k": LIMITS,
            "m": NUM_MAP,
        },
        names=("top_numbers", "best_numbers", "take_top", "leading", "extremes"),
        does=(
            "lists the {k} {r} numbers in {a}, {r} first, each {m}",
            "sorts {a} with the {r} first and gives the first {k} numbers, each {m}",
            "picks the {k} {r} numbers of {a}, starting with the {r}, each {m}",
            "takes the {k} {r} numbers of {a}, {r} first, every one {m}",
        ),
        gives=(
            "the {k} {r} numbers in {a}, {r} first, each {m}",
            "a list of the {k} {r} numbers of {a}, {r} first, each {m}",
            "the first {k} numbers of {a} sorted with the {r} first, each {m}",
            "the {k} {r} of the numbers in {a}, each {m}, {r} first",
        ),
        body="return [{m} for x in sorted({a}{r})[:{k}]]",
    ),
    Family(
        name="sort_filtered",
        level="medium",
        args=(LONG_INTS,),
        options={"c": NUM_COND, "r": ORDER},
        names=("sort_some", "filter_and_sort", "sorted_matching", "clean_and_sort", "tidy"),
        does=(
            "sorts the numbers in {a} that are {c} in {r} order",
            "takes numbers of {a} that are {c} and sorts them {r}",
            "drops what is not {c} from {a} and sorts the rest {r}",
            "sorts in {r} order the numbers of {a} that are {c}",
        ),
        gives=(
            "the numbers in {a} that are {c}, in {r} order",
            "a sorted list, {r}, of all numbers of {a} that are {c}",
            "those entries of {a} which are {c}, sorted {r}",
            "the numbers of {a} that are {c}, sorted {r}",
        ),
        body="return sorted([x for x in {a} if {c}]{r})",
        valid=lambda v: "not" not in v["c"].words[0],
    ),
    Family(
        name="sort_pairs",
        level="medium",
        args=(PAIRS,),
        options={
            "i": (
                piece("p[0]", "word"),
                piece("p[1]", "number"),
                piece("len(p[0])", "length of the word"),
                piece("p[0][-1]", "last letter of the word"),
                piece("p[1] % 10", "last digit of the number"),
                piece("p[1] % 3", "number modulo 3"),
                piece("p[1] % 5", "number modulo 5"),
                piece("p[1] % 7", "number modulo 7"),
            ),
            "r": ORDER,
            "m": (
                piece("p[0]", "words"),
                piece("p[1]", "numbers"),
                piece("p[0].upper()", "upper-cased words"),
                piece("p[1] * 2", "doubled numbers"),
                piece("p[1] ** 2", "squared numbers"),
                piece("p[0][0]", "first letters"),
            ),
        },
        names=("sort_pairs", "order_pairs", "pairs_by", "arrange_pairs", "rank_pairs"),
        does=(
            "sorts the (word, number) pairs in {a} by {i}, {r}, and lists their {m}",
            "puts the (word, number) pairs of {a} in {r} order of the {i} and lists the {m}",
            "lists the {m} of all (word, number) pairs in {a} ordered by {i}, {r}",
            "sorts the (word, number) pairs of {a} by {i}, {r}, and gives the {m}",
        ),
        gives=(
            "the {m} of the (word, number) pairs in {a} sorted by {i}, {r}",
            "a list of the {m} from the (word, number) pairs {a} in {r} order of the {i}",
            "the {m} in {a}, a list of (word, number) pairs, ordered {r} by {i}",
            "the {m} of the (word, number) pairs {a} in {r} order of the {i}",
        ),
        body="return [{m} for p in sorted({a}, key=lambda p: {i}{r})]",
    ),
    Family(
        name="sort_nth",
        level="easy",
        args=(LONG_INTS,),
        options={
            "k": tuple(range(0, 6)),
            "r": (piece(", reverse=True", "descending"), piece("", "ascending")),
            "o": (piece("+", "plus"), piece("*", "times"), piece("-", "minus")),
            "m": tuple(range(2, 10)),
        },
        names=("nth_number", "pick_sorted", "ranked", "at_rank", "kth_value"),
        does=(
            "sorts {a} in {r} order and gives the number at index {k} {o} {m}",
            "takes the item at index {k} of {a} after sorting {r}, {o} {m}",
            "orders {a} {r} and computes entry number {k}, counted from 0, {o} {m}",
            "gives the number at index {k} after sorting {a} in {r} order, {o} {m}",
        ),
        gives=(
            "the number at index {k} of {a} sorted in {r} order, {o} {m}",
            "the item at index {k} after sorting {a} {r}, {o} {m}",
            "entry {k}, counted from 0, of the {r} sorted list {a}, {o} {m}",
            "the number at index {k} of {a} after sorting {r}, {o} {m}",
        ),
        body="return sorted({a}{r})[{k}] {o} {m}",
    ),
    Family(
        name="sort_mapped",
        level="medium",
        args=(INTS,),
        options={"m": NUM_MAP, "r": ORDER},
        names=("sort_results", "map_and_sort", "ordered_results", "sorted_values", "line_up"),
        does=(
            "makes every number of {a} {m} and sorts the results in {r} order",
            "sorts in {r} order the results of each number of {a} {m}",
            "lists all numbers of {a}, each {m}, sorted {r}",
        ),
        gives=(
            "the results of every number of {a} {m}, in {r} order",
            "a sorted list, {r}, of each number of {a} {m}",
            "the numbers of {a}, each {m}, sorted {r}",
        ),
        body="return sorted([{m} for x in {a}]{r})",
        unseen=True,
    ),
    Family(
        name="sort_words_filtered",
        level="hard",
        args=(WORD_LIST,),
        options={"c": WORD_COND, "k": WORD_KEY, "r": ORDER},
        names=("sort_some_words", "ordered_words", "words_in_order", "clean_words", "tidy_words"),
        does=(
            "sorts the words in {a} {c} by {k}, {r}",
            "keeps words of {a} {c} and puts them in {r} order of their {k}",
            "arranges by {k}, {r}, only the words of {a} {c}",
        ),
        gives=(
            "the words in {a} {c}, sorted by {k}, {r}",
            "a list of words of {a} {c}, in {r} order of their {k}",
            "those words of {a} {c}, ordered by {k}, {r}",
        ),
        body="return sorted([w for w in {a} if {c}], {k}{r})",
        unseen=True,
    ),
    Family(
        name="sort_rows",
        level="hard",
        args=(RECORDS,),
        options={
            "i": (
                piece("r['name']", "name"),
                piece("r['age']", "age"),
                piece("r['score']", "score"),
                piece("len(r['name'])", "length of the name"),
            ),
            "r": ORDER,
            "m": (
                piece("r['name']", "names"),
                piece("r['age']", "ages"),
                piece("r['score']", "scores"),
                piece("r['name'].upper()", "upper-cased names"),
                piece("r['age'] + 1", "ages plus 1"),
                piece("r['score'] * 2", "doubled scores"),
            ),
        },
        names=("sort_rows", "rows_by", "ordered_rows", "sort_records", "rank_rows"),
        does=(
            "sorts the rows in {a} by their {i}, {r}, and lists the {m}",
            "puts the dictionaries of {a} in {r} order of {i} and lists the {m}",
            "lists the {m} of all rows of {a} ordered by {i}, {r}",
        ),
        gives=(
            "the {m} of the rows in {a} sorted by {i}, {r}",
            "a list of the {m} from the dictionaries in {a} in {r} order of {i}",
            "the {m} found in {a}, with rows ordered by {i}, {r}",
        ),
        body="return [{m} for r in sorted({a}, key=lambda r: {i}{r})]",
        unseen=True,
    ),
)
