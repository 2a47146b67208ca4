"""A checkpoint is whole or not there; damage is seen, named and survived."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from modern_rlhf.checkpoint import files as files_module
from modern_rlhf.checkpoint import store as store_module
from modern_rlhf.checkpoint.store import CheckpointStore, verify, write_final_model
from modern_rlhf.errors import CheckpointError, ConfigError, OutputError
from modern_rlhf.utils import atomic


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_is_a_folder_of_named_parts(tmp_path: Path, state: dict[str, Any]) -> None:
    store = CheckpointStore(tmp_path)
    path = store.save(40, state, metric=0.5)
    assert path == tmp_path / "checkpoint-40"
    assert names(path) == sorted(
        ["manifest.json"] + [f"{part}.{kind}" for part in state for kind in ("safetensors", "json")]
    )
    assert (tmp_path / "LATEST").read_text() == "checkpoint-40\n"
    assert load_file(path / "model.safetensors").keys() == state["model"].keys()
    manifest = json.loads((path / "manifest.json").read_text())
    assert (manifest["schema"], manifest["step"], manifest["metric"]) == (1, 40, 0.5)
    assert verify(path) == []

    loaded = store.load_latest({"model": state["model"]})
    assert loaded is not None
    assert (loaded.step, loaded.metric, loaded.skipped) == (40, 0.5, [])
    assert loaded.state["loop"] == state["loop"]
    assert loaded.state["model"]["0.weight"].equal(state["model"]["0.weight"])


def test_nothing_saved_is_none_and_not_an_error(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "never made")
    assert store.load_latest() is None and store.best() is None and store.steps() == []
    with pytest.raises(CheckpointError, match=r"checkpoint-7.*manifest.json is missing"):
        store.load(7)


# --- retention -----------------------------------------------------------------------------------


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_last=2)
    for step, metric in [(1, 0.1), (2, 0.9), (3, 0.9), (4, 0.2), (5, float("nan"))]:
        store.save(step, {"loop": {"step": step}}, metric=metric)
    assert store.steps() == [2, 4, 5]  # of the equals 2 and 3 the earlier one
    best = store.best()
    assert best is not None and best.step == 2 and best.state["loop"]["step"] == 2


def test_the_best_can_be_left_out(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_best=False, keep_last=3)
    for step, metric in [(1, 0.9), (2, 0.1), (3, 0.8), (10, 0.7)]:
        store.save(step, {"loop": step}, metric=metric)
    assert store.steps() == [2, 3, 10]  # 10 sorts after 3 by number, not by name


def test_fewer_than_two_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="keep_last is 1"):
        CheckpointStore(tmp_path, keep_last=1)


def test_a_damaged_checkpoint_pushes_out_no_good_one(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_best=False)
    for step in (1, 2, 3):
        store.save(step, {"loop": step})
    (tmp_path / "checkpoint-3" / "loop.json").write_text("{}")
    loaded = store.load_latest()
    assert loaded is not None and loaded.step == 2
    store.save(4, {"loop": 4})
    assert store.steps() == [2, 3, 4]
    store.save(3 + 2, {"loop": 5})
    assert store.steps() == [3, 4, 5]


def test_going_on_from_an_older_one_sets_later_ones_aside(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for step in (10, 20):
        store.save(step, {"loop": step})
    assert store.load(10).state["loop"] == 10
    store.save(15, {"loop": 15})
    loaded = store.load_latest()
    assert loaded is not None and loaded.step == 15
    aside = [name for name in names(tmp_path) if name.startswith("superseded-20-")]
    assert len(aside) == 1 and verify(tmp_path / aside[0]) == []


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(1, {"loop": "old"})
    store.save(1, {"loop": "new"})
    assert store.load(1).state["loop"] == "new"
    assert names(tmp_path) == ["LATEST", "checkpoint-1"]


# --- damage --------------------------------------------------------------------------------------

FILES = ["model.safetensors", "optimizer.json", "loop.json", "loop.safetensors", "manifest.json"]


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset % len(data)] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "harm", ["truncate", "empty", "flip first", "flip middle", "flip last", "remove"]
)
def test_damage_is_named_and_the_previous_one_used(
    name: str, harm: str, tmp_path: Path, state: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    store = CheckpointStore(tmp_path)
    store.save(1, state)
    newest = store.save(2, state)
    path = newest / name
    size = path.stat().st_size
    if harm == "remove":
        path.unlink()
    elif harm == "truncate":
        os.truncate(path, size - 1)
    elif harm == "empty":
        os.truncate(path, 0)
    else:
        flip(path, {"flip first": 0, "flip middle": size // 2, "flip last": size - 3}[harm])
    assert any(name in problem for problem in verify(newest)) or name == "manifest.json"
    assert verify(newest) != []
    loaded = store.load_latest()
    assert loaded is not None and loaded.step == 1
    assert len(loaded.skipped) == 1
    assert "checkpoint-2" in loaded.skipped[0] and name in loaded.skipped[0]
    assert loaded.skipped[0] in caplog.text and "\n" not in loaded.skipped[0]
    with pytest.raises(CheckpointError, match=name):
        store.load(2)


def test_bytes_all_over_a_checkpoint_are_vouched_for(tmp_path: Path) -> None:
    path = CheckpointStore(tmp_path).save(1, {"m": {"w": torch.arange(3.0)}}, metric=1.5)
    unseen = []
    for file in sorted(path.iterdir()):
        original = file.read_bytes()
        for offset in range(0, len(original), 3):
            flip(file, offset)
            if not verify(path):
                unseen.append((file.name, offset, chr(original[offset])))
            file.write_bytes(original)
    assert unseen == []
    assert verify(path) == []


def test_when_none_is_good_the_error_names_all(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for step in (1, 2):
        (store.save(step, {"loop": step}) / "loop.json").unlink()
    with pytest.raises(CheckpointError) as caught:
        store.load_latest()
    message = str(caught.value)
    assert "checkpoint-1" in message and "checkpoint-2" in message and "loop.json" in message
    assert "\n" not in message


def test_a_removed_newest_checkpoint_is_missed(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(1, {"loop": 1})
    shutil.rmtree(store.save(2, {"loop": 2}))
    loaded = store.load_latest()
    assert loaded is not None and loaded.step == 1
    assert "LATEST names checkpoint-2" in loaded.skipped[0]


def test_the_best_one_is_verified_too(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(1, {"loop": 1}, metric=0.5)
    flip(store.save(2, {"loop": 2}, metric=0.9) / "loop.json", 3)
    best = store.best()
    assert best is not None and best.step == 1 and len(best.skipped) == 1


@pytest.mark.parametrize(
    ("expected", "said"),
    [
        ({"w": torch.zeros(2, 4)}, "`w` is float32[2, 3], expected float32[2, 4]"),
        ({"w": torch.zeros(2, 3).bfloat16()}, "`w` is float32[2, 3], expected bfloat16[2, 3]"),
        ({"w": torch.zeros(2, 3), "v": torch.zeros(1)}, "no tensor `v`"),
        ({}, "a tensor `w` that the model does not have"),
    ],
)
def test_another_models_checkpoint_is_recognised(
    tmp_path: Path, expected: dict[str, Any], said: str
) -> None:
    store = CheckpointStore(tmp_path)
    store.save(1, {"model": {"w": torch.zeros(2, 3)}})
    with pytest.raises(CheckpointError) as caught:
        store.load_latest({"model": expected})
    assert said in str(caught.value) and "belongs to another model" in str(caught.value)
    with pytest.raises(CheckpointError, match="no part `critic`"):
        store.load(1, {"critic": {}})


def test_a_newer_schema_says_upgrade(tmp_path: Path) -> None:
    path = CheckpointStore(tmp_path).save(1, {"loop": 1}) / "manifest.json"
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 2', 1))
    assert "upgrade" in verify(path.parent)[0]


def test_a_manifest_cannot_point_out_of_its_folder(tmp_path: Path) -> None:
    files_module.write_manifest(tmp_path)
    path = tmp_path / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["digest"]
    manifest["files"] = {"../secret": {"size": 1, "sha256": "0"}}
    manifest["digest"] = files_module._digest(manifest)
    atomic.write_json(path, manifest)
    assert verify(tmp_path) == ["../secret points out of the folder"]


# --- full disks, unwritable folders --------------------------------------------------------------


def test_a_disk_that_fills_up_leaves_the_old_checkpoint(
    tmp_path: Path, state: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every write in turn finds the disk full."""
    store = CheckpointStore(tmp_path)
    store.save(1, state)
    before = names(tmp_path)
    real_fsync = os.fsync
    for allowed in range(6):
        left = iter([True] * allowed)

        def full(descriptor: int, left: Any = left) -> None:
            if next(left, None) is None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real_fsync(descriptor)

        with (
            monkeypatch.context() as patch,
            pytest.raises(OutputError, match="disk is full") as caught,
        ):
            patch.setattr(atomic.os, "fsync", full)
            store.save(2, state)
        assert "\n" not in str(caught.value)
        assert names(tmp_path) == before
        loaded = store.load_latest()
        assert loaded is not None and loaded.step == 1 and loaded.skipped == []
    store.save(2, state)
    assert store.steps() == [1, 2]


