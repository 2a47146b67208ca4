"""`builtin:` names: found in a checkout and in an installation, refused when not shipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from modern_rlhf.errors import DataError
from modern_rlhf.utils import paths
from modern_rlhf.utils.paths import DATA_FOLDERS, data_root, resolve_path, shipped_data


@pytest.mark.parametrize("text", ["./data.jsonl", "/abs/x", "org/dataset", "synthetic", ""])
def test_other_texts_pass_unchanged(text: str) -> None:
    assert resolve_path(text) == text


def test_a_shipped_folder_of_this_checkout(repository: Path) -> None:
    assert resolve_path("builtin:datasets_for_eval") == str(repository / "datasets_for_eval")


def test_relative_paths_beside_a_file(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").touch()
    assert resolve_path("rows.csv", relative_to=tmp_path) == str(tmp_path / "rows.csv")
    assert resolve_path("org/hub-set", relative_to=tmp_path) == "org/hub-set"


@pytest.mark.parametrize(
    "name",
    [
        "builtin:datasets_for_eval/none.jsonl",
        "builtin:docs",
        "builtin:../pyproject.toml",
        "builtin:datasets_for_eval/../pyproject.toml",
        "builtin:/etc/passwd",
        "builtin:",
        "builtin:tiny-code-lm",
    ],
)
def test_what_is_not_shipped_is_refused_with_a_list(name: str) -> None:
    with pytest.raises(DataError) as caught:
        resolve_path(name)
    assert f"data {name!r} is not shipped" in str(caught.value)
    assert "builtin:datasets_for_eval" in str(caught.value)


def test_an_installation_finds_its_embedded_copy(tmp_path: Path, monkeypatch) -> None:
    package = tmp_path / "site-packages" / "modern_rlhf"
    embedded = package / "embedded" / "datasets_for_eval"
    embedded.mkdir(parents=True)
    (embedded / "tasks.jsonl").touch()
    (tmp_path / "site-packages" / "datasets_for_eval").mkdir()  # somebody else's
    assert data_root(package) == package / "embedded"
    monkeypatch.setattr(paths, "data_root", lambda: data_root(package))
    name = "builtin:datasets_for_eval/tasks.jsonl"
    assert resolve_path(name) == str(embedded / "tasks.jsonl")
    assert shipped_data(package / "embedded") == ["builtin:datasets_for_eval", name]


def test_an_empty_installation_says_where_it_looked(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(paths, "data_root", lambda: tmp_path)
    with pytest.raises(DataError, match="nothing \\(looked in"):
        resolve_path("builtin:datasets_for_eval")


def test_the_build_ships_the_same_folders(repository: Path) -> None:
    """Read as text: Python 3.10 has no TOML reader."""
    text = (repository / "pyproject.toml").read_text(encoding="utf-8")
    table = text.partition("wheel.force-include]")[2].partition("\n[")[0]
    shipped = [line.partition(" = ") for line in table.splitlines() if " = " in line]
    assert {name: place.strip('"') for name, _, place in shipped} == {
        folder: f"modern_rlhf/embedded/{folder}" for folder in DATA_FOLDERS
    }
