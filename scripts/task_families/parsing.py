"""Parsing: separated numbers and fields, key-value text, lines, patterns, small formats."""

from __future__ import annotations

import random

from .core import Family, Hints, Kind, piece
from .inputs import TEXT_NAMES, WORDS, int_list, mixed, word
from .vocabulary import NUM_COND, SEPARATORS, WORD_COND, WORD_MAP

INNER = (":", "=", "-", "_")
OUTER = (",", ";", "/", "|", "+", "*", "#")


def _separator(hints: Hints) -> str:
    found = [t for t in hints.texts if t in SEPARATORS]
    return found[0] if found else ","


def _numbers_text(rng: random.Random, hints: Hints) -> str:
    values = int_list(0, 50)(rng, hints)
    return _separator(hints).join(str(v) for v in values)


def _fields_text(rng: random.Random, hints: Hints) -> str:
    return _separator(hints).join(word(rng, Hints(hints.ints)) for _ in range(rng.randint(4, 6)))


def _rejoin_text(rng: random.Random, hints: Hints) -> str:
    """Fields with either of the two separators between, the wrong one now and then."""
    found = [t for t in hints.texts if t in SEPARATORS]
    text = rng.choice(WORDS)
    usual = rng.choice(found)
    for _ in range(rng.randint(3, 5)):
        text += (usual if rng.random() < 0.8 else rng.choice(found)) + rng.choice(WORDS)
    return text


def _words_text(rng: random.Random, hints: Hints) -> str:
    other = Hints(hints.ints, tuple(t for t in hints.texts if t not in SEPARATORS))
    return _separator(hints).join(word(rng, other) for _ in range(rng.randint(3, 5)))


def _pairs_text(rng: random.Random, hints: Hints) -> str:
    inner = next(t for t in hints.texts if t in INNER)
    outer = next(t for t in hints.texts if t in OUTER)
    pairs = [f"{rng.choice(WORDS)}{inner}{rng.randint(1, 60)}" for _ in range(rng.randint(2, 4))]
    return outer.join(pairs)


def _two_numbers(rng: random.Random, hints: Hints) -> str:
    return f"{rng.randint(0, 40)}{_separator(hints)}{rng.randint(0, 60)}"


def _lines_text(rng: random.Random, hints: Hints) -> str:
    separator = _separator(hints)
    return "\n".join(
        separator.join((rng.choice(WORDS), str(rng.randint(1, 60)), rng.choice(WORDS)))
        for _ in range(rng.randint(2, 3))
    )


NUMBERS_TEXT = Kind(_numbers_text, TEXT_NAMES)
FIELDS_TEXT = Kind(_fields_text, TEXT_NAMES)
REJOIN_TEXT = Kind(_rejoin_text, TEXT_NAMES)
WORDS_TEXT = Kind(_words_text, TEXT_NAMES)
PAIRS_TEXT = Kind(_pairs_text, TEXT_NAMES)
TWO_NUMBERS = Kind(_two_numbers, TEXT_NAMES)
LINES_TEXT = Kind(_lines_text, TEXT_NAMES)
MIXED_TEXT = Kind(mixed, TEXT_NAMES)

