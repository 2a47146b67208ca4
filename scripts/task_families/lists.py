"""Lists: slices, replacements, windows, neighbours, columns."""

from __future__ import annotations

from .core import Family, Piece, piece
from .inputs import INTS, LONG_INTS, MATRIX, TWO_INTS, TWO_INTS_B, WIDE_MATRIX
from .vocabulary import NUM_COND, NUM_MAP, NUMBERS

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
        ),
        gives=(
            "a list with every number of {a} {m}",
            "the numbers of {a}, each {m}",
            "all entries of {a}, every one {m}",
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
        ),
        gives=(
            "the list of numbers in {a} that are {c}",
            "all numbers of {a} that are {c}",
            "those entries of {a} which are {c}",
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
        ),
        gives=(
            "how many numbers in {a} are {c}",
            "the number of values in {a} that are {c}",
            "the count of entries of {a} being {c}",
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
        ),
        gives=(
            "{e} of {a}",
            "a list of {e} of {a}",
            "the slice with {e} of {a}",
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
        ),
        gives=(
            "the list {a} with {p} before it and {q} after it",
            "a list that starts with {p}, goes on with {a} and ends with {q}",
            "{p}, then the elements of {a}, then {q}, as one list",
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
        ),
        gives=(
            "the list {a} with {k} in place of every number that is {c}",
            "a copy of {a} where numbers that are {c} become {k}",
            "{a} after changing each entry that is {c} into {k}",
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
        ),
        gives=(
            "the numbers of {a} clipped to the range {lo} to {hi}",
            "a list with each number of {a} limited to at least {lo} and at most {hi}",
            "{a} with all entries clamped between {lo} and {hi}",
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
        ),
        gives=(
            "a list with the {w} of each chunk of {k} numbers of {a}",
            "for consecutive chunks of size {k} of {a} the {w} of each",
            "the {w} of every block when {a} is divided into blocks of {k}",
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
            "m": (1, 2, 3, 4, 5, 6),
        },
        names=("rotate_list", "shift_list", "spin", "cycle_list", "rotate"),
        does=(
            "rotates {a} by {k} to the {s} and repeats the result {m} times",
            "moves {a} cyclically {k} places to the {s} and repeats that list {m} times",
            "shifts {a} cyclically {s} by {k} and gives {m} copies in a row",
        ),
        gives=(
            "the list {a} rotated {s} by {k}, repeated {m} times",
            "{m} repetitions of {a} rotated by {k} to the {s}",
            "{a} after a cyclic shift of {k} to the {s}, written {m} times",
        ),
        body="return ({s}) * {m}",
    ),
    Family(
        name="list_windows",
        level="medium",
        args=(LONG_INTS,),
        options={"g": WINDOW, "k": tuple(range(2, 7)), "m": (1, 2, 3, 4, 5, 10)},
        names=("window_values", "moving", "sliding", "windows", "rolling"),
        does=(
            "computes the {g} of every {k} neighbouring numbers in {a}, times {m}",
            "slides a window of size {k} over {a} and lists each {g} times {m}",
            "lists {m} times the {g} of each run of {k} numbers in {a}",
        ),
        gives=(
            "the list of the {g} of each window of {k} numbers in {a}, times {m}",
            "{m} times the {g} for every window of size {k} over {a}",
            "the rolling {g} of {a} over {k} numbers, multiplied by {m}",
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
        ),
        gives=(
            "the {e} of each two neighbours in {a}, plus {k}",
            "a list with {k} added to the {e} of every adjacent pair of {a}",
            "for consecutive numbers of {a} the {e} increased by {k}",
        ),
        body="return [{e} + {k} for p, q in zip({a}, {a}[1:])]",
    ),
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
        ),
        gives=(
            "one flat list of the numbers in the rows of {a} that are {c}",
            "all numbers in the nested list {a} that are {c}",
            "every number that is {c} from the rows of {a}, in a single list",
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
        ),
        gives=(
            "a list of the items at index {i} of the rows in {a}, {m}",
            "for each row of {a} its value at index {i}, {m}",
            "the column with index {i} of {a}, every value {m}",
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
        ),
        gives=(
            "the {g} number in {a} that is {c}, or {d} if there is none",
            "the {g} of those numbers in {a} that are {c}, {d} by default",
            "{d} if no entry of {a} is {c}, else the {g} such entry",
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
        ),
        gives=(
            "True if {q} in {a} is {c}, else False",
            "whether {q} of {a} is {c}",
            "True exactly when {q} of the list {a} is {c}",
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
        ),
        gives=(
            "for each position the number of {a} {o} {k} times the number of {b}",
            "the list of p {o} {k} times q for p, q from {a} and {b}",
            "the elements of {a}, each {o} {k} times the matching element of {b}",
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
        ),
        gives=(
            "the list {a} padded {s} with {v} to length {k}",
            "{a} filled up {s} with {v} so that it has {k} items",
            "{a} extended {s} by copies of {v} to {k} elements",
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
        ),
        gives=(
            "the indexes of the numbers in {a} that are {c}, counting from {k}",
            "the positions of all numbers of {a} that are {c}, starting at {k}",
            "where in {a}, if numbered from {k}, the entries are {c}",
        ),
        body="return [i for i, x in enumerate({a}, {k}) if {c}]",
    ),
)