def test_a_really_full_disk_leaves_the_old_checkpoint(
    tiny_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CheckpointStore(tiny_disk)
    state = {"model": {"w": torch.randn(80_000)}, "after": {"v": torch.randn(5_000)}}  # 340 kB
    store.save(1, state)
    (tiny_disk / "ballast").write_bytes(b"x" * 400_000)
    with pytest.raises(OutputError, match=r"needs 0\.4 MB"):
        store.save(2, state)
    # The same with nobody looking before: safetensors runs into the full disk itself.
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(store_module.shutil, "disk_usage", lambda path: usage(10**9))
    with pytest.raises(OutputError, match=r"No space left.*free some space"):
        store.save(2, state)
    assert names(tiny_disk) == ["LATEST", "ballast", "checkpoint-1"]
    loaded = store.load_latest({"model": state["model"]})
    assert loaded is not None and loaded.state["model"]["w"].equal(state["model"]["w"])
    (tiny_disk / "ballast").unlink()
    store.save(2, state)
    assert store.steps() == [1, 2]


def test_space_is_looked_at_before_a_byte_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "free")
    store = CheckpointStore(tmp_path)
    state = {"model": {"w": torch.zeros(1_000_000)}}  # 4 MB: 1.2 x 4 = 4.8 MB are asked for
    monkeypatch.setattr(store_module.shutil, "disk_usage", lambda path: usage(4_700_000))
    with pytest.raises(OutputError, match=r"needs 4\.8 MB and 4\.7 MB are free"):
        store.save(1, state)
    assert names(tmp_path) == []
    monkeypatch.setattr(store_module.shutil, "disk_usage", lambda path: usage(4_900_000))
    store.save(1, state)


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "ppo").write_text("")
    with pytest.raises(OutputError, match="ppo"):
        CheckpointStore(tmp_path / "ppo").save(1, {"loop": 1})


