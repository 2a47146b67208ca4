"""Lists: mapping, filtering, slices, replacements, windows, neighbours."""

from __future__ import annotations

from .core import Family, Piece, piece
from .inputs import INTS, LONG_INTS
from .vocabulary import NUM_COND, NUM_MAP

WINDOW = (piece("sum", "sum"), piece("max", "maximum"), piece("min", "minimum"))
NEIGHBOURS = (
    piece("q - p", "next minus previous"),
    piece("p - q", "previous minus next"),
    piece("p + q", "sum"),
    piece("p * q", "product"),
    piece("max(p, q)", "maximum"),
    piece("min(p, q)", "minimum"),
    piece("abs(p - q)", "absolute difference"),
)


def _edges(top: int) -> tuple[Piece, ...]:
    out = []
    for k in range(2, top):
        out.append(piece(f"[:{k}]", f"the first {k} elements"))
        out.append(piece(f"[-{k}:]", f"the last {k} elements"))
        out.append(piece(f"[{k}:]", f"everything after the first {k} elements"))
        out.append(piece(f"[:-{k}]", f"everything but the last {k} elements"))
        out.append(piece(f"[::{k}]", f"every element whose index is a multiple of {k}"))
        out.append(piece(f"[1:{k + 1}]", f"the elements from index 1 to {k}"))
        out.append(piece(f"[:{k}][::-1]", f"the first {k} elements in reverse"))
        out.append(piece(f"[-{k}:][::-1]", f"the last {k} elements in reverse"))
    return tuple(out)


