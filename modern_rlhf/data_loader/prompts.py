"""Prompts for online training, with the reference and the tests that their reward may look at.

Any demonstration or task file serves, as do JSON lines with a prompt column and plain text with one
prompt a line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from modern_rlhf.data_loader import columns as cols
from modern_rlhf.data_loader import tasks
from modern_rlhf.data_loader.demonstrations import ROLES, plan_demonstrations
from modern_rlhf.data_loader.formats import Table
from modern_rlhf.data_loader.sources import SYNTHETIC, fitting_tables
from modern_rlhf.data_loader.synthetic import synthetic_tasks
from modern_rlhf.records import Prompt, Task
from modern_rlhf.utils.load_report import Loaded, LoadReport, Tally


def load_prompts(
    path: str,
    *,
    columns: Mapping[str, str] | None = None,
    max_rows: int | None = None,
    min_prob: float | None = None,
) -> Loaded[Prompt]:
    """Read prompts from a file, a folder, a hub id, or `synthetic`.

    A task file gives prompts with task and reference, a demonstration file prompts with the answer as
    reference (a conversation up to its last answer becomes one prompt text), any other the prompts.

    Args:
        columns: role -> column, where no known name fits.
        max_rows: keep the first so many.
        min_prob: leave out rows whose `prob` (CoNaLa-mined) is lower; a table without that column
            keeps all of its rows.

    Raises:
        DataError: unreadable, no prompt column, or no usable row.
    """
    cols.check_roles(columns, ROLES)
    cols.check_cap(max_rows)
    if path == SYNTHETIC:
        items = [prompt_of_task(task) for task in synthetic_tasks()[:max_rows]]
        return Loaded(items, LoadReport(path, "builtin", len(items), len(items)))
    tally = Tally(path)
    items = []
    for table, reader in fitting_tables(path, tally, lambda t: plan_prompts(t, columns, min_prob)):
        # Of several files any may hold the tests of a prompt, so all are read before the cap.
        for item in reader(table, tally):
            items.append(item)
            if tally.files == 1 and len(items) == max_rows:
                break
        if tally.files == 1 and len(items) == max_rows:
            break
    if tally.files > 1:
        items = _without_poorer_twins(items, tally)
    if max_rows is not None and len(items) >= max_rows:
        items = items[:max_rows]
        tally.note(f"cut to {max_rows} prompts as asked")
    tally.rows_kept = len(items)
    tally.require_rows("a prompt that is not blank")
    return Loaded(items, tally.report())


def _without_poorer_twins(items: list[Prompt], tally: Tally) -> list[Prompt]:
    """Leave out prompts without tests that the folder holds with tests as well."""
    tested = {item.prompt for item in items if item.task is not None}
    kept = [item for item in items if item.task is not None or item.prompt not in tested]
    for _ in range(len(items) - len(kept)):
        tally.skip("prompt that another file of the folder holds with tests")
    return kept


def prompt_of_task(task: Task) -> Prompt:
    """A task as something to sample from."""
    return Prompt(task.prompt, reference=task.reference, task=task, group_id=task.task_id)


def plan_prompts(
    table: Table, given: Mapping[str, str] | None, min_prob: float | None = None
) -> Callable[[Table, Tally], Iterator[Prompt]]:
    """The reader for the shape of `table`; kept rows are for the caller to count.

    Raises:
        DataError: no prompt column.
    """
    given = given or {}
    group = cols.find_column(table, "group", cols.GROUP, given)
    messages = cols.find_column(table, "messages", cols.MESSAGES, given)
    if messages is not None and "prompt" not in given:
        return lambda table, tally: _conversations(table, tally, messages, group)
    if tasks.is_task_table(table) and not given:
        plan = tasks.plan_tasks(table)
        return lambda table, tally: map(prompt_of_task, tasks.read_tasks(table, plan, tally))
    if cols.find_column(table, "response", cols.RESPONSE, given) is not None:
        rated = cols.find_column(table, "prob", ("prob",), given) is not None
        read = plan_demonstrations(table, given, min_prob if rated else None)
        return lambda table, tally: (
            Prompt(item.prompt, reference=item.response, group_id=item.group_id)
            for item in read(table, tally)
        )
    column = cols.need_column(table, "prompt", (*cols.PROMPT, "text"), given)
    return lambda table, tally: _bare(table, tally, column, group)


def _conversations(table: Table, tally: Tally, column: str, group: str | None) -> Iterator[Prompt]:
    """Conversations up to their last user turn; an answer that follows it is the reference."""
    tally.columns["messages"] = column
    for row in table.rows:
        turns = cols.parse_messages(row.values.get(column))
        if isinstance(turns, str):
            tally.skip(f"conversation with {turns}", row.where)
            continue
        reference = None
        if turns[-1].role == "assistant":
            reference, turns = turns[-1].content, turns[:-1]
        prompt = cols.flatten(turns)
        yield Prompt(prompt, reference, group_id=cols.group_of(row.values, group, prompt))


def _bare(table: Table, tally: Tally, column: str, group: str | None) -> Iterator[Prompt]:
    tally.columns["prompt"] = column
    for row in table.rows:
        value = row.values.get(column)
        turns = cols.parse_messages(value) if isinstance(value, (list, tuple)) else ()
        prompt = (
            cols.flatten(turns) if turns and not isinstance(turns, str) else cols.text_of(value)
        )
        if prompt is None or not prompt.strip():
            tally.skip("row without a prompt", row.where)
            continue
        yield Prompt(prompt, group_id=cols.group_of(row.values, group, prompt))
