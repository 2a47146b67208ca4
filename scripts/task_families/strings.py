"""Strings and word lists: joining, cutting, replacing, counting, filtering and changing words."""

from __future__ import annotations

from .core import Family, piece
from .inputs import (
    CASED_SENTENCE,
    CASED_WORD,
    CASED_WORD_LIST,
    MIXED,
    SENTENCE,
    WORD,
    WORD_LIST,
)
from .vocabulary import LETTERS, SEPARATORS, TAGS, WORD_COND, WORD_MAP

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
    Family(
        name="words_filter",
        level="easy",
        args=(WORD_LIST,),
        options={"c": WORD_COND},
        names=("keep_words", "select_words", "filter_words", "pick_words", "word_filter"),
        does=(
            "keeps the words in {a} {c}",
            "filters {a}, keeping only words {c}",
            "picks out of {a} all words {c}",
        ),
        gives=(
            "the list of words in {a} {c}",
            "all words of {a} {c}",
            "just the strings of {a} {c}",
        ),
        body="return [w for w in {a} if {c}]",
    ),
    Family(
        name="words_map",
        level="easy",
        args=(WORD_LIST,),
        options={"m": WORD_MAP},
        names=("map_words", "change_words", "convert_words", "update_words", "restyle_words"),
        does=(
            "makes a list with every word of {a} {m}",
            "takes the list {a} and gives each word {m}",
            "builds a new list holding all words of {a}, each {m}",
        ),
        gives=(
            "a list with every word of {a} {m}",
            "the words of {a}, each {m}",
            "all strings of {a}, every one {m}",
        ),
        body="return [{m} for w in {a}]",
    ),
    Family(
        name="words_filter_map",
        level="hard",
        args=(WORD_LIST,),
        options={"m": WORD_MAP, "c": WORD_COND},
        names=("select_and_edit", "pick_and_change", "some_words", "edit_words", "refine_words"),
        does=(
            "takes the words in {a} {c} and gives each one {m}",
            "keeps words of {a} {c} and lists each {m}",
            "picks from {a} the words {c}, then lists every such word {m}",
        ),
        gives=(
            "the words in {a} {c}, each {m}",
            "a list of all words of {a} {c}, each {m}",
            "each string {m}, but only for words of {a} {c}",
        ),
        body="return [{m} for w in {a} if {c}]",
    ),
    Family(
        name="words_count_in_text",
        level="medium",
        args=(SENTENCE,),
        options={"c": WORD_COND, "k": (1, 2, 3, 5, 10)},
        names=("count_words", "word_score", "points", "rate_text", "word_count"),
        does=(
            "gives {k} points for each word in the text {a} {c} and adds them up",
            "counts {k} for every word of the text {a} {c}",
            "splits {a} into words and sums {k} for each of the words {c}",
        ),
        gives=(
            "{k} times the number of words in the text {a} {c}",
            "the sum of {k} for each of the words in {a} {c}",
            "{k} multiplied by how many words the text {a} has {c}",
        ),
        body="return sum({k} for w in {a}.split() if {c})",
    ),
    Family(
        name="words_edit_text",
        level="medium",
        args=(SENTENCE,),
        options={"m": WORD_MAP, "s": (" ",) + SEPARATORS},
        names=("edit_sentence", "rewrite_text", "join_words", "change_text", "restyle_text"),
        does=(
            "splits {a} into words and joins every word {m} with {s}",
            "joins with {s} the words of the text {a}, each {m}",
            "puts {s} between the words of {a} after each is {m}",
        ),
        gives=(
            "the words of the text {a}, each {m}, joined with {s}",
            "a string of every word of {a} {m}, joined with {s}",
            "all words of {a}, every one {m}, with {s} between them",
        ),
        body="return {s}.join({m} for w in {a}.split())",
    ),
    Family(
        name="words_filter_text",
        level="medium",
        args=(SENTENCE,),
        options={"c": WORD_COND, "s": (" ",) + SEPARATORS},
        names=("filter_sentence", "clean_sentence", "keep_in_text", "reduce_text", "strain"),
        does=(
            "keeps the words of the text {a} {c} and joins them with {s}",
            "joins with {s} only the words in {a} {c}",
            "splits {a}, drops all but the words {c} and joins these with {s}",
        ),
        gives=(
            "the words of the text {a} {c}, joined with {s}",
            "a string with the words in {a} {c}, joined with {s}",
            "only words of {a} {c}, with {s} between them",
        ),
        body="return {s}.join(w for w in {a}.split() if {c})",
    ),
    Family(
        name="words_best",
        level="medium",
        args=(WORD_LIST,),
        options={
            "g": (piece("max", "longest"), piece("min", "shortest")),
            "c": WORD_COND,
            "d": ("", "none", "-", "no", "empty", "?", "x", "missing"),
        },
        names=("find_word", "best_word", "extreme_word", "search_word", "pick_word"),
        does=(
            "finds the {g} among the words in {a} {c}, or gives {d} if there is none",
            "looks in {a} for the {g} of the words {c}, with {d} when none exists",
            "picks from {a} the {g} of all words {c}, falling back to {d}",
        ),
        gives=(
            "the {g} of the words in {a} {c}, or {d} if there is none",
            "the {g} among words of {a} {c}, {d} by default",
            "{d} if {a} has no words {c}, else the {g} of these",
        ),
        body="return {g}([w for w in {a} if {c}], key=len, default={d})",
    ),
    Family(
        name="words_any_all",
        level="easy",
        args=(WORD_LIST,),
        options={
            "q": (
                piece("any(", "at least one of the words"),
                piece("all(", "each of the words"),
                piece("not any(", "none of the words"),
            ),
            "c": tuple(
                [piece(f"w.startswith({c!r})", f"starts with {c!r}") for c in LETTERS]
                + [piece(f"w.endswith({c!r})", f"ends with {c!r}") for c in LETTERS]
                + [piece(f"{c!r} in w", f"contains {c!r}") for c in LETTERS]
                + [piece(f"len(w) > {k}", f"has more than {k} characters") for k in range(2, 9)]
                + [piece(f"len(w) < {k}", f"has fewer than {k} characters") for k in range(3, 9)]
            ),
        },
        names=("check_words", "words_ok", "test_words", "word_check", "valid_words"),
        does=(
            "checks whether {q} in {a} {c}",
            "tells if {q} of the list {a} {c}",
            "decides whether in {a} {q} {c}",
        ),
        gives=(
            "True if {q} in {a} {c}, else False",
            "whether {q} of {a} {c}",
            "True exactly when {q} in the list {a} {c}",
        ),
        body="return {q}{c} for w in {a})",
    ),
    Family(
        name="words_total_length",
        level="medium",
        args=(WORD_LIST,),
        options={"c": WORD_COND, "k": (2, 3, 4, 5, 6, 7, 8, 9, 10)},
        names=("total_length", "sum_lengths", "letters_in", "text_size", "measure"),
        does=(
            "adds up the lengths times {k} of the words in {a} {c}",
            "sums {k} times the length of all words of {a} {c}",
            "totals the lengths of the words {c} in {a}, each times {k}",
        ),
        gives=(
            "the sum of {k} times the length of the words in {a} {c}",
            "the total of the lengths times {k} of words in {a} {c}",
            "{k} times each length, added up over the words of {a} {c}",
        ),
        body="return sum(len(w) * {k} for w in {a} if {c})",
        unseen=True,
    ),
    Family(
        name="words_map_or_keep",
        level="hard",
        args=(CASED_WORD_LIST,),
        options={"m": WORD_MAP, "c": WORD_COND},
        names=("edit_some", "change_matching", "touch_words", "mark_words", "adapt"),
        does=(
            "changes {a} so that words {c} are {m} and the others stay",
            "gives all words of {a} unchanged except words {c}, which are {m}",
            "copies the list {a} but makes words {c} {m}",
        ),
        gives=(
            "the list {a} with the words {c} {m} and the others kept",
            "the words of {a}, those {c} being {m}, the rest unchanged",
            "{a} where only words {c} become {m}",
        ),
        body="return [{m} if {c} else w for w in {a}]",
        valid=lambda v: not v["m"].words[0].startswith(("in ", "with", "cut")),
        unseen=True,
    ),
)
