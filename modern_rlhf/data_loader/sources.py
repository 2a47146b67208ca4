"""Where rows come from: a local file, a local folder, or a dataset of the Hugging Face hub.

`iter_tables` turns a path as people write it into tables, one after another. A folder stands for the
data files in it; where their names tell splits apart (`conala-train.json`, `conala-test.json`) only
the training files are taken unless the path asks otherwise (`conala-corpus@test`), so that a folder
never mixes evaluation rows into training.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from modern_rlhf.data_loader.formats import SUFFIXES, Row, Table, format_of, make_table, open_table
from modern_rlhf.errors import DataError
from modern_rlhf.utils.load_report import Tally, reading
from modern_rlhf.utils.paths import at_home, resolve_path

P = TypeVar("P")

SYNTHETIC = "synthetic"
"""The path that names the built-in 11-example source."""

CONALA = "conala"
"""The path that stands for the folder `data.conala_local_path`; `conala@test` for its test split."""

_HUB_ID = re.compile(
    r"(?P<name>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(:(?P<config>[\w.-]+))?(@(?P<split>[^@]+))?"
)
_SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "eval": "eval",
    "mined": "mined",
}
_NEVER_DATA = {"requirements.txt", "license.txt", "readme.txt", "dataset_infos.json"}


def named_path(path: str, conala_folder: str) -> str:
    """`conala` and `conala@<split>` as paths of the local corpus; any other text unchanged."""
    name, mark, split = path.partition("@")
    return f"{conala_folder}{mark}{split}" if name == CONALA else path


def iter_tables(path: str, tally: Tally) -> Iterator[Table]:
    """The tables that `path` stands for; each must be used up before the next is asked for.

    Args:
        path: a file, a folder, `builtin:<shipped data>`, or `org/name[:config][@split]`; a folder
            may carry `@split` too.

    Raises:
        DataError: nothing is there, the folder holds no data file, or the hub cannot be reached.
    """
    path = resolve_path(path)
    if not path:
        raise DataError("the path of the data is empty; give a file, a folder or a hub id")
    local = at_home(path)
    split = None
    with reading(local):
        if not local.exists() and "@" in path:
            stem, _, wanted = path.rpartition("@")
            if at_home(stem).is_dir():
                local, split = at_home(stem), wanted
        is_folder = local.is_dir()
    if is_folder:
        files = data_files(local, split, tally)
        tally.files = len(files)
        for file in files:
            yield open_table(file, tally)
    elif not local.exists() and (match := hub_match(path)):
        yield _hub_table(path, match, tally)
    else:
        yield open_table(local, tally)


def fitting_tables(
    path: str, tally: Tally, plan: Callable[[Table], P]
) -> Iterator[tuple[Table, P]]:
    """The tables of `path` that a loader can use, each with what `plan` found out about it.

    `plan` raises `DataError` for a table that lacks what the loader needs. In a folder with several
    files such a file is left out and noted; when no file fits, the first one's error is raised.
    """
    misfit: DataError | None = None
    fitting = 0
    for table in iter_tables(path, tally):
        try:
            planned = plan(table)
        except DataError as error:
            misfit = misfit or error
            tally.note(f"{source_name(table)} left out (other columns)")
            continue
        fitting += 1
        yield table, planned
    if misfit is not None and not fitting:
        raise misfit


def source_name(table: Table) -> str:
    """What records name as their source: the file's name, or the hub id."""
    return table.path if table.format == "hub" else Path(table.path).name


def hub_match(path: str) -> re.Match[str] | None:
    """Match `org/name[:config][@split]`, unless the text looks like a local file."""
    if path.startswith((".", "/", "~")) or Path(path.partition("@")[0]).suffix in SUFFIXES:
        return None
    return _HUB_ID.fullmatch(path)


def data_files(folder: Path, split: str | None, tally: Tally) -> list[Path]:
    """The data files of `folder`, or of its `data/` when it holds none itself, in name order.

    Raises:
        DataError: there are none, or none of the wanted split.
    """
    found = _listed(folder) or _listed(folder / "data")
    if not found:
        raise DataError(
            f"{folder}: the folder holds no data file; expected one of {', '.join(SUFFIXES)}"
        )
    by_split: dict[str, list[Path]] = {}
    for file in found:
        by_split.setdefault(_split_of(file), []).append(file)
    if split is not None:
        wanted = by_split.get(_SPLIT_WORDS.get(split, split), [])
        if not wanted:
            names = ", ".join(sorted(name for name in by_split if name)) or "none"
            raise DataError(f"{folder}: no file of split {split!r}; splits found: {names}")
        return wanted
    if "train" in by_split and len(by_split) > 1:
        chosen = by_split["train"]
        left = sum(map(len, by_split.values())) - len(chosen)
        tally.note(f"only the train files of the folder ({left} other data files left)")
        return chosen
    return found


def _listed(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    with reading(folder):
        return sorted(
            entry
            for entry in folder.iterdir()
            if not entry.name.startswith(".")
            and entry.name.lower() not in _NEVER_DATA
            and format_of(entry) is not None
            and entry.is_file()
        )


def _split_of(file: Path) -> str:
    for word in re.split(r"[^a-z]+", file.name.lower()):
        if word in _SPLIT_WORDS:
            return _SPLIT_WORDS[word]
    return ""


def _hub_table(path: str, match: re.Match[str], tally: Tally) -> Table:
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"{path}: no such local file, and reading it from the hub needs the package datasets "
            "(pip install datasets)"
        ) from error
    split = match["split"] or "train"
    data: Any
    try:
        data = datasets.load_dataset(match["name"], match["config"], split=split)
    except ValueError as error:
        # An unknown configuration or split; the library's message lists the known ones.
        raise DataError(f"{path}: {' '.join(str(error).split())[:300]}") from error
    except _network_errors() as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise DataError(
            f"{path}: no such local file or folder, and the hub gave nothing "
            f"({type(error).__name__}: {reason}); ways on: give a local file or folder, copy the "
            f"dataset from a machine that reaches the hub, or use {SYNTHETIC!r} to try things out"
        ) from error
    rows = (Row(f"row {number}", values) for number, values in enumerate(data))
    return make_table(path, "hub", tuple(data.column_names), rows, tally)


def _network_errors() -> tuple[type[Exception], ...]:
    """What `datasets` raises when the hub or a dataset cannot be reached; its clients differ."""
    kinds: list[type[Exception]] = [OSError]
    for client in ("httpx", "httpx2"):
        try:
            kinds.append(importlib.import_module(client).HTTPError)
        except ImportError:
            continue
    try:
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError:
        pass
    else:
        kinds.append(HfHubHTTPError)
    return tuple(kinds)
