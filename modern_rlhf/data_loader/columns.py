"""Which column plays which role: the aliases known for each, and the values read through them.

A loader asks for roles (`prompt`, `response`, ...) and gets the names of the columns that hold them,
or an error that names the columns found and the names known. Nothing here knows a record.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from modern_rlhf.data_loader.formats import Table
from modern_rlhf.data_loader.overlap import normalise
from modern_rlhf.errors import ConfigError, DataError
from modern_rlhf.records import Message

PROMPT = ("prompt", "instruction", "question", "input", "intent")
RESPONSE = ("response", "answer", "output", "completion", "best_answer", "snippet")
GROUP = ("group_id", "question_id")  # not `id`: that numbers rows, and rows are never split by
CHOSEN = ("chosen", "preferred_answer")
REJECTED = ("rejected", "other_answer")
MESSAGES = ("messages", "conversations", "conversation")

_ROLES = {
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "system": "system",
}


def find_column(
    table: Table, role: str, aliases: Sequence[str], given: Mapping[str, str] | None = None
) -> str | None:
    """The column of `table` for `role`: the one `given` names, else the first alias there is.

    Names are compared exactly first, then without case and surrounding spaces.

    Raises:
        DataError: `given` names a column that the table does not have.
    """
    if given and role in given:
        if given[role] not in table.columns:
            raise DataError(
                f"{table.path}: no column {given[role]!r} for the {role}; "
                f"columns found: {', '.join(table.columns)}"
            )
        return given[role]
    folded = {name.strip().casefold(): name for name in reversed(table.columns)}
    for alias in aliases:
        if alias in table.columns:
            return alias
        if alias.casefold() in folded:
            return folded[alias.casefold()]
    return None


def need_column(
    table: Table, role: str, aliases: Sequence[str], given: Mapping[str, str] | None = None
) -> str:
    """As `find_column`, but a missing column is a `DataError` with the names found and known."""
    name = find_column(table, role, aliases, given)
    if name is None:
        raise DataError(
            f"{table.path}: no column for the {role}; columns found: {', '.join(table.columns)}; "
            f"known names: {', '.join(aliases)} (or name it: columns={{{role!r}: '...'}})"
        )
    return name


def check_cap(max_rows: int | None) -> None:
    """Refuse a cap on rows that would keep none."""
    if max_rows is not None and max_rows < 1:
        raise ConfigError(f"max_rows={max_rows}: expected at least 1")


def check_roles(given: Mapping[str, str] | None, known: Sequence[str]) -> None:
    """Refuse a `columns` mapping with a role that does not exist."""
    for role in given or ():
        if role not in known:
            raise ConfigError(f"columns: unknown role {role!r}; known roles: {', '.join(known)}")


def text_of(value: object) -> str | None:
    """`value` as text with Unix line ends; None when it is missing or not text."""
    if not isinstance(value, str):
        return None
    return value.replace("\r\n", "\n").replace("\r", "\n") if "\r" in value else value


def group_of_prompt(prompt: str) -> str:
    """The group of a row without an id: a short hash of its normalised prompt."""
    text = normalise(prompt).encode("utf-8", errors="surrogatepass")
    return "prompt-" + hashlib.sha256(text).hexdigest()[:16]


def group_of(values: Mapping[str, Any], column: str | None, prompt: str) -> str:
    """The group id of a row: its question id as text, else the hash of its prompt."""
    value = values.get(column) if column else None
    if value is None or isinstance(value, (dict, list)) or not str(value).strip():
        return group_of_prompt(prompt)
    if isinstance(value, float):
        # A column with gaps comes out of Parquet or pandas as floats, and the gaps as NaN: those rows
        # have no id, and must not become one group of their own.
        if not math.isfinite(value):
            return group_of_prompt(prompt)
        if value.is_integer():
            value = int(value)
    return str(value).strip()


def number_of(value: object) -> float | None:
    """`value` as a finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if abs(number) < float("inf") else None


def parse_messages(value: object) -> tuple[Message, ...] | str:
    """A conversation from `[{"role", "content"}]` or `[{"from", "value"}]`.

    Returns:
        The turns (an optional system turn, then user and assistant in turn, starting with the user),
        or in words why it is not such a conversation.
    """
    if not isinstance(value, (list, tuple)) or not value:
        return "not a list of turns"
    turns = []
    for item in value:
        if not isinstance(item, Mapping):
            return "a turn that is not an object"
        role = item.get("role", item.get("from"))
        content = text_of(item.get("content", item.get("value")))
        if not isinstance(role, str) or role.lower() not in _ROLES:
            return f"a turn of unknown role {role!r}"
        if content is None:
            return "a turn whose content is not text"
        if not content.strip():
            return "an empty turn"
        turns.append(Message(_ROLES[role.lower()], content))
    talk = turns[1:] if turns[0].role == "system" else turns
    for position, turn in enumerate(talk):
        if turn.role != ("user", "assistant")[position % 2]:
            return "turns that do not alternate user, assistant"
    if not talk:
        return "no user turn"
    return tuple(turns)


def flatten(messages: Sequence[Message]) -> str:
    """A conversation as one prompt text.

    A lone user turn is its own text; else every turn is `Role: text`, separated by a blank line.
    """
    if len(messages) == 1 and messages[0].role == "user":
        return messages[0].content
    return "\n\n".join(f"{turn.role.capitalize()}: {turn.content.strip()}" for turn in messages)
