"""Preference pairs and labelled answers, for the reward model, DPO and KTO.

Read are `{prompt, chosen, rejected}` tables (answers as text or as message lists, the prompt possibly
inside them), the project's CSV (`question, preferred_answer, other_answer, ...`), `{prompt,
completion, label}` tables, and folders of human feedback, which `feedback.store` turns into both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from modern_rlhf.data_loader import columns as cols
from modern_rlhf.data_loader.formats import Row, Table
from modern_rlhf.data_loader.sources import fitting_tables, source_name
from modern_rlhf.feedback.store import FeedbackSet, is_feedback, load_feedback
from modern_rlhf.records import LabelledAnswer, Message, PreferencePair
from modern_rlhf.utils.load_report import Loaded, LoadReport, Tally, reading
from modern_rlhf.utils.paths import at_home, resolve_path

PAIR_ROLES = ("prompt", "chosen", "rejected", "group", "margin")
LABEL_ROLES = ("prompt", "completion", "label", "group")

_SCORES = (
    ("chosen_rating", "rejected_rating"),
    ("chosen_score", "rejected_score"),
    ("score_chosen", "score_rejected"),
)
_LABELS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}


def load_preferences(
    path: str,
    *,
    columns: Mapping[str, str] | None = None,
    max_rows: int | None = None,
    rater_weights: Mapping[str, float] | None = None,
) -> Loaded[PreferencePair]:
    """Read preference pairs from a file, a folder, a hub id, or a folder of human feedback.

    The margin is the table's `margin`, else the gap of the two scores, else the size of `preference`,
    else 0; a negative gap (the source contradicts itself) counts as 0 and is noted.

    Args:
        columns: role -> column, where no known name fits.
        max_rows: keep the first so many.
        rater_weights: of human feedback, as for `load_feedback`; a rater who is not in it is passed
            over, for the judgements may lie in several places.

    Raises:
        DataError: unreadable, no such columns, or no usable pair.
    """
    cols.check_roles(columns, PAIR_ROLES)
    cols.check_cap(max_rows)
    if _is_feedback(path):
        feedback = _feedback(path, rater_weights)
        return _capped(feedback.pairs, feedback.report, max_rows, "preference pair")
    tally = Tally(path)
    items: list[PreferencePair] = []
    for table, plan in fitting_tables(path, tally, lambda table: plan_pairs(table, columns)):
        tally.columns.update({role: name for role, name in plan.items() if name})
        for row in table.rows:
            pair = read_pair(row, plan, source_name(table), tally)
            if isinstance(pair, str):
                tally.skip(pair, row.where)
                continue
            tally.rows_kept += 1
            items.append(pair)
            if len(items) == max_rows:
                tally.note(f"stopped after {max_rows} pairs as asked")
                return Loaded(items, tally.report())
    tally.require_rows("a prompt with a chosen and a rejected answer that differ")
    return Loaded(items, tally.report())


def load_labelled(
    path: str,
    *,
    columns: Mapping[str, str] | None = None,
    max_rows: int | None = None,
    rater_weights: Mapping[str, float] | None = None,
) -> Loaded[LabelledAnswer]:
    """Read labelled answers (KTO) from a file, a folder, a hub id, or human feedback.

    A table of pairs gives two labelled answers a row: the chosen one true, the rejected one false.
    Arguments: as for `load_preferences`.

    Raises:
        DataError: unreadable, no such columns, or no usable row.
    """
    cols.check_roles(columns, LABEL_ROLES)
    cols.check_cap(max_rows)
    if _is_feedback(path):
        feedback = _feedback(path, rater_weights)
        return _capped(feedback.labelled, feedback.report, max_rows, "labelled answer")
    tally = Tally(path)
    items: list[LabelledAnswer] = []
    for table, plan in fitting_tables(path, tally, lambda table: plan_labels(table, columns)):
        reader = read_labels_of_pairs if "chosen" in plan else read_labels
        tally.columns.update({role: name for role, name in plan.items() if name})
        for answer in reader(table, plan, tally):
            items.append(answer)
            if len(items) == max_rows:
                tally.note(f"stopped after {max_rows} answers as asked")
                return Loaded(items, tally.report())
    tally.require_rows("a prompt, a completion and a label of true or false")
    return Loaded(items, tally.report())


def _is_feedback(path: str) -> bool:
    local = at_home(resolve_path(path))
    with reading(local):
        return local.exists() and is_feedback(local)


def _feedback(path: str, weights: Mapping[str, float] | None) -> FeedbackSet:
    """Human feedback, with the weights of those raters who are in it."""
    found = load_feedback(path)
    raters = {item.rater for item in (*found.ratings, *found.pairs)}
    known = {name: weight for name, weight in (weights or {}).items() if name in raters}
    return load_feedback(path, rater_weights=known) if known else found


def _capped(items: list[Any], report: LoadReport, max_rows: int | None, what: str) -> Loaded[Any]:
    if not items:
        tally = Tally(report.path)
        tally.rows_read = report.rows_read
        tally.skip(f"without a {what}")
        tally.require_rows(f"at least one {what}")
    return Loaded(items[:max_rows], report)


def plan_pairs(table: Table, given: Mapping[str, str] | None) -> dict[str, str | None]:
    """Where the parts of a pair stand in a table; `DataError` names what is missing."""
    chosen = cols.need_column(table, "chosen", cols.CHOSEN, given)
    rejected = cols.need_column(table, "rejected", cols.REJECTED, given)
    return {
        "prompt": cols.find_column(table, "prompt", cols.PROMPT, given),
        "chosen": chosen,
        "rejected": rejected,
        "group": cols.find_column(table, "group", cols.GROUP, given),
        "margin": cols.find_column(table, "margin", ("margin", "preference"), given),
    }


def read_pair(
    row: Row, plan: Mapping[str, str | None], source: str, tally: Tally
) -> PreferencePair | str:
    """The pair of one row, or why there is none."""
    values = row.values
    chosen = _answer(values.get(plan["chosen"] or ""))
    rejected = _answer(values.get(plan["rejected"] or ""))
    if isinstance(chosen, str) or isinstance(rejected, str):
        return "row without two answers"
    prompt = _prompt(values.get(plan["prompt"] or ""), chosen[0], rejected[0], tally)
    if prompt is None:
        return "row without a prompt"
    if chosen[1].strip() == rejected[1].strip():
        return "row with two equal answers"
    margin = _margin(values, plan["margin"])
    if margin < 0:
        tally.note("pairs whose rejected answer scores higher have margin 0")
    return PreferencePair(
        prompt=prompt,
        chosen=chosen[1],
        rejected=rejected[1],
        margin=max(margin, 0.0),
        group_id=cols.group_of(values, plan["group"], prompt),
        source=source,
    )


def _answer(value: object) -> tuple[tuple[Message, ...], str] | str:
    """The turns before the answer (none for plain text) and the answer, or what is wrong."""
    text = cols.text_of(value)
    if text is not None:
        return ((), text) if text.strip() else "blank answer"
    turns = cols.parse_messages(value)
    if isinstance(turns, str):
        # A list with the assistant's turn alone is an answer too.
        alone = value[0] if isinstance(value, (list, tuple)) and len(value) == 1 else None
        text = cols.text_of(alone.get("content")) if isinstance(alone, Mapping) else None
        return ((), text) if text and text.strip() else turns
    if turns[-1].role != "assistant":
        return "no answer at the end"
    return turns[:-1], turns[-1].content


def _prompt(
    value: object, chosen: tuple[Message, ...], rejected: tuple[Message, ...], tally: Tally
) -> str | None:
    """The prompt column's text, else the turns that both answers share."""
    text = cols.text_of(value)
    if text is not None and text.strip():
        return text
    turns = cols.parse_messages(value) if value is not None else chosen
    if isinstance(turns, str) or not turns or (value is None and chosen != rejected):
        return None
    if len(turns) > 1:
        tally.note("conversations before the answer were written out as one prompt")
    return cols.flatten(turns)


