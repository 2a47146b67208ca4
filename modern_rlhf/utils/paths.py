"""Names of the data that ships with the package, turned into paths.

`builtin:datasets_for_training/tasks.jsonl` is the file of that name in the checkout when the
package runs from one, else the copy inside the installed wheel (`modern_rlhf/embedded/`, put there
by the build). Every other text is a path or a hub id already and passes unchanged. Knows no format.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from modern_rlhf.errors import DataError

PREFIX = "builtin:"

DATA_FOLDERS = (
    "datasets_for_training",
    "datasets_for_eval",
    "evaluation_results_server",
    "conala-corpus",
)
"""The folders that ship; `pyproject.toml` copies the same ones into the wheel."""

_PACKAGE = Path(__file__).resolve().parents[1]


def data_root(package: Path = _PACKAGE) -> Path:
    """The folder the shipped data lies in: the checkout's root, or `embedded/` of an installation.

    A checkout is recognised by its `pyproject.toml` beside the package, so that a folder of the
    same name in `site-packages` is never taken for one.
    """
    checkout = package.parent
    return checkout if (checkout / "pyproject.toml").is_file() else package / "embedded"


def shipped_data(root: Path | None = None) -> list[str]:
    """The `builtin:` names there are: each shipped folder, and the files of the small ones."""
    root = data_root() if root is None else root
    names = []
    for folder in DATA_FOLDERS:
        if not (root / folder).is_dir():
            continue
        names.append(f"{PREFIX}{folder}")
        files = sorted(p.name for p in (root / folder).iterdir() if p.suffix != ".md")
        # A folder of hundreds of comparison files is named as a whole.
        names += [f"{PREFIX}{folder}/{name}" for name in files] if len(files) <= 12 else []
    return names


def at_home(text: str | os.PathLike[str]) -> Path:
    """The path with a leading `~` expanded; that of a user who does not exist stays as it is."""
    return Path(os.path.expanduser(text))  # Path.expanduser raises a RuntimeError there


def resolve_path(text: str, *, relative_to: str | Path | None = None) -> str:
    """A `builtin:` name as an absolute path; any other text unchanged.

    Args:
        relative_to: a folder; a relative path that exists under it is returned joined to it (a
            configuration file may name data beside itself).

    Raises:
        DataError: a `builtin:` name that is not shipped; the message lists those that are.
    """
    if not text.startswith(PREFIX):
        if relative_to is not None and text and (Path(relative_to) / text).exists():
            return str(Path(relative_to) / text)
        return text
    inner = PurePosixPath(text.removeprefix(PREFIX))
    root = data_root()
    path = root.joinpath(*inner.parts)
    known = bool(inner.parts) and inner.parts[0] in DATA_FOLDERS and ".." not in inner.parts
    if not known or not path.exists():
        there = ", ".join(shipped_data(root)) or f"nothing (looked in {root})"
        raise DataError(f"data {text!r} is not shipped with this package; shipped: {there}")
    return str(path)
