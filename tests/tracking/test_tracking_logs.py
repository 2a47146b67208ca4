"""The logs are valid JSON, deterministic, cut back exactly, and never glued to a torn line."""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modern_rlhf.errors import ConfigError, OutputError
from modern_rlhf.tracking import RunTracker, read_metrics, read_rollouts, training_log_handler
from modern_rlhf.utils import jsonl
from modern_rlhf.utils.jsonl import JsonLines, iterate_lines

REPOSITORY = Path(__file__).resolve().parents[2]


def strictly(text: str) -> Any:
    """Parse JSON, refusing the NaN and Infinity that Python would let through."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_a_line_is_the_head_and_the_sorted_values(tmp_path: Path) -> None:
    with RunTracker(tmp_path) as tracker:
        tracker.log("ppo", 3, {"reward": 0.1, "kl": 2, "entropy": None}, epoch=0.5)
        tracker.log("ppo", 3, {"bleu": 0.25, "bleu_low": 0.2}, epoch=1.0, kind="eval")
    assert (tmp_path / "metrics.jsonl").read_text() == (
        '{"schema": 1, "stage": "ppo", "kind": "train", "step": 3, "epoch": 0.5, '
        '"entropy": null, "kl": 2, "reward": 0.1}\n'
        '{"schema": 1, "stage": "ppo", "kind": "eval", "step": 3, "epoch": 1.0, '
        '"bleu": 0.25, "bleu_low": 0.2}\n'
    )
    assert [row["kind"] for row in read_metrics(tmp_path / "metrics.jsonl")] == ["train", "eval"]


@settings(deadline=None, max_examples=50)
@given(values=st.dictionaries(st.sampled_from("abcdef"), st.floats(), max_size=4))
def test_floats_come_back_to_the_bit_and_the_rest_is_marked(
    values: dict[str, float], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("run")
    with RunTracker(folder) as tracker:
        tracker.log("sft", 1, values)
    row = strictly((folder / "metrics.jsonl").read_text())
    for key, value in values.items():
        if math.isfinite(value):
            assert row[key] == value and math.copysign(1, row[key]) == math.copysign(1, value)
        else:
            assert row[key] is None
            assert row[f"{key}_nonfinite"] == repr(value)  # "nan", "inf" or "-inf"


def test_the_same_run_writes_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        with RunTracker(tmp_path / name) as tracker:
            for step in range(5):
                tracker.log("sft", step, {"loss": 1 / (step + 3), "z": np.float32(0.1)})
                tracker.log_timing("sft", step, {"seconds": os.getpid() * step})
                tracker.log_rollouts([{"step": step, "prompt": "p"}])
    for name in ("metrics.jsonl", "rollouts.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert "time" not in read_metrics(tmp_path / "a" / "metrics.jsonl")[0]
    assert "time" in read_metrics(tmp_path / "a" / "timings.jsonl")[0]


def test_numbers_of_numpy_are_numbers_and_others_are_refused(tmp_path: Path) -> None:
    with RunTracker(tmp_path) as tracker:
        tracker.log("sft", np.int64(2), {"a": np.float64(0.5), "b": np.int32(7)})
        with pytest.raises(TypeError, match="`loss` is a str"):
            tracker.log("sft", 1, {"loss": "0.5"})  # type: ignore[dict-item]
        for key in ("step", "stage", "kl_nonfinite"):
            with pytest.raises(ValueError, match="reserved"):
                tracker.log("sft", 1, {key: 1.0})
    row = read_metrics(tmp_path / "metrics.jsonl")[0]
    assert (row["step"], row["a"], row["b"]) == (2, 0.5, 7)
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 1


def test_rollouts_hold_hostile_text_on_one_line_each(tmp_path: Path) -> None:
    text = "a\nb\u2028c\x00\ud800é\r"
    row = {
        "prompt": text,
        "components": {"syntax": 1.0, "learned": float("nan")},
        "advantages": [0.5, float("inf"), None],
        "verdict": None,
        "ok": True,
    }
    with RunTracker(tmp_path) as tracker:
        tracker.log_rollouts([row, {"prompt": ""}])
        tracker.log_rollouts([])
    lines = (tmp_path / "rollouts.jsonl").read_bytes().splitlines()
    assert len(lines) == 2
    again = strictly(lines[0].decode("ascii"))
    assert again["prompt"] == text and again["ok"] is True and again["schema"] == 1
    assert again["components"] == {"syntax": 1.0, "learned": None, "learned_nonfinite": "nan"}
    assert again["advantages"] == [0.5, None, None] and again["advantages_nonfinite"] == "inf"
    assert [found["prompt"] for found in read_rollouts(tmp_path / "rollouts.jsonl")] == [text, ""]


# --- resume --------------------------------------------------------------------------------------


def write_steps(tracker: RunTracker, steps: range) -> None:
    for step in steps:
        tracker.log("ppo", step, {"reward": math.sin(step)})
        tracker.log_rollouts([{"step": step, "sample": sample} for sample in range(2)])


def test_cut_back_and_continued_logs_equal_uninterrupted_ones(tmp_path: Path) -> None:
    with RunTracker(tmp_path / "whole") as tracker:
        write_steps(tracker, range(10))
    with RunTracker(tmp_path / "killed") as tracker:
        write_steps(tracker, range(4))
        offsets = tracker.offsets()
        write_steps(tracker, range(4, 7))  # lost with the kill
    assert set(offsets) == {"metrics.jsonl", "timings.jsonl", "rollouts.jsonl"}
    assert offsets["timings.jsonl"] == 0
    assert json.loads(json.dumps(offsets)) == offsets
    with RunTracker(tmp_path / "killed") as tracker:
        tracker.truncate_to(offsets)
        assert tracker.offsets() == offsets
        write_steps(tracker, range(4, 10))
    for name in ("metrics.jsonl", "rollouts.jsonl"):
        expected = (tmp_path / "whole" / name).read_bytes()
        assert (tmp_path / "killed" / name).read_bytes() == expected


def test_cutting_back_also_works_on_a_tracker_that_has_written(tmp_path: Path) -> None:
    with RunTracker(tmp_path) as tracker:
        write_steps(tracker, range(2))
        offsets = tracker.offsets()
        write_steps(tracker, range(2, 4))
        tracker.truncate_to(offsets)
        write_steps(tracker, range(2, 3))
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [0, 1, 2]


def test_the_lines_of_a_stage_that_starts_again_are_taken_out(tmp_path: Path) -> None:
    with RunTracker(tmp_path) as tracker:
        tracker.log("sft", 1, {"loss": 1.0})
        tracker.log_rollouts([{"stage": "ppo", "text": '"stage": "sft"'}])
        sft = (tmp_path / "metrics.jsonl").read_bytes()
        tracker.log("ppo", 1, {"loss": 2.0})
        tracker.log_timing("ppo", 1, {"seconds": 2.0})
        tracker.forget("ppo")
        assert (tmp_path / "metrics.jsonl").read_bytes() == sft
        assert tracker.offsets()["timings.jsonl"] == tracker.offsets()["rollouts.jsonl"] == 0
        tracker.log_rollouts([{"stage": "ppo", "text": '"stage": "sft"'}])
        with (tmp_path / "metrics.jsonl").open("ab") as file:
            file.write(b"[1]\n")  # no row of ours: it stays for the reader, who names it
        tracker.forget("sft")
        assert (tmp_path / "metrics.jsonl").read_bytes() == b"[1]\n"
    assert len((tmp_path / "rollouts.jsonl").read_text().splitlines()) == 1


def test_a_log_that_lost_lines_is_said_loudly(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with RunTracker(tmp_path) as tracker:
        write_steps(tracker, range(3))
        offsets = tracker.offsets()
    (tmp_path / "rollouts.jsonl").unlink()
    with RunTracker(tmp_path) as tracker:
        tracker.truncate_to(offsets)
    assert "rollouts.jsonl has 0 bytes" in caplog.text and "metrics.jsonl" not in caplog.text


KILLED = """
import os, signal, sys
from pathlib import Path
from modern_rlhf.tracking import RunTracker
tracker = RunTracker(Path(sys.argv[1]))
for step in range(1000):
    tracker.log("sft", step, {"loss": 1.0})