def _margin(values: Mapping[str, Any], column: str | None) -> float:
    if column is not None:
        number = cols.number_of(values.get(column)) or 0.0
        # `preference` is the slider of the comparison form: its sign says left or right.
        return abs(number) if column == "preference" else number
    for better, worse in _SCORES:
        high, low = cols.number_of(values.get(better)), cols.number_of(values.get(worse))
        if high is not None and low is not None:
            return high - low
    return 0.0


def plan_labels(table: Table, given: Mapping[str, str] | None) -> dict[str, str | None]:
    """Where the parts of a labelled answer, or of a pair that gives two, stand in a table."""
    label = cols.find_column(table, "label", ("label",), given)
    if label is None and cols.find_column(table, "chosen", cols.CHOSEN) is not None:
        return plan_pairs(table, None)
    return {
        "prompt": cols.need_column(table, "prompt", cols.PROMPT, given),
        "completion": cols.need_column(table, "completion", ("completion", *cols.RESPONSE), given),
        "label": label or cols.need_column(table, "label", ("label",), given),
        "group": cols.find_column(table, "group", cols.GROUP, given),
    }


def read_labels(
    table: Table, plan: Mapping[str, str | None], tally: Tally
) -> Iterator[LabelledAnswer]:
    """The labelled answers of a table; rows that are none are counted in `tally` with the reason."""
    for row in table.rows:
        values = row.values
        answer = _answer(values.get(plan["completion"] or ""))
        prompt = _prompt(values.get(plan["prompt"] or ""), (), (), tally)
        label = _LABELS.get(str(values.get(plan["label"] or "")).strip().lower())
        if prompt is None:
            tally.skip("row without a prompt", row.where)
        elif isinstance(answer, str):
            tally.skip("row without a completion", row.where)
        elif label is None:
            tally.skip("row whose label is neither true nor false", row.where)
        else:
            tally.rows_kept += 1
            group = cols.group_of(values, plan["group"], prompt)
            yield LabelledAnswer(
                prompt, answer[1], label, group_id=group, source=source_name(table)
            )


def read_labels_of_pairs(
    table: Table, plan: Mapping[str, str | None], tally: Tally
) -> Iterator[LabelledAnswer]:
    """Two labelled answers of every pair of a table, the chosen one true."""
    tally.note("pairs were read as one desirable and one undesirable answer each")
    for row in table.rows:
        pair = read_pair(row, plan, source_name(table), tally)
        if isinstance(pair, str):
            tally.skip(pair, row.where)
            continue
        tally.rows_kept += 1
        for text, label in ((pair.chosen, True), (pair.rejected, False)):
            yield LabelledAnswer(
                pair.prompt, text, label, group_id=pair.group_id, source=pair.source
            )
