"""Words: filtering, changing, counting and picking words of a list or of a text."""

from __future__ import annotations

from .core import Family, piece
from .inputs import CASED_WORD_LIST, SENTENCE, WORD_LIST
from .vocabulary import LETTERS, SEPARATORS, WORD_COND, WORD_MAP

FAMILIES = (
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
            "selects the words of {a} {c}",
        ),
        gives=(
            "the list of words in {a} {c}",
            "all words of {a} {c}",
            "just the strings of {a} {c}",
            "a list of the words of {a} {c}",
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
            "lists every word of {a} {m}",
        ),
        gives=(
            "a list with every word of {a} {m}",
            "the words of {a}, each {m}",
            "all strings of {a}, every one {m}",
            "the list {a} with each word {m}",
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
            "lists the words of {a} {c}, each {m}",
        ),
        gives=(
            "the words in {a} {c}, each {m}",
            "a list of all words of {a} {c}, each {m}",
            "each string {m}, but only for words of {a} {c}",
            "all words in {a} {c}, each {m}",
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
            "counts {k} for each of the words in the text {a} {c}",
        ),
        gives=(
            "{k} times the number of words in the text {a} {c}",
            "the sum of {k} for each of the words in {a} {c}",
            "{k} multiplied by how many words the text {a} has {c}",
            "{k} for each of the words of the text {a} {c}, added up",
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
            "joins every word of the text {a} {m} with {s}",
        ),
        gives=(
            "the words of the text {a}, each {m}, joined with {s}",
            "a string of every word of {a} {m}, joined with {s}",
            "all words of {a}, every one {m}, with {s} between them",
            "every word of the text {a} {m}, joined with {s}",
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
            "joins the words of the text {a} {c} with {s}",
        ),
        gives=(
            "the words of the text {a} {c}, joined with {s}",
            "a string with the words in {a} {c}, joined with {s}",
            "only words of {a} {c}, with {s} between them",
            "the words {c} of the text {a}, joined with {s}",
        ),
        body="return {s}.join(w for w in {a}.split() if {c})",
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
            "tells whether {q} in {a} {c}",
        ),
        gives=(
            "True if {q} in {a} {c}, else False",
            "whether {q} of {a} {c}",
            "True exactly when {q} in the list {a} {c}",
            "True if {q} of the list {a} {c}",
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
    Family(
        name="words_lengths",
        level="medium",
        args=(WORD_LIST,),
        options={
            "o": (piece("+", "plus"), piece("-", "minus"), piece("*", "times")),
            "k": (2, 3, 4, 5, 6, 7, 8, 9, 10),
            "c": WORD_COND,
        },
        names=("word_lengths", "lengths_of", "list_lengths", "sizes", "letter_counts"),
        does=(
            "lists the length of each of the words in {a} {c}, {o} {k}",
            "takes the words of {a} {c} and lists their lengths, {o} {k}",
            "gives the lengths of the words in {a} {c}, each {o} {k}",
        ),
        gives=(
            "the lengths of the words in {a} {c}, each {o} {k}",
            "a list of the lengths of the words of {a} {c}, each {o} {k}",
            "the length {o} {k} of each of the words in {a} {c}",
        ),
        body="return [len(w) {o} {k} for w in {a} if {c}]",
        unseen=True,
    ),
)