FAMILIES = (
    Family(
        name="list_map",
        level="easy",
        args=(INTS,),
        options={"m": NUM_MAP},
        names=("map_numbers", "change_all", "update_values", "map_list", "convert_list"),
        does=(
            "takes the list {a} and gives every number {m}",
            "makes a list with every number of {a} {m}",
            "builds a new list holding each number of {a} {m}",
            "makes every number of the list {a} {m}",
        ),
        gives=(
            "a list with every number of {a} {m}",
            "the numbers of {a}, each {m}",
            "all entries of {a}, every one {m}",
            "the list {a} with each number {m}",
        ),
        body="return [{m} for x in {a}]",
    ),
    Family(
        name="list_filter",
        level="easy",
        args=(INTS,),
        options={"c": NUM_COND},
        names=("keep_numbers", "select_items", "filter_list", "pick_numbers", "choose"),
        does=(
            "keeps the numbers in {a} that are {c}",
            "filters {a}, keeping only numbers that are {c}",
            "drops everything from {a} that is not {c}",
            "takes only numbers of {a} that are {c}",
        ),
        gives=(
            "the list of numbers in {a} that are {c}",
            "all numbers of {a} that are {c}",
            "those entries of {a} which are {c}",
            "a list of all numbers in {a} that are {c}",
        ),
        body="return [x for x in {a} if {c}]",
        valid=lambda v: not v["c"].words[0].startswith("not"),  # "not not divisible" in the third
    ),
    Family(
        name="list_count_if",
        level="easy",
        args=(INTS,),
        options={"c": NUM_COND},
        names=("count_numbers", "count_matching", "how_many", "tally", "count_items"),
        does=(
            "counts the numbers in {a} that are {c}",
            "counts how many numbers of {a} are {c}",
            "tells how many entries of {a} are {c}",
            "counts all values in {a} that are {c}",
        ),
        gives=(
            "how many numbers in {a} are {c}",
            "the number of values in {a} that are {c}",
            "the count of entries of {a} being {c}",
            "how many of the numbers of {a} are {c}",
        ),
        body="return sum(1 for x in {a} if {c})",
    ),
    Family(
        name="list_slice",
        level="easy",
        args=(LONG_INTS,),
        options={"e": _edges(9)},
        names=("take_part", "cut_list", "slice_list", "part_of", "trim_list"),
        does=(
            "takes {e} of {a}",
            "extracts {e} of the list {a}",
            "picks {e} out of {a}",
            "gives {e} of the list {a}",
        ),
        gives=(
            "{e} of {a}",
            "a list of {e} of {a}",
            "the slice with {e} of {a}",
            "the list of {e} of {a}",
        ),
        body="return {a}{e}",
    ),
    Family(
        name="list_add_ends",
        level="easy",
        args=(INTS,),
        options={"p": tuple(range(0, 20)), "q": tuple(range(0, 20))},
        names=("add_ends", "frame_list", "wrap_list", "extend_list", "surround"),
        does=(
            "puts {p} in front of the list {a} and {q} at its end",
            "adds {p} at the start and {q} at the end of {a}",
            "surrounds the list {a} with {p} on the left and {q} on the right",
            "adds {p} in front of the list {a} and {q} after it",
        ),
        gives=(
            "the list {a} with {p} before it and {q} after it",
            "a list that starts with {p}, goes on with {a} and ends with {q}",
            "{p}, then the elements of {a}, then {q}, as one list",
            "the list {a} with {p} at the start and {q} at the end",
        ),
        body="return [{p}] + {a} + [{q}]",
    ),
    Family(
        name="list_replace",
        level="medium",
        args=(INTS,),
        options={"c": NUM_COND, "k": tuple(range(0, 13))},
        names=("replace_numbers", "swap_values", "mask_values", "overwrite", "patch_list"),
        does=(
            "replaces every number in {a} that is {c} by {k}",
            "puts {k} in place of each number of {a} that is {c}",
            "sets all entries of {a} that are {c} to {k}",
            "changes each number in {a} that is {c} to {k}",
        ),
        gives=(
            "the list {a} with {k} in place of every number that is {c}",
            "a copy of {a} where numbers that are {c} become {k}",
            "{a} after changing each entry that is {c} into {k}",
            "the list {a} with every number that is {c} replaced by {k}",
        ),
        body="return [{k} if {c} else x for x in {a}]",
    ),
    Family(
        name="list_clip",
        level="medium",
        args=(INTS,),
        options={"lo": tuple(range(-5, 11)), "hi": tuple(range(12, 31))},
        names=("clip_list", "limit_values", "clamp_all", "bound_numbers", "restrict"),
        does=(
            "clips every number in {a} to the range {lo} to {hi}",
            "limits each number of {a} to at least {lo} and at most {hi}",
            "clamps all entries of {a} between {lo} and {hi}",
            "limits the numbers in {a} to the range {lo} to {hi}",
        ),
        gives=(
            "the numbers of {a} clipped to the range {lo} to {hi}",
            "a list with each number of {a} limited to at least {lo} and at most {hi}",
            "{a} with all entries clamped between {lo} and {hi}",
            "the numbers of {a}, each limited to at least {lo} and at most {hi}",
        ),
        body="return [max({lo}, min({hi}, x)) for x in {a}]",
    ),
    Family(
        name="list_chunk",
        level="medium",
        args=(LONG_INTS,),
        options={
            "k": tuple(range(2, 11)),
            "w": (
                piece("{a}[i:i + {k}]", "items"),
                piece("{a}[i:i + {k}][::-1]", "reversed items"),
                piece("sum({a}[i:i + {k}])", "sum"),
                piece("max({a}[i:i + {k}])", "maximum"),
                piece("min({a}[i:i + {k}])", "minimum"),
                piece("sorted({a}[i:i + {k}])", "sorted items"),
            ),
        },
        names=("chunk_list", "split_chunks", "make_groups", "batches", "blocks"),
        does=(
            "splits {a} into chunks of {k} numbers and lists the {w} of each chunk",
            "cuts the list {a} into pieces of size {k} and collects the {w} of each",
            "goes through {a} in blocks of {k} and gathers the {w} of every block",
            "takes chunks of {k} numbers of {a} and lists the {w} of each",
        ),
        gives=(
            "a list with the {w} of each chunk of {k} numbers of {a}",
            "for consecutive chunks of size {k} of {a} the {w} of each",
            "the {w} of every block when {a} is divided into blocks of {k}",
            "the {w} of each chunk when {a} is split into chunks of {k} numbers",
        ),
        body="return [{w} for i in range(0, len({a}), {k})]",
    ),
    Family(
        name="list_rotate",
        level="medium",
        args=(LONG_INTS,),
        options={
            "k": tuple(range(1, 7)),
            "s": (
                piece("{a}[{k}:] + {a}[:{k}]", "left"),
                piece("{a}[-{k}:] + {a}[:-{k}]", "right"),
            ),
            "m": (2, 3, 4, 5, 6, 7),
        },
        names=("rotate_list", "shift_list", "spin", "cycle_list", "rotate"),
        does=(
            "rotates {a} by {k} to the {s} and repeats the result {m} times",
            "moves {a} cyclically {k} places to the {s} and repeats that list {m} times",
            "shifts {a} cyclically {s} by {k} and gives {m} copies in a row",
            "rotates the list {a} {s} by {k} and repeats it {m} times",
        ),
        gives=(
            "the list {a} rotated {s} by {k}, repeated {m} times",
            "{m} repetitions of {a} rotated by {k} to the {s}",
            "{a} after a cyclic shift of {k} to the {s}, written {m} times",
            "the list {a} rotated by {k} to the {s}, {m} times in a row",
        ),
        body="return ({s}) * {m}",
    ),
    Family(
        name="list_windows",
        level="medium",
        args=(LONG_INTS,),
        options={"g": WINDOW, "k": tuple(range(2, 7)), "m": (2, 3, 4, 5, 6, 10)},
        names=("window_values", "moving", "sliding", "windows", "rolling"),
        does=(
            "computes the {g} of every {k} neighbouring numbers in {a}, times {m}",
            "slides a window of size {k} over {a} and lists each {g} times {m}",
            "lists {m} times the {g} of each run of {k} numbers in {a}",
            "lists the {g} of every {k} neighbouring numbers of {a}, times {m}",
        ),
        gives=(
            "the list of the {g} of each window of {k} numbers in {a}, times {m}",
            "{m} times the {g} for every window of size {k} over {a}",
            "the rolling {g} of {a} over {k} numbers, multiplied by {m}",
            "a list of the {g} of every window of {k} numbers in {a}, times {m}",
        ),
        body="return [{g}({a}[i:i + {k}]) * {m} for i in range(len({a}) - {k} + 1)]",
    ),
    Family(
        name="list_neighbours",
        level="medium",
        args=(INTS,),
        options={"e": NEIGHBOURS, "k": tuple(range(1, 13))},
        names=("neighbours", "pairwise", "step_values", "adjacent", "compare_next"),
        does=(
            "computes the {e} of every two neighbours in {a} and adds {k} to each",
            "takes the {e} of each adjacent pair in {a}, plus {k}",
            "adds {k} to the {e} of all consecutive numbers of {a}",
            "lists the {e} of each two neighbours of {a}, plus {k}",
        ),
        gives=(
            "the {e} of each two neighbours in {a}, plus {k}",
            "a list with {k} added to the {e} of every adjacent pair of {a}",
            "for consecutive numbers of {a} the {e} increased by {k}",
            "the {e} of every adjacent pair in {a}, plus {k}",
        ),
        body="return [{e} + {k} for p, q in zip({a}, {a}[1:])]",
    ),
    Family(
        name="list_best_shifted",
        level="easy",
        args=(INTS,),
        options={
            "g": WINDOW,
            "o": (piece("+", "plus"), piece("-", "minus"), piece("*", "times")),
            "k": tuple(range(2, 21)),
        },
        names=("shifted", "value_of_list", "summary", "one_number", "condense"),
        does=(
            "computes the {g} of {a} {o} {k}",
            "takes the {g} of the numbers in {a} {o} {k}",
            "finds the {g} of the list {a} and gives it {o} {k}",
        ),
        gives=(
            "the {g} of {a} {o} {k}",
            "the {g} of the numbers in {a}, {o} {k}",
            "the {g} of the list {a} {o} {k}",
        ),
        body="return {g}({a}) {o} {k}",
        unseen=True,
    ),
    Family(
        name="list_part_total",
        level="easy",
        args=(LONG_INTS,),
        options={"g": WINDOW, "e": _edges(9)},
        names=("part_total", "partial", "part_value", "of_part", "slice_value"),
        does=(
            "computes the {g} of {e} of {a}",
            "takes {e} of {a} and gives the {g}",
            "finds the {g} among {e} of the list {a}",
        ),
        gives=(
            "the {g} of {e} of {a}",
            "the {g} of {e} of the list {a}",
            "the {g} if one takes {e} of {a}",
        ),
        body="return {g}({a}{e})",
        unseen=True,
    ),
)
