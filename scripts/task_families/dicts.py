"""Dictionaries: look up, filter, map, group, count, merge; rows with fields."""

from __future__ import annotations

from .core import Family, piece
from .inputs import DICT, DISTINCT_DICT, INTS, RECORDS, WORD_LIST
from .vocabulary import KEYS, ORDER, VALUE_COND, VALUE_MAP

GROUP_KEYS = tuple(
    [
        piece("len(w)", "length"),
        piece("w[0]", "first letter"),
        piece("w[-1]", "last letter"),
    ]
    + [piece(f"w[:{k}]", f"first {k} letters") for k in range(2, 5)]
    + [piece(f"w[-{k}:]", f"last {k} letters") for k in range(2, 5)]
    + [piece(f"len(w) // {k}", f"length floor-divided by {k}") for k in range(2, 6)]
    + [piece(f"len(w) % {k}", f"length modulo {k}") for k in range(2, 6)]
    + [piece(f"w.count({c!r})", f"number of {c!r}") for c in "aeiornst"]
)
ROW_COND = tuple(
    [piece(f"> {k}", f"above {k}", f"greater than {k}") for k in range(10, 50)]
    + [piece(f"< {k}", f"below {k}", f"less than {k}") for k in range(10, 50)]
)

FAMILIES = (
    Family(
        name="dict_get_default",
        level="easy",
        args=(DICT,),
        options={"k": KEYS, "d": tuple(range(0, 13)), "m": tuple(range(2, 10))},
        names=("get_value", "look_up", "read_key", "fetch", "value_of"),
        does=(
            "looks up {k} in the dictionary {a}, using {d} if it is missing, times {m}",
            "gets the value of {k} from {a}, by default {d}, and multiplies it by {m}",
            "reads {a} at the key {k}, or takes {d} if absent, and gives {m} times that",
            "takes the value of {k} in {a}, or {d} if it is missing, and multiplies it by {m}",
        ),
        gives=(
            "the value of {k} in {a}, or {d} if it is missing, times {m}",
            "{m} times the value at the key {k} of {a}, which defaults to {d}",
            "what {a} holds for {k}, with {d} as default, multiplied by {m}",
            "the value at the key {k} of {a}, by default {d}, times {m}",
        ),
        body="return {a}.get({k}, {d}) * {m}",
    ),
    Family(
        name="dict_filter_values",
        level="easy",
        args=(DICT,),
        options={"c": VALUE_COND},
        names=("filter_dict", "keep_entries", "select_entries", "pick_entries", "reduce_dict"),
        does=(
            "keeps the entries of the dictionary {a} whose value is {c}",
            "filters the dictionary {a}, keeping values that are {c}",
            "drops from {a} all keys but those with a value that is {c}",
            "selects the entries of the dictionary {a} with a value that is {c}",
        ),
        gives=(
            "a dictionary of the entries in {a} whose value is {c}",
            "the part of the dictionary {a} where the value is {c}",
            "those items of the dictionary {a} with a value being {c}",
            "a dictionary with the entries of {a} whose value is {c}",
        ),
        body="return {{k: v for k, v in {a}.items() if {c}}}",
    ),
    Family(
        name="dict_map_values",
        level="easy",
        args=(DICT,),
        options={"m": VALUE_MAP},
        names=("map_dict", "change_values", "scale_dict", "convert_dict", "update_dict"),
        does=(
            "makes a dictionary with every value of {a} {m}",
            "takes the dictionary {a} and gives each value {m}",
            "copies the dictionary {a} with all values {m}",
            "makes each value of the dictionary {a} {m}",
        ),
        gives=(
            "a dictionary with every value of {a} {m}",
            "the dictionary {a} with each value {m}",
            "a copy of the dictionary {a}, all of its values {m}",
            "the dictionary {a}, every value {m}",
        ),
        body="return {{k: {m} for k, v in {a}.items()}}",
    ),
    Family(
        name="dict_keys_where",
        level="medium",
        args=(DICT,),
        options={"c": VALUE_COND, "r": ORDER},
        names=("keys_where", "find_keys", "matching_keys", "list_keys", "select_keys"),
        does=(
            "lists the keys of {a} whose value is {c}, sorted in {r} order",
            "sorts in {r} order those keys of {a} that have a value that is {c}",
            "collects keys of the dictionary {a} with a value being {c}, {r}",
            "lists in {r} order the keys of {a} whose value is {c}",
        ),
        gives=(
            "the keys of {a} whose value is {c}, sorted in {r} order",
            "a list in {r} order of the keys in {a} with a value that is {c}",
            "those keys of {a}, {r}, for which the value is {c}",
            "the sorted keys, {r}, of {a} whose value is {c}",
        ),
        body="return sorted([k for k, v in {a}.items() if {c}]{r})",
    ),
    Family(
        name="dict_total_where",
        level="medium",
        args=(DICT,),
        options={"m": VALUE_MAP, "c": VALUE_COND},
        names=("sum_values", "total_values", "add_values", "dict_total", "sum_entries"),
        does=(
            "adds up the values in the dictionary {a} that are {c}, each {m}",
            "sums every value {m} over those values of the dictionary {a} that are {c}",
            "totals the values of the dictionary {a} that are {c} after each is {m}",
            "computes the sum of values in the dictionary {a} that are {c}, each {m}",
        ),
        gives=(
            "the sum of the values in the dictionary {a} that are {c}, each {m}",
            "the total of every value {m} for values of the dict {a} that are {c}",
            "the sum over the dictionary {a} of all values that are {c}, each {m}",
            "the sum of each value {m} for values of the dictionary {a} that are {c}",
        ),
        body="return sum({m} for v in {a}.values() if {c})",
    ),
    Family(
        name="dict_group_words",
        level="hard",
        args=(WORD_LIST,),
        options={
            "g": GROUP_KEYS,
            "m": (
                piece("w", "words"),
                piece("w.upper()", "upper-cased words"),
                piece("len(w)", "word lengths"),
                piece("w[0]", "first letters"),
            ),
        },
        names=("group_words", "group_by", "make_groups", "bucket", "classify"),
        does=(
            "groups the {m} of {a} by the word's {g} in a dictionary of lists",
            "collects the {m} of {a} in lists, keyed by the word's {g}",
            "sorts the {m} of {a} into a dictionary of lists by {g} of the word",
            "puts the {m} of {a} in a dictionary of lists by the word's {g}",
        ),
        gives=(
            "a dictionary from each word's {g} to the list of such {m} in {a}",
            "a dict of lists with the {m} of {a} grouped by the word's {g}",
            "lists of the {m} in {a}, in a dictionary keyed by {g} of the word",
            "a dictionary of lists of the {m} in {a}, keyed by the word's {g}",
        ),
        body="groups = {{}}\nfor w in {a}:\n    groups.setdefault({g}, []).append({m})\nreturn groups",
    ),
    Family(
        name="dict_rows_filter",
        level="medium",
        args=(RECORDS,),
        options={
            "f1": (
                piece("r['name']", "names"),
                piece("r['age']", "ages"),
                piece("r['score']", "scores"),
                piece("r['name'].upper()", "upper-cased names"),
            ),
            "f2": (piece("r['age']", "age"), piece("r['score']", "score")),
            "c": ROW_COND,
        },
        names=("names_where", "select_rows", "query", "filter_rows", "find_rows"),
        does=(
            "lists the {f1} of the rows in {a} whose {f2} is {c}",
            "collects the {f1} from the dictionaries in {a} with {f2} {c}",
            "goes over the rows of {a} with a {f2} {c} and lists their {f1}",
            "finds the {f1} of rows in {a} with a {f2} {c}",
        ),
        gives=(
            "the {f1} of the rows in {a} whose {f2} is {c}",
            "a list of the {f1} from dictionaries in {a} with {f2} {c}",
            "all {f1} in {a} for rows having a {f2} {c}",
            "a list of the {f1} of rows in {a} whose {f2} is {c}",
        ),
        body="return [{f1} for r in {a} if {f2} {c}]",
    ),
    Family(
        name="dict_from_list",
        level="medium",
        args=(INTS,),
        options={"m": tuple(m for m in VALUE_MAP), "c": VALUE_COND},
        names=("make_dict", "index_by", "to_dict", "lookup_table", "build_dict"),
        does=(
            "maps each number in {a} that is {c} to that number {m}, as a dictionary",
            "makes a dictionary from numbers of {a} that are {c} to the same number {m}",
            "builds a dict whose keys are numbers of {a} that are {c}, values each {m}",
        ),
        gives=(
            "a dictionary from each number in {a} that is {c} to that number {m}",
            "a dict with numbers of {a} that are {c} as keys and the key {m} as value",
            "a dictionary where each entry of {a} that is {c} points to itself {m}",
        ),
        body="return {{v: {m} for v in {a} if {c}}}",
        unseen=True,
    ),
    Family(
        name="dict_top",
        level="medium",
        args=(DISTINCT_DICT,),
        options={
            "r": (piece(", reverse=True", "largest", "highest"), piece("", "smallest", "lowest")),
            "k": (1, 2, 3, 4),
            "m": (
                piece("w", "keys"),
                piece("w.upper()", "upper-cased keys"),
                piece("w[0]", "first letters of the keys"),
                piece("len(w)", "lengths of the keys"),
                piece("{a}[w]", "values"),
                piece("w[::-1]", "reversed keys"),
                piece("w.title()", "title-cased keys"),
                piece("w[:3]", "first 3 letters of the keys"),
            ),
        },
        names=("top_keys", "leaders", "best_entries", "ranking", "dict_top"),
        does=(
            "lists the {m} of the {k} entries of {a} with the {r} values, best first",
            "sorts the dictionary {a} and takes the {m} of the {k} {r} values in order",
            "picks the {k} {r} values of the dict {a} and lists the {m} in that order",
            "lists, best first, the {m} of the {k} {r} values of the dictionary {a}",
        ),
        gives=(
            "the {m} of the {k} entries in {a} with the {r} values, best first",
            "the {m} for the {k} {r} values of the dictionary {a} in order",
            "a list of the {m} belonging to the {k} {r} values of {a}",
            "the {m}, best first, of the {k} entries of {a} with the {r} values",
        ),
        body="return [{m} for w in sorted({a}, key={a}.get{r})[:{k}]]",
    ),
    Family(
        name="dict_filter_map",
        level="hard",
        args=(DICT,),
        options={"m": VALUE_MAP, "c": VALUE_COND},
        names=("refine_dict", "dict_some", "filter_and_map", "entries_of", "make_table"),
        does=(
            "keeps the entries of the dictionary {a} whose value is {c}, each value {m}",
            "filters the dictionary {a} for values that are {c} and gives each {m}",
            "copies the dictionary {a}, only values that are {c}, each of them {m}",
        ),
        gives=(
            "a dictionary of the entries in {a} whose value is {c}, each value {m}",
            "the part of the dictionary {a} where the value is {c}, with each value {m}",
            "those items of the dictionary {a} whose value is {c}, all values {m}",
        ),
        body="return {{k: {m} for k, v in {a}.items() if {c}}}",
        unseen=True,
    ),
)
