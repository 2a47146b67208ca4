"""Demonstrations: prompts with the answers to imitate, from every shape people keep them in.

Read are tables with a prompt and a response column (found by alias), CoNaLa (`rewritten_intent`, or
`intent` where that is null, and `snippet`), conversations, and task files (their reference program is
the answer). `stream_demonstrations` holds one row at a time, whatever the size of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from modern_rlhf.data_loader import columns as cols
from modern_rlhf.data_loader import tasks
from modern_rlhf.data_loader.formats import Row, Table
from modern_rlhf.data_loader.sources import SYNTHETIC, fitting_tables, source_name
from modern_rlhf.data_loader.synthetic import synthetic_demonstrations
from modern_rlhf.errors import DataError
from modern_rlhf.records import Demonstration
from modern_rlhf.utils.load_report import Loaded, LoadReport, Tally

ROLES = ("prompt", "response", "group", "messages", "prob")

Reader = Callable[[Table, Tally], Iterator[Demonstration]]


def load_demonstrations(
    path: str,
    *,
    columns: Mapping[str, str] | None = None,
    max_rows: int | None = None,
    min_prob: float | None = None,
) -> Loaded[Demonstration]:
    """Read demonstrations from a file, a folder, a hub id, or `synthetic`.

    Args:
        columns: role (`prompt`, `response`, `group`, `messages`, `prob`) -> column, where no known
            name fits.
        max_rows: keep the first so many.
        min_prob: leave out rows whose `prob` (CoNaLa-mined) is lower.

    Raises:
        DataError: unreadable, no such columns, or no usable row.
    """
    stream = stream_demonstrations(path, columns=columns, max_rows=max_rows, min_prob=min_prob)
    return Loaded(list(stream), stream.report)


def stream_demonstrations(
    path: str,
    *,
    columns: Mapping[str, str] | None = None,
    max_rows: int | None = None,
    min_prob: float | None = None,
) -> DemonstrationStream:
    """As `load_demonstrations`, but one demonstration at a time, in constant memory.

    (A folder of several files remembers a hash for each row, to leave out repetitions.)
    """
    return DemonstrationStream(path, columns, max_rows, min_prob)


class DemonstrationStream:
    """An iterable of demonstrations; every iteration reads the source from its start.

    `report` is the account of the latest iteration, as far as it has come.
    """

    def __init__(
        self,
        path: str,
        columns: Mapping[str, str] | None,
        max_rows: int | None,
        min_prob: float | None,
    ) -> None:
        cols.check_roles(columns, ROLES)
        cols.check_cap(max_rows)
        self._path = path
        self._columns = columns
        self._max_rows = max_rows
        self._min_prob = min_prob
        self._tally = Tally(path)

    @property
    def report(self) -> LoadReport:
        return self._tally.report()

    def __iter__(self) -> Iterator[Demonstration]:
        self._tally = tally = Tally(self._path)
        if self._path == SYNTHETIC:
            tally.add_format("builtin")
            for item in synthetic_demonstrations()[: self._max_rows]:
                tally.rows_read += 1
                tally.rows_kept += 1
                yield item
            return
        seen: dict[int, str] = {}

        def plan(table: Table) -> Reader:
            return plan_demonstrations(table, self._columns, self._min_prob)

        for table, reader in fitting_tables(self._path, tally, plan):
            for item in reader(table, tally):
                if tally.files > 1:
                    key = hash((item.prompt, item.response, item.messages))
                    if seen.setdefault(key, item.source) != item.source:
                        tally.skip("row that another file of the folder holds too")
                        continue
                tally.rows_kept += 1
                yield item
                if tally.rows_kept == self._max_rows:
                    tally.note(f"stopped after {self._max_rows} rows as asked")
                    return
        tally.require_rows("a prompt and a response that are not blank")


def plan_demonstrations(
    table: Table, given: Mapping[str, str] | None = None, min_prob: float | None = None
) -> Reader:
    """The reader for the shape of `table`; `DataError` when it has none.

    A reader counts the rows that it leaves out; those that it yields are for the caller to count.
    """
    given = given or {}
    prob = cols.find_column(table, "prob", ("prob",), given)
    if min_prob is not None and prob is None:
        raise DataError(
            f"{table.path}: has no column 'prob' to filter by min_prob={min_prob:g}; "
            f"columns found: {', '.join(table.columns)}"
        )
    group = cols.find_column(table, "group", cols.GROUP, given)
    named = "prompt" in given or "response" in given
    messages = cols.find_column(table, "messages", cols.MESSAGES, given)
    if messages is not None and not named:
        return lambda table, tally: _conversations(table, tally, messages, group)
    if tasks.is_task_table(table) and not named:
        task_plan = tasks.plan_tasks(table)
        return lambda table, tally: (
            tasks.as_demonstration(task, source_name(table))
            for task in tasks.read_tasks(table, task_plan, tally)
        )
    prompts, joiner = _prompt_columns(table, given)
    response = cols.need_column(table, "response", cols.RESPONSE, given)
    used = {*prompts, response, group}

    def read(table: Table, tally: Tally) -> Iterator[Demonstration]:
        tally.columns.update(prompt=f" {joiner} ".join(prompts), response=response)
        if group:
            tally.columns["group"] = group
        name = source_name(table)
        for row in table.rows:
            if min_prob is not None and prob is not None:
                value = cols.number_of(row.values.get(prob))
                if value is None or value < min_prob:
                    tally.skip(f"row with prob below {min_prob:g}")
                    continue
            item = _demonstration(row, prompts, joiner, response, group, used, name)
            if isinstance(item, str):
                tally.skip(item, row.where)
            else:
                yield item

    return read


def _prompt_columns(table: Table, given: Mapping[str, str]) -> tuple[tuple[str, ...], str]:
    """The columns that make the prompt, and how: the first that has text (`or`), or all (`and`)."""
    if "prompt" not in given:
        if {"rewritten_intent", "intent"} <= set(table.columns):  # CoNaLa; the former may be null
            return ("rewritten_intent", "intent"), "or"
        if {"instruction", "input"} <= set(table.columns):  # Alpaca: the task and what it is about
            return ("instruction", "input"), "and"
    return (cols.need_column(table, "prompt", cols.PROMPT, given),), "or"


def _demonstration(
    row: Row,
    prompts: tuple[str, ...],
    joiner: str,
    response: str,
    group: str | None,
    used: set[str | None],
    source: str,
) -> Demonstration | str:
    """The demonstration of one row, or why there is none."""
    texts = [
        text for name in prompts if (text := cols.text_of(row.values.get(name))) and text.strip()
    ]
    if not texts:
        return "row without a prompt"
    prompt = "\n\n".join(texts) if joiner == "and" else texts[0]
    answer = cols.text_of(row.values.get(response))
    if answer is None or not answer.strip():
        return "row without a response"
    return Demonstration(
        prompt=prompt,
        response=answer,
        group_id=cols.group_of(row.values, group, prompt),
        source=source,
        metadata={name: value for name, value in row.values.items() if name not in used},
    )


def _conversations(
    table: Table, tally: Tally, column: str, group: str | None
) -> Iterator[Demonstration]:
    tally.columns["messages"] = column
    name = source_name(table)
    for row in table.rows:
        turns = cols.parse_messages(row.values.get(column))
        if isinstance(turns, str):
            tally.skip(f"conversation with {turns}", row.where)
            continue
        if turns[-1].role == "user":
            turns = turns[:-1]
            tally.note("user turns without an answer were cut from the end of conversations")
        if not turns or turns[-1].role != "assistant":
            tally.skip("conversation without an answer", row.where)
            continue
        first_user = next(turn.content for turn in turns if turn.role == "user")
        metadata = {key: value for key, value in row.values.items() if key not in (column, group)}
        yield Demonstration(
            prompt=turns[-2].content,
            response=turns[-1].content,
            group_id=cols.group_of(row.values, group, first_user),
            source=name,
            messages=turns if len(turns) > 2 else (),
            metadata=metadata,
        )