FAMILIES = (
    Family(
        name="parse_numbers",
        level="medium",
        args=(NUMBERS_TEXT,),
        options={
            "s": SEPARATORS,
            "m": tuple(
                [piece(f"int(x) * {k}", f"times {k}") for k in range(2, 13)]
                + [piece(f"int(x) + {k}", f"plus {k}") for k in range(2, 13)]
                + [piece(f"int(x) - {k}", f"minus {k}") for k in range(2, 13)]
            ),
        },
        names=("parse_numbers", "read_numbers", "to_numbers", "text_to_ints", "split_numbers"),
        does=(
            "splits {a} at {s} and makes a list of the integers, each {m}",
            "reads the integers separated by {s} in {a} and lists each {m}",
            "parses {a}, integers with {s} between, into a list of each {m}",
            "splits {a} at {s} and lists the integers, each {m}",
        ),
        gives=(
            "the integers separated by {s} in {a}, each {m}",
            "a list of the integers in {a}, which {s} separates, each {m}",
            "every integer of the text {a} {m}, when {s} is the separator",
            "the list of integers in {a} split at {s}, each {m}",
        ),
        body="return [{m} for x in {a}.split({s})]",
    ),
    Family(
        name="parse_total",
        level="medium",
        args=(NUMBERS_TEXT,),
        options={
            "s": SEPARATORS,
            "g": (piece("sum", "sum"), piece("max", "largest"), piece("min", "smallest")),
            "o": (piece("+", "plus"), piece("*", "times"), piece("-", "minus")),
            "k": tuple(range(2, 13)),
        },
        names=("parse_total", "text_total", "read_and_add", "number_from_text", "text_sum"),
        does=(
            "splits {a} at {s} and gives the {g} of the integers, {o} {k}",
            "finds the {g} of the integers separated by {s} in {a}, {o} {k}",
            "reads integers with {s} between from {a} and takes the {g} {o} {k}",
            "computes the {g} of the integers in {a} split at {s}, {o} {k}",
        ),
        gives=(
            "the {g} of the integers separated by {s} in {a}, {o} {k}",
            "the {g} {o} {k} for integers in {a} split at {s}",
            "the {g} among all integers of {a}, which {s} separates, {o} {k}",
            "the {g} of the integers in {a}, with {s} between, {o} {k}",
        ),
        body="return {g}(int(x) for x in {a}.split({s})) {o} {k}",
    ),
    Family(
        name="parse_field",
        level="easy",
        args=(FIELDS_TEXT,),
        options={
            "s": SEPARATORS,
            "i": (0, 1, 2, 3, -1, -2),
            "m": (
                piece("", "unchanged"),
                piece(".upper()", "in upper case"),
                piece(".title()", "in title case"),
                piece("[::-1]", "reversed"),
                piece("[:2]", "cut to 2 characters"),
                piece("[:3]", "cut to 3 characters"),
            ),
        },
        names=("get_field", "read_field", "pick_field", "field", "split_and_pick"),
        does=(
            "splits {a} at {s} and gives the part at index {i}, {m}",
            "takes the field with index {i} of {a}, separated by {s}, {m}",
            "cuts {a} at every {s} and picks the piece with index {i}, {m}",
            "gives the field with index {i} of {a} split at {s}, {m}",
        ),
        gives=(
            "the part at index {i} after splitting {a} at {s}, {m}",
            "the field with index {i} of {a}, which {s} separates, {m}",
            "the piece number {i} of {a} cut at each {s}, {m}",
            "the part with index {i} of {a} split at {s}, {m}",
        ),
        body="return {a}.split({s})[{i}]{m}",
    ),
    Family(
        name="parse_rejoin",
        level="easy",
        args=(REJOIN_TEXT,),
        options={
            "s": SEPARATORS,
            "j": SEPARATORS,
            "m": (
                piece("{a}.split({s})", "in the same order"),
                piece("{a}.split({s})[::-1]", "in reverse order"),
                piece("sorted({a}.split({s}))", "in sorted order"),
                piece("{a}.split({s})[1:]", "without the first"),
                piece("{a}.split({s})[:-1]", "without the last"),
            ),
        },
        names=("rejoin", "change_separator", "reorder", "split_join", "resplit"),
        does=(
            "splits {a} at {s} and joins the parts with {j} {m}",
            "takes the parts of {a} between {s} and joins them {m} with {j}",
            "cuts {a} at every {s} and puts the pieces {m} together with {j}",
            "splits {a} at {s} and puts the parts together {m} with {j}",
        ),
        gives=(
            "the parts of {a} split at {s}, joined with {j} {m}",
            "the fields of {a}, which {s} separates, joined {m} with {j}",
            "the pieces of {a} cut at each {s}, {m}, with {j} between",
            "the parts of {a} between {s}, {m}, joined with {j}",
        ),
        body="return {j}.join({m})",
        valid=lambda v: v["s"] != v["j"],
    ),
    Family(
        name="parse_pairs",
        level="hard",
        args=(PAIRS_TEXT,),
        options={
            "s": OUTER,
            "e": INNER,
            "m": (
                piece("int(v)", "integer"),
                piece("v", "string"),
                piece("int(v) * 2", "doubled integer"),
                piece("int(v) + 1", "integer plus 1"),
                piece("int(v) * 10", "integer times 10"),
                piece("int(v) - 5", "integer minus 5"),
            ),
        },
        names=("parse_pairs", "read_pairs", "parse_settings", "text_to_dict", "parse_options"),
        does=(
            "splits {a} at {s} into entries, each a key, {e} and a value, and makes a dict with {m} values",
            "splits {a} at {s}, then every part at {e}, into a dictionary with {m} values",
            "reads {a}, with {s} between entries and {e} inside, into a dict with {m} values",
            "makes a dict with {m} values from {a}, split at {s} and then at {e}",
        ),
        gives=(
            "a dictionary of the entries in {a} split at {s}, each split at {e}, with {m} values",
            "a dict with {m} values from {a} split at {s} and then at {e}",
            "a dict with {m} values from {a}, where {s} separates entries and {e} stands inside",
            "a dictionary with {m} values from {a}, with {s} between entries and {e} inside",
        ),
        body=(
            "pairs = [p.split({e}) for p in {a}.split({s})]\nreturn {{k: {m} for k, v in pairs}}"
        ),
    ),
    Family(
        name="parse_two_units",
        level="easy",
        args=(TWO_NUMBERS,),
        options={
            "s": SEPARATORS,
            "k": (2, 3, 5, 7, 8, 10, 12, 16, 20, 24, 30, 60, 100, 360),
            "o": (piece("+", "plus"), piece("-", "minus")),
        },
        names=("to_units", "read_amount", "parse_amount", "total_units", "convert"),
        does=(
            "splits {a} at {s} into two integers and gives {k} times the first {o} the second",
            "reads two integers with {s} between from {a}: {k} times the first {o} the second",
            "parses the two integers in {a} around {s}; result: {k} times the first {o} the other",
            "splits {a} at {s} into two integers and takes {k} times the first {o} the second",
        ),
        gives=(
            "{k} times the first {o} the second of the two integers in {a} split at {s}",
            "for two integers with {s} between in {a}, {k} times the first {o} the second",
            "the first integer in {a} times {k} {o} the second, when {s} separates them",
            "{k} times the first {o} the second integer of {a} split at {s}",
        ),
        body="p, q = {a}.split({s})\nreturn int(p) * {k} {o} int(q)",
    ),
    Family(
        name="parse_regex",
        level="medium",
        args=(MIXED_TEXT,),
        options={
            "t": (
                piece("[0-9]", "digits"),
                piece("[a-z]", "lower-case letters"),
                piece("[A-Z]", "upper-case letters"),
                piece("[a-zA-Z]", "letters"),
            ),
            "k": (1, 2, 3, 4),
            "j": ("", "-", ",", "+", "/", "_", ":", " "),
        },
        names=("find_runs", "extract_runs", "regex_runs", "find_parts", "scan_text"),
        does=(
            "uses a regex to find runs of at least {k} {t} in {a} and joins them with {j}",
            "joins with {j} the runs of {k} or more {t} that a regex finds in {a}",
            "finds by regex all runs in {a} of {k} or more {t}, joined with {j}",
            "finds with a regex the runs of at least {k} {t} in {a}, joined with {j}",
        ),
        gives=(
            "the runs of at least {k} {t} found in {a} by a regex, joined with {j}",
            "a string of the regex matches of {k} or more {t} in {a}, joined with {j}",
            "every run of {k} or more {t} in {a}, by regex, with {j} between",
            "the runs of {k} or more {t} in {a}, found by a regex, joined with {j}",
        ),
        body="import re\nreturn {j}.join(re.findall('{t}{{{k},}}', {a}))",
    ),
    Family(
        name="parse_filter_numbers",
        level="hard",
        args=(NUMBERS_TEXT,),
        options={"s": SEPARATORS, "c": NUM_COND},
        names=(
            "parse_some",
            "read_matching",
            "numbers_where",
            "pick_from_text",
            "parse_and_filter",
        ),
        does=(
            "splits {a} at {s} and keeps the integers that are {c}",
            "reads the integers separated by {s} in {a} and keeps those that are {c}",
            "parses {a}, integers with {s} between, and lists all that are {c}",
        ),
        gives=(
            "the integers separated by {s} in {a} that are {c}",
            "a list of the integers in {a}, split at {s}, that are {c}",
            "every integer of the text {a} that is {c}, when {s} is the separator",
        ),
        body="return [x for x in map(int, {a}.split({s})) if {c}]",
        unseen=True,
    ),
    Family(
        name="parse_words",
        level="hard",
        args=(WORDS_TEXT,),
        options={"s": SEPARATORS, "c": WORD_COND, "m": WORD_MAP},
        names=("parse_words", "words_of", "read_words", "split_words", "word_fields"),
        does=(
            "splits {a} at {s} and lists the words {c}, each {m}",
            "cuts {a} at {s}, keeps words {c} and gives each {m}",
            "reads the words between {s} in {a}, only words {c}, each {m}",
        ),
        gives=(
            "the words {c} of {a} split at {s}, each {m}",
            "a list of the words {c} in {a}, which {s} separates, each {m}",
            "each word {m}, for the words {c} in {a} cut at {s}",
        ),
        body="return [{m} for w in {a}.split({s}) if {c}]",
        unseen=True,
    ),
)
