"""Strings: joining, cutting, replacing, counting, padding, checking."""

from __future__ import annotations

from .core import Family, piece
from .inputs import (
    CASED_SENTENCE,
    CASED_WORD,
    MIXED,
    SENTENCE,
    WORD,
)
from .vocabulary import LETTERS, SEPARATORS, TAGS

CHAR_TESTS = (
    piece("c.isdigit()", "digits"),
    piece("c.isalpha()", "letters"),
    piece("c.isupper()", "upper-case letters"),
    piece("c.islower()", "lower-case letters"),
    piece("not c.isdigit()", "characters that are no digits"),
    piece("not c.isalpha()", "characters that are no letters"),
    piece("c in 'aeiou'", "vowels"),
    piece("c not in 'aeiou'", "characters that are no vowels"),
)
SHORT_JOIN = ("", "-", ",", "_", ".", "+", "/", " ")

FAMILIES = (
    Family(
        name="str_surround",
        level="easy",
        args=(WORD,),
        options={"p": TAGS + SEPARATORS, "q": TAGS + SEPARATORS},
        names=("surround_text", "decorate", "add_marks", "wrap_text", "tag_text"),
        does=(
            "puts {p} before the string {a} and {q} after it",
            "adds {p} to the front and {q} to the end of {a}",
            "surrounds {a} by {p} on the left and {q} on the right",
        ),
        gives=(
            "the string {a} with {p} before it and {q} after it",
            "{a} with {p} in front and {q} at the end",
            "{p}, then {a}, then {q}, as one string",
        ),
        body="return {p} + {a} + {q}",
    ),
    Family(
        name="str_repeat_join",
        level="easy",
        args=(WORD,),
        options={"s": SEPARATORS, "k": tuple(range(2, 10))},
        names=("repeat_text", "repeat_with", "copies", "echo", "multiply_text"),
        does=(
            "repeats {a} {k} times with {s} between the copies",
            "joins {k} copies of {a} with {s}",
            "writes {a} {k} times, separated by {s}",
        ),
        gives=(
            "{k} copies of {a} joined with {s}",
            "the string {a} repeated {k} times, separated by {s}",
            "{a} written {k} times over with {s} in between",
        ),
        body="return {s}.join([{a}] * {k})",
    ),
    Family(
        name="str_replace_case",
        level="medium",
        args=(CASED_SENTENCE,),
        options={
            "p": LETTERS,
            "q": LETTERS + SEPARATORS,
            "m": (
                piece("", "leaves the case alone"),
                piece(".upper()", "converts all to upper case"),
                piece(".lower()", "converts all to lower case"),
                piece(".strip()", "strips blanks at both ends"),
                piece("[::-1]", "reverses everything"),
            ),
        },
        names=("replace_text", "swap_letters", "rewrite", "substitute", "translate"),
        does=(
            "replaces {p} by {q} in {a} and then {m}",
            "first puts {q} in place of every {p} in {a}, then {m}",
            "turns each {p} of {a} into {q} and after that {m}",
        ),
        gives=(
            "what you get if one replaces {p} by {q} in {a} and then {m}",
            "the result when one replaces {p} in {a} by {q} and then {m}",
            "the string from a program that turns {p} into {q} in {a} and then {m}",
        ),
        body="return {a}.replace({p}, {q}){m}",
        valid=lambda v: v["p"] != v["q"],
    ),
    Family(
        name="str_count_letters",
        level="easy",
        args=(CASED_SENTENCE,),
        options={"c": LETTERS, "e": LETTERS, "o": (piece("+", "plus"), piece("-", "minus"))},
        names=("count_letters", "letter_count", "count_chars", "letters", "score_text"),
        does=(
            "counts {c} in {a} {o} the count of {e}",
            "takes the number of {c} in {a} {o} the number of {e}",
            "computes how often {c} occurs in {a} {o} how often {e} does",
        ),
        gives=(
            "the count of {c} in {a} {o} the count of {e}",
            "the number of {c} in {a} {o} the number of {e} in it",
            "how often {c} occurs in {a} {o} how often {e} occurs",
        ),
        body="return {a}.count({c}) {o} {a}.count({e})",
        valid=lambda v: v["c"] != v["e"],
    ),
    Family(
        name="str_keep_chars",
        level="medium",
        args=(MIXED,),
        options={
            "t": CHAR_TESTS,
            "j": SHORT_JOIN,
            "m": (
                piece("c", "as they are"),
                piece("c * 2", "doubled"),
                piece("c.upper()", "in upper case"),
            ),
        },
        names=("keep_chars", "pick_chars", "clean_text", "only_chars", "filter_text"),
        does=(
            "keeps only the {t} of {a}, {m}, and joins them with {j}",
            "takes the {t} of {a}, {m}, joined with {j}",
            "drops all of {a} but the {t}, which are joined {m} with {j}",
        ),
        gives=(
            "the {t} of {a}, {m}, joined with {j}",
            "a string of the {t} in {a}, {m}, joined with {j}",
            "those characters of {a} that are {t}, {m}, with {j} between",
        ),
        body="return {j}.join({m} for c in {a} if {t})",
    ),
    Family(
        name="str_truncate",
        level="medium",
        args=(SENTENCE,),
        options={"k": tuple(range(4, 25)), "e": ("...", "..", "!", "-", "~", "+", "#", "*", "etc")},
        names=("shorten", "truncate", "limit_text", "cut_text", "abbreviate"),
        does=(
            "cuts {a} to {k} characters and adds {e} if it is longer than {k}",
            "shortens {a} to {k} characters followed by {e} when it is longer than that",
            "leaves {a} alone up to length {k}, else gives its first {k} characters and {e}",
        ),
        gives=(
            "{a} if it has at most {k} characters, else its first {k} characters plus {e}",
            "the first {k} characters of {a} plus {e} if it is longer, else {a}",
            "{a} itself up to length {k}, otherwise {k} characters of it and {e}",
        ),
        body="return {a} if len({a}) <= {k} else {a}[:{k}] + {e}",
    ),
    Family(
        name="str_justify",
        level="easy",
        args=(WORD,),
        options={
            "m": (
                piece("rjust", "on the left"),
                piece("ljust", "on the right"),
                piece("center", "on both sides"),
            ),
            "k": tuple(range(6, 17)),
            "c": SEPARATORS + ("0", ".", "x", "="),
        },
        names=("pad_text", "justify", "fill_text", "align", "widen"),
        does=(
            "pads {a} {m} with {c} to width {k}",
            "fills {a} up {m} with {c} until it is {k} characters wide",
            "widens {a} {m} to {k} characters, using {c}",
        ),
        gives=(
            "the string {a} padded {m} with {c} to width {k}",
            "{a} filled up {m} with {c} to {k} characters",
            "{a} made {k} characters wide by adding {c} {m}",
        ),
        body="return {a}.{m}({k}, {c})",
    ),
    Family(
        name="str_split_case",
        level="medium",
        args=(CASED_WORD,),
        options={
            "k": tuple(range(2, 8)),
            "m": (
                piece("{a}[:{k}].upper() + {a}[{k}:]", "the first {k} characters in upper case"),
                piece("{a}[:-{k}] + {a}[-{k}:].upper()", "the last {k} characters in upper case"),
                piece("{a}[:{k}].lower() + {a}[{k}:]", "the first {k} characters in lower case"),
                piece("{a}[:-{k}] + {a}[-{k}:].lower()", "the last {k} characters in lower case"),
                piece("{a}[:{k}][::-1] + {a}[{k}:]", "the first {k} characters reversed"),
                piece("{a}[:-{k}] + {a}[-{k}:][::-1]", "the last {k} characters reversed"),
                piece("{a}[:{k}] + '-' + {a}[{k}:]", "'-' put after the first {k} characters"),
                piece("{a}[:{k}] + ' ' + {a}[{k}:]", "a blank put after the first {k} characters"),
                piece("{a}[{k}:] + {a}[:{k}]", "the first {k} characters moved to the end"),
                piece("{a}[-{k}:] + {a}[:-{k}]", "the last {k} characters moved to the front"),
            ),
        },
        names=("change_part", "edit_text", "half_case", "restyle", "alter"),
        does=(
            "gives {a} with {m}",
            "rewrites {a} with {m}",
            "produces a copy of {a} with {m}",
        ),
        gives=(
            "the string {a} with {m}",
            "{a} with {m}",
            "a version of {a} having {m}",
        ),
        body="return {m}",
    ),
    Family(
        name="str_ends",
        level="easy",
        args=(WORD,),
        options={"i": tuple(range(2, 8)), "j": tuple(range(2, 8)), "s": ("",) + SEPARATORS[:5]},
        names=("both_ends", "head_tail", "first_last", "ends_of", "outer_part"),
        does=(
            "joins the first {i} and the last {j} characters of {a} with {s}",
            "takes the first {i} characters of {a}, then {s}, then the last {j}",
            "glues the first {i} and the last {j} letters of {a} together with {s}",
        ),
        gives=(
            "the first {i} and the last {j} characters of {a} joined with {s}",
            "the first {i} characters of {a}, then {s}, then its last {j}",
            "a string of the first {i} letters of {a}, {s} and the last {j} letters",
        ),
        body="return {a}[:{i}] + {s} + {a}[-{j}:]",
    ),
    Family(
        name="str_check",
        level="medium",
        args=(WORD,),
        options={
            "t": (
                piece("{a}.startswith({c})", "starts with {c}"),
                piece("{a}.endswith({c})", "ends with {c}"),
                piece("{c} in {a}", "contains {c}"),
                piece("{c} not in {a}", "does not contain {c}"),
            ),
            "o": (piece("and", "and"), piece("or", "or")),
            "c": LETTERS,
            "r": (
                piece(">", "more than"),
                piece("<", "fewer than"),
                piece("==", "exactly"),
                piece(">=", "at least"),
            ),
            "k": tuple(range(3, 10)),
        },
        names=("check_text", "is_valid", "test_word", "accepts", "text_ok"),
        does=(
            "checks whether {a} {t} {o} has {r} {k} characters",
            "tells if the string {a} {t} {o} has {r} {k} characters",
            "decides whether {a} {t} {o} is {r} {k} characters long",
        ),
        gives=(
            "True if {a} {t} {o} has {r} {k} characters, else False",
            "whether the string {a} {t} {o} has {r} {k} characters",
            "True exactly when {a} {t} {o} its length is {r} {k}",
        ),
        body="return {t} {o} len({a}) {r} {k}",
    ),
)
