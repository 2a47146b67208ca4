"""File formats: one readable file in, a table of rows out.

A table is a stream of dictionaries with the columns they were seen to have. CSV, TSV, JSON, JSON
lines, Parquet and plain text are read (the text formats also as `.gz`); everything but a JSON array
is streamed. What the columns mean is the business of the loaders, not of this file.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from modern_rlhf.errors import DataError
from modern_rlhf.utils.load_report import (
    Tally,
    check_characters,
    decoded_lines,
    may_hold_halves,
    read_text,
    reading,
)

SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".txt": "txt",
}
"""File suffix -> format; every one but Parquet may be followed by `.gz`."""

_PEEK = 50  # rows whose keys are united to learn the columns of a format without a header
_FIELD_LIMIT = 1 << 26  # characters in one CSV field; the standard library's own limit is 131,072


class Row(NamedTuple):
    """One row and where it stands (a line number, or a position in an array)."""

    where: str
    values: Mapping[str, Any]


@dataclass
class Table:
    """Rows of one file or hub split, to be iterated once."""

    path: str
    format: str
    columns: tuple[str, ...]
    rows: Iterator[Row]


def format_of(path: Path) -> str | None:
    """The format a file name stands for, or None for a suffix that is not read."""
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    name = SUFFIXES.get(suffix.lower())
    return None if name == "parquet" and path.suffix == ".gz" else name


def open_table(path: Path, tally: Tally) -> Table:
    """Open one file; its rows are read as they are asked for.

    Blank lines of line formats and CSV rows whose number of cells differs from the header's are
    counted in `tally`; `tally.rows_read` grows by one with every row.

    Raises:
        DataError: unknown suffix, or the file is missing, empty, wrongly encoded or broken (the last
            two while iterating, with the line number).
    """
    format_name = format_of(path)
    if format_name is None:
        with reading(path):
            path.stat()
        raise DataError(
            f"{path}: unknown file type {path.suffix or '(no suffix)'!r}; "
            f"expected one of {', '.join(SUFFIXES)}"
        )
    columns: tuple[str, ...] | None = None
    if format_name in ("csv", "tsv"):
        columns, rows = _read_csv(path, "\t" if format_name == "tsv" else ",", tally)
    elif format_name == "json":
        rows = _read_json(path, tally)
    elif format_name == "jsonl":
        rows = _read_json_lines(path, decoded_lines(path), tally)
    elif format_name == "parquet":
        columns, rows = _read_parquet(path)
    else:
        columns, rows = ("prompt",), _read_text_lines(path, tally)
    return make_table(str(path), format_name, columns, rows, tally)


def make_table(
    path: str, format_name: str, columns: tuple[str, ...] | None, rows: Iterator[Row], tally: Tally
) -> Table:
    """Wrap `rows`; without given `columns` they are the keys of the first rows, in order."""
    head = list(itertools.islice(rows, _PEEK))
    if not head:
        raise DataError(
            f"{path}: holds no usable row ({tally.skipped or 'no row at all'}); expected at least one"
        )
    if columns is None:
        columns = tuple(dict.fromkeys(key for row in head for key in row.values))
    tally.add_format(format_name)

    def counted() -> Iterator[Row]:
        for row in itertools.chain(head, rows):
            tally.rows_read += 1
            yield row

    return Table(path, format_name, columns, counted())


def _read_csv(path: Path, delimiter: str, tally: Tally) -> tuple[tuple[str, ...], Iterator[Row]]:
    # strict=True: without it an unclosed quote swallows the rest of the file into one field.
    reader = csv.reader(decoded_lines(path), delimiter=delimiter, strict=True)

    def records() -> Iterator[list[str]]:
        while True:
            # The limit is global to the process, so it is put back before control leaves this line.
            before = csv.field_size_limit(_FIELD_LIMIT)
            try:
                record = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if "new-line character" in str(error):
                    raise DataError(
                        f"{path} line {reader.line_num}: a line ends in a carriage return alone; save "
                        "the file with Unix or Windows line ends"
                    ) from error
                raise DataError(
                    f"{path} line {reader.line_num}: broken CSV ({error}); "
                    "fields with quotes or line breaks must be quoted"
                ) from error
            finally:
                csv.field_size_limit(before)
            yield record

    stream = records()
    header = [name.strip() for name in next(stream, [])]
    doubled = sorted({name for name in header if name and header.count(name) > 1})
    if doubled:
        raise DataError(f"{path}: column {doubled[0]!r} stands twice in the header")
    if not any(header):
        raise DataError(f"{path}: has no header line; expected column names on line 1")
    wrong = next((mark for mark in ",;\t|" if mark != delimiter and mark in header[0]), None)
    if len(header) == 1 and wrong is not None:
        raise DataError(
            f"{path} line 1: one column {header[0]!r}; cells are expected to have "
            f"{'tabs' if delimiter != ',' else 'commas'} between them, not {wrong!r}"
        )
    if "" in header:  # spreadsheets leave such columns behind
        tally.note(f"{header.count('')} columns of {path.name} have no name and were not read")

    def rows() -> Iterator[Row]:
        for record in stream:
            where = f"{path.name} line {reader.line_num}"
            if not record:
                tally.rows_read += 1
                tally.skip("blank line", where)
            elif len(record) != len(header):
                tally.rows_read += 1
                tally.skip(f"row without exactly {len(header)} cells", where)
            else:
                values = dict(zip(header, record, strict=True))
                values.pop("", None)
                yield Row(where, values)

    return tuple(name for name in header if name), rows()


def _read_json_lines(path: Path, lines: Iterable[str], tally: Tally) -> Iterator[Row]:
    for number, line in enumerate(lines, start=1):
        where = f"{path.name} line {number}"
        if not line.strip():
            tally.rows_read += 1
            tally.skip("blank line", where)
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:  # ValueError: a number of 4,300 digits, too
            raise DataError(
                f"{path} line {number}: broken JSON ({_short(error)}); expected one whole object a line"
            ) from error
        if not isinstance(values, dict):
            raise DataError(f"{path} line {number}: expected a JSON object, found {_kind(values)}")
        if may_hold_halves(line):
            check_characters(f"{path} line {number}", values)
        yield Row(where, values)


def _read_json(path: Path, tally: Tally) -> Iterator[Row]:
    text = read_text(path)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        if isinstance(error, json.JSONDecodeError) and error.msg == "Extra data":
            tally.note(f"{path.name} holds JSON lines and was read as such")
            # Not splitlines(): it also breaks at U+2028, which may stand inside a JSON string.
            yield from _read_json_lines(path, text.rstrip("\n").split("\n"), tally)
            return
        line = f" line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(f"{path}{line}: broken JSON ({_short(error)})") from error
    if isinstance(data, dict):
        # {"data": [...]}: the one list of objects in the object is meant; else it is a single row.
        lists = [v for v in data.values() if isinstance(v, list) and v and isinstance(v[0], dict)]
        is_row = "messages" in data or "conversations" in data or "questions_df" in data
        data = lists[0] if len(lists) == 1 and len(data) == 1 and not is_row else [data]
    halves = may_hold_halves(text)
    if not isinstance(data, list):
        raise DataError(f"{path}: expected a JSON array of objects, found {_kind(data)}")
    for position, values in enumerate(data):
        if not isinstance(values, dict):
            raise DataError(
                f"{path} item {position}: expected a JSON object, found {_kind(values)}"
            )
        if halves:
            check_characters(f"{path} item {position}", values)
        yield Row(f"{path.name} item {position}", values)


def _read_parquet(path: Path) -> tuple[tuple[str, ...], Iterator[Row]]:
    with reading(path):
        path.open("rb").close()
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise DataError(
            f"{path}: reading Parquet needs the package pyarrow (pip install pyarrow), "
            "or convert the file to JSON lines"
        ) from error
    try:
        file = parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({_short(error)})") from error

    def rows() -> Iterator[Row]:
        number = 0
        try:
            for batch in file.iter_batches(batch_size=1024):
                for values in batch.to_pylist():
                    yield Row(f"{path.name} row {number}", values)
                    number += 1
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"{path} after row {number}: damaged ({_short(error)})") from error

    return tuple(file.schema_arrow.names), rows()


def _read_text_lines(path: Path, tally: Tally) -> Iterator[Row]:
    for number, line in enumerate(decoded_lines(path), start=1):
        where = f"{path.name} line {number}"
        if line.strip():
            yield Row(where, {"prompt": line.strip()})
        else:
            tally.rows_read += 1
            tally.skip("blank line", where)


def _short(error: BaseException) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno}"
    return (str(error).splitlines() or [type(error).__name__])[0]


def _kind(value: object) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean"}
    return names.get(type(value), "null" if value is None else "a number")