tracker.status(state="running", step=999)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_killed_process_loses_no_line(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], env=environment, timeout=60)
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == list(range(1000))
    assert strictly((tmp_path / "status.json").read_text())["step"] == 999


# --- torn and broken lines -----------------------------------------------------------------------


@pytest.mark.parametrize("torn", [b'{"step": 2', b"\x00\x00", b'{"step": 2}'])
def test_a_torn_last_line_is_passed_over_named_and_removed_by_the_next_writer(
    tmp_path: Path, torn: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + torn)
    assert read_metrics(path) == [{"step": 1}]
    assert "metrics.jsonl line 2 is torn" in caplog.text
    assert path.read_bytes().endswith(torn)  # reading changes nothing
    with RunTracker(tmp_path) as tracker:
        tracker.log("sft", 2, {})
    assert [row["step"] for row in read_metrics(path)] == [1, 2]


def test_a_torn_line_longer_than_a_block_is_removed_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"a": 1}\n{"b": "' + b"y" * 200_000)
    lines = JsonLines(path)
    lines.append([{"c": 3}])
    lines.close()
    assert list(iterate_lines(path)) == [{"a": 1}, {"c": 3}]
    path.write_bytes(b"z" * 100_000)
    JsonLines(path).append([{"d": 4}])
    assert list(iterate_lines(path)) == [{"d": 4}]


def test_broken_lines_inside_are_passed_over_and_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"a": 1}\nnot json\n\xff\xfe\n[1]\n{"a": 2}\n')
    problems: list[str] = []
    assert list(iterate_lines(path, problems)) == [{"a": 1}, {"a": 2}]
    assert problems == [f"metrics.jsonl line {n} is broken, passed over" for n in (2, 3, 4)]


