"""Rows that are in memory already: lists of dicts or records, or a `datasets.Dataset`.

They go through the same column aliases and the same readers as files, so a notebook user's list of
dicts means exactly what the same rows in a JSONL file would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from modern_rlhf.data_loader.columns import need_column, number_of
from modern_rlhf.data_loader.demonstrations import plan_demonstrations
from modern_rlhf.data_loader.formats import Row, Table, make_table
from modern_rlhf.data_loader.preferences import (
    plan_labels,
    plan_pairs,
    read_labels,
    read_labels_of_pairs,
    read_pair,
)
from modern_rlhf.data_loader.prompts import plan_prompts, prompt_of_task
from modern_rlhf.errors import DataError
from modern_rlhf.feedback.store import OVERALL
from modern_rlhf.records import (
    Demonstration,
    LabelledAnswer,
    PreferencePair,
    Prompt,
    Rating,
    Task,
)
from modern_rlhf.utils.load_report import Tally

T = TypeVar("T")


def demonstrations_from_rows(rows: Iterable[Any]) -> list[Demonstration]:
    """`Demonstration`s as they are; dicts by column alias.

    Raises:
        DataError: no row, no such columns, or a row of another kind.
    """
    return _records(rows, Demonstration, plan_demonstrations, "demonstrations")


def prompts_from_rows(rows: Iterable[Any]) -> list[Prompt]:
    """`Prompt`s, `Task`s and plain strings as they are; dicts by column alias.

    Raises:
        DataError: no row, no such columns, or a row of another kind.
    """
    items = list(rows)
    if not any(isinstance(item, dict) for item in items):
        items = [_as_prompt(item) for item in items]
    return _records(items, Prompt, lambda table: plan_prompts(table, None), "prompts")


def pairs_from_rows(rows: Iterable[Any]) -> list[PreferencePair]:
    """`PreferencePair`s as they are; dicts with prompt, chosen and rejected by column alias.

    Raises:
        DataError: no row, no such columns, or no usable row.
    """

    def plan(table: Table) -> Callable[[Table, Tally], Iterator[PreferencePair]]:
        columns = plan_pairs(table, None)

        def read(table: Table, tally: Tally) -> Iterator[PreferencePair]:
            for row in table.rows:
                pair = read_pair(row, columns, table.path, tally)
                if isinstance(pair, str):
                    tally.skip(pair, row.where)
                else:
                    yield pair

        return read

    return _records(rows, PreferencePair, plan, "preference pairs")


def labelled_from_rows(rows: Iterable[Any]) -> list[LabelledAnswer]:
    """`LabelledAnswer`s as they are; dicts with prompt, completion and label (or pairs) by alias.

    Raises:
        DataError: no row, no such columns, or no usable row.
    """

    def plan(table: Table) -> Callable[[Table, Tally], Iterator[LabelledAnswer]]:
        columns = plan_labels(table, None)
        reader = read_labels_of_pairs if "chosen" in columns else read_labels
        return lambda table, tally: reader(table, columns, tally)

    return _records(rows, LabelledAnswer, plan, "labelled answers")


def ratings_from_rows(rows: Iterable[Any]) -> list[Rating]:
    """`Rating`s as they are; dicts with prompt and response by alias and a `rating` of 1 to 5.

    Raises:
        DataError: no row, no such columns, or a rating that is none.
    """

    def plan(table: Table) -> Callable[[Table, Tally], Iterator[Rating]]:
        column = need_column(table, "rating", ("rating",))
        read_answers = plan_demonstrations(table)

        def read(table: Table, tally: Tally) -> Iterator[Rating]:
            for item in read_answers(table, tally):
                value = number_of(item.metadata.get(column))
                if value is None or not 1 <= value <= 5:
                    raise DataError(
                        f"the rating of {item.response[:40]!r} is {item.metadata.get(column)!r}; "
                        "expected a number from 1 to 5"
                    )
                yield Rating(
                    item.prompt,
                    item.response,
                    {OVERALL: value - 3.0},
                    rater=str(item.metadata.get("rater") or ""),
                    group_id=item.group_id,
                    source=item.source,
                )

        return read

    return _records(rows, Rating, plan, "ratings")


def judgements_from_rows(
    mixed: Iterable[Any], pairs: Iterable[Any] = (), ratings: Iterable[Any] = ()
) -> tuple[list[PreferencePair], list[Rating]]:
    """Pairs and ratings as records; `mixed` is one or the other, told by its rows.

    Raises:
        DataError: as `pairs_from_rows` and `ratings_from_rows`; rows of both kinds in `mixed`.
    """
    given = list(mixed)
    rated = [
        row
        for row in given
        if isinstance(row, Rating) or (isinstance(row, dict) and "rating" in row)
    ]
    if len(rated) not in (0, len(given)):
        raise DataError(
            f"{len(rated)} of {len(given)} rows hold a rating; give ratings and pairs apart"
        )
    found_pairs = [*pairs, *(() if rated else given)]
    found_ratings = [*ratings, *rated]
    return (
        pairs_from_rows(found_pairs) if found_pairs else [],
        ratings_from_rows(found_ratings) if found_ratings else [],
    )


def _as_prompt(row: Any) -> Any:
    if isinstance(row, Task):
        return prompt_of_task(row)
    return Prompt(row, group_id=row) if isinstance(row, str) else row


def _records(
    rows: Iterable[Any],
    kind: type[T],
    plan: Callable[[Table], Callable[[Table, Tally], Iterator[T]]],
    what: str,
) -> list[T]:
    """Rows that are all of `kind` as they are; else dicts, read as `plan` says."""
    items = list(rows)
    if items and all(isinstance(item, kind) for item in items):
        return items
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            raise DataError(
                f"row {index} of the {what} is a {type(item).__name__}; expected a dict of columns"
            )
    tally = Tally(f"{what} given in memory")
    table_rows = (Row(f"row {index}", item) for index, item in enumerate(items))
    table = make_table(f"{what} given in memory", "rows", None, table_rows, tally)
    found = list(plan(table)(table, tally))
    if not found:
        raise DataError(
            f"none of the {len(items)} rows of the {what} is usable: {tally.report().line()}"
        )
    return found
