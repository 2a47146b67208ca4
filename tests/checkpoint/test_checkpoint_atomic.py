"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from modern_rlhf.errors import OutputError
from modern_rlhf.utils import atomic
from modern_rlhf.utils.atomic import (
    atomic_directory,
    recover_replaced,
    write_bytes,
    write_json,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def failing(code: int) -> Any:
    def call(*arguments: Any, **options: Any) -> Any:
        raise OSError(code, os.strerror(code))

    return call


def test_content_is_replaced_and_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.bin"
    write_bytes(path, b"one")
    write_bytes(str(path), b"\0two")
    assert path.read_bytes() == b"\0two" and names(path.parent) == ["b.bin"]


def test_a_large_file_survives_short_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    monkeypatch.setattr(atomic.os, "write", lambda fd, data: real(fd, bytes(data)[:7]))
    write_bytes(tmp_path / "x", bytes(range(256)))
    monkeypatch.undo()
    assert (tmp_path / "x").read_bytes() == bytes(range(256))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_others_may_read_what_the_umask_lets_them(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_text(tmp_path / "x", "")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o644


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
@pytest.mark.parametrize(
    ("code", "said"), [(errno.ENOSPC, "disk is full"), (errno.EACCES, "no permission")]
)
def test_a_failed_write_keeps_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int, said: str
) -> None:
    path = tmp_path / "results.json"
    write_text(path, "old")
    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, call, failing(code))
        with pytest.raises(OutputError) as caught:
            write_text(path, "new")
    message = str(caught.value)
    assert str(path) in message and said in message and "--output-dir" in message
    assert "\n" not in message
    assert path.read_text() == "old" and names(tmp_path) == ["results.json"]


def test_json_has_its_schema_first_and_round_trips(tmp_path: Path) -> None:
    value = {"b": [1, 2.5, None], "a": "é\u2028"}
    write_json(tmp_path / "x.json", value, 3)
    text = (tmp_path / "x.json").read_text(encoding="ascii")
    assert list(json.loads(text)) == ["schema", "b", "a"] and text.endswith("}\n")
    assert json.loads(text) == {"schema": 3, **value}


def test_json_refuses_nan_and_names_its_place(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"`models\.rlhf\.1` is NaN"):
        write_json(tmp_path / "x.json", {"models": {"rlhf": [0.0, float("nan")]}})
    assert names(tmp_path) == []


def test_text_with_a_lone_surrogate_is_written(tmp_path: Path) -> None:
    write_text(tmp_path / "x", "a\ud800b")
    assert (tmp_path / "x").read_bytes() == b"a\\ud800b"


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    final = tmp_path / "made" / "folder"
    with atomic_directory(final) as temporary:
        (temporary / "sub").mkdir()
        (temporary / "sub" / "file").write_text("x")
        assert not final.exists()
    assert (final / "sub" / "file").read_text() == "x" and names(final.parent) == ["folder"]


def test_a_failed_folder_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), atomic_directory(tmp_path / "x") as temporary:
        (temporary / "half").write_text("")
        raise KeyboardInterrupt
    assert names(tmp_path) == []
    with pytest.raises(OutputError, match="disk is full"), atomic_directory(tmp_path / "x"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert names(tmp_path) == []


def test_an_existing_folder_is_replaced_only_when_asked(tmp_path: Path) -> None:
    final = tmp_path / "x"
    with atomic_directory(final) as temporary:
        (temporary / "old").write_text("")
    with pytest.raises(OutputError, match="exists already"), atomic_directory(final):
        pass
    with pytest.raises(ValueError), atomic_directory(final, replace=True):
        raise ValueError
    assert names(final) == ["old"]
    with atomic_directory(final, replace=True) as temporary:
        (temporary / "new").write_text("")
    assert names(final) == ["new"] and names(tmp_path) == ["x"]


def test_a_replacement_whose_second_rename_fails_puts_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    final = tmp_path / "x"
    with atomic_directory(final) as temporary:
        (temporary / "old").write_text("")
    real = os.rename

    def rename(source: Path, target: Path) -> None:
        if ".tmp-" in str(source):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    monkeypatch.setattr(atomic.os, "rename", rename)
    with pytest.raises(OutputError), atomic_directory(final, replace=True):
        pass
    assert names(final) == ["old"] and names(tmp_path) == ["x"]


def test_recovery_looks_at_its_own_folder_only(tmp_path: Path) -> None:
    for name in ("checkpoint-1.old-a", "checkpoint-12.old-b", "x[1].old-c"):
        (tmp_path / name).mkdir()
    recover_replaced(tmp_path / "checkpoint-1")
    recover_replaced(tmp_path / "x[1]")
    assert names(tmp_path) == ["checkpoint-1", "checkpoint-12.old-b", "x[1]"]


@pytest.mark.parametrize("library", ["safetensors", "tokenizers"])
def test_a_full_disk_is_one_line_for_libraries_with_errors_of_their_own(
    tmp_path: Path, library: str
) -> None:
    with pytest.raises(OutputError, match="disk is full"), atomic_directory(tmp_path / "model"):
        if library == "tokenizers":  # what `Tokenizer.save` raises
            raise Exception("No space left on device (os error 28)")  # noqa: TRY002
        raise SafetensorError("Error while serializing: I/O error: ... (os error 28)")
    assert list(tmp_path.iterdir()) == []


def test_errors_that_tell_of_no_disk_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), atomic_directory(tmp_path / "model"):
        raise ZeroDivisionError("0 (os errors are others)")