def test_no_file_is_no_lines_and_a_folder_is_an_error(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "none.jsonl") == []
    with pytest.raises(OutputError, match="cannot read"):
        read_metrics(tmp_path)


def test_a_disk_that_is_full_in_the_middle_of_a_line_leaves_no_half_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = RunTracker(tmp_path)
    tracker.log("sft", 1, {"loss": 1.0})

    def half(descriptor: int, data: bytes) -> None:
        os.write(descriptor, data[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, pytest.raises(OutputError, match=r"metrics\.jsonl.*full"):
        patch.setattr(jsonl, "write_all", half)
        tracker.log("sft", 2, {"loss": 1.0})
    tracker.log("sft", 2, {"loss": 1.0})
    tracker.close()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [strictly(line)["step"] for line in lines] == [1, 2]


# --- the rest ------------------------------------------------------------------------------------


def test_other_processes_of_a_run_write_nothing(tmp_path: Path) -> None:
    with RunTracker(tmp_path / "run", enabled=False, trackers=["no such tracker"]) as tracker:
        tracker.log("sft", 1, {"loss": 1.0})
        tracker.log_timing("sft", 1, {"seconds": 1.0})
        tracker.log_rollouts([{}])
        tracker.status(state="running")
        assert tracker.offsets() == {}
        tracker.truncate_to({"metrics.jsonl": 0})
    assert not (tmp_path / "run").exists()


def test_training_log_takes_the_messages(tmp_path: Path) -> None:
    handler = training_log_handler(tmp_path)
    logger = logging.getLogger("test_tracking")
    logger.addHandler(handler)
    try:
        logger.warning("grüße %s", "\ud800")
    finally:
        logger.removeHandler(handler)
        handler.close()
    text = (tmp_path / "training.log").read_text(encoding="utf-8")
    assert "WARNING test_tracking: grüße \\ud800" in text


def test_unknown_and_missing_trackers_are_named(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    with pytest.raises(ConfigError, match=r"'tensorbord' is unknown.*tensorboard"):
        RunTracker(tmp_path, trackers=["tensorbord"])
    from accelerate.tracking import get_available_trackers

    if "aim" not in [str(name) for name in get_available_trackers()]:
        with pytest.raises(ConfigError, match="pip install aim"):
            RunTracker(tmp_path, trackers=["aim"])


def test_tensorboard_gets_the_same_numbers(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with RunTracker(tmp_path / "run", trackers=["tensorboard"]) as tracker:
        tracker.log("ppo", 1, {"reward": 0.25, "gap": float("nan"), "none": None})
        tracker.log("ppo", 2, {"reward": 0.5})
        tracker.log_timing("ppo", 2, {"seconds": 1.5})
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "logs" / "run"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"ppo/train/reward", "ppo/timing/seconds"}
    assert [(e.step, e.value) for e in events.Scalars("ppo/train/reward")] == [(1, 0.25), (2, 0.5)]


def test_nothing_heavy_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys, modern_rlhf.tracking, modern_rlhf.report.status;"
        "heavy = {'torch', 'numpy', 'accelerate', 'matplotlib', 'safetensors'} & set(sys.modules);"
        "print(sorted(heavy))"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "[]", done.stderr