@pytest.mark.parametrize("part", ["manifest", "../up", "a/b", ""])
def test_unusable_part_names_are_refused(tmp_path: Path, part: str) -> None:
    with pytest.raises(CheckpointError, match="not a usable name"):
        CheckpointStore(tmp_path).save(1, {part: 1})


# --- leftovers of killed runs --------------------------------------------------------------------


def test_leftovers_are_neither_loaded_nor_kept(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    good = store.save(1, {"loop": 1})
    shutil.copytree(good, tmp_path / "checkpoint-2.tmp-abc")
    (tmp_path / "LATEST.tmp-abc").write_text("checkpoint-2")
    loaded = store.load_latest()
    assert loaded is not None and loaded.step == 1
    store.save(3, {"loop": 3})
    assert names(tmp_path) == ["LATEST", "checkpoint-1", "checkpoint-3"]


def test_a_kill_between_the_two_renames_of_a_replacement_is_undone(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    os.rename(store.save(1, {"loop": "old"}), tmp_path / "checkpoint-1.old-abc")
    loaded = store.load_latest()
    assert loaded is not None and loaded.state["loop"] == "old"
    assert names(tmp_path) == ["LATEST", "checkpoint-1"]


# --- the final model -----------------------------------------------------------------------------


def test_the_final_model_has_a_manifest_and_is_replaced_whole(tmp_path: Path) -> None:
    def save(text: str) -> Any:
        def write(folder: Path) -> None:
            (folder / "sub").mkdir()
            (folder / "sub" / "config.json").write_text(text)

        return write

    path = write_final_model(tmp_path / "sft", save("one"))
    assert path == tmp_path / "sft" / "final_model" and verify(path) == []
    assert write_final_model(path, save("two")) == path
    assert (path / "sub" / "config.json").read_text() == "two" and verify(path) == []

    def fail(folder: Path) -> None:
        (folder / "half").write_text("")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        write_final_model(path, fail)
    assert (path / "sub" / "config.json").read_text() == "two" and verify(path) == []
    assert names(tmp_path / "sft") == ["final_model"]
    flip(path / "sub" / "config.json", 0)
    assert verify(path) == ["sub/config.json is damaged: its SHA-256 is not the one written"]
