"""The command line at work on a full disk and with a loss that is no number: one line, code 1."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from modern_rlhf.config import ModernRLHFConfig
from modern_rlhf.config.io import apply_overrides, dump_config
from modern_rlhf.main import main


def command(config: ModernRLHFConfig, folder: Path) -> list[str]:
    file = folder / "run.yaml"
    dump_config(config, file)
    return [sys.executable, "-m", "modern_rlhf.main", "--config-file", str(file)]


def own_words(stderr: str) -> list[str]:
    """What is said beside progress bars."""
    _, *said = stderr.split("error: ")
    return said


def test_a_full_disk_is_one_line_and_leaves_earlier_results(
    config: ModernRLHFConfig, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=400k tmpfs {disk}"
    probe = subprocess.run(["unshare", "-Urm", "sh", "-c", mount], capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(f"no small disk can be made here: {probe.stderr.strip()}")
    config = apply_overrides(config, [f"data.output_path={disk / 'out'}"])
    # Only inside the namespace is the disk there: it is looked at from there, too.
    script = f'{mount} && echo kept > {disk}/earlier && "$@"; echo code $?; cat {disk}/earlier'
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", script, "sh", *command(config, tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "TQDM_DISABLE": "1"},
    )
    assert done.stdout.splitlines()[-2:] == ["code 1", "kept"]
    assert "Traceback" not in done.stderr
    (line,) = own_words(done.stderr)
    assert line.startswith("cannot write") and str(disk) in line and "free some space" in line


def test_a_loss_that_is_no_number_is_one_line(
    config: ModernRLHFConfig, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = apply_overrides(
        config,
        ["training.sft_learning_rate=1e30", "training.sft_epochs=3", "training.max_grad_norm=1e30"],
    )
    assert main(command(config, tmp_path)[3:]) == 1
    captured = capfd.readouterr()
    assert "Traceback" not in captured.err
    (line,) = own_words(captured.err)
    assert line.count("\n") == 1 and "step" in line and "nan" in line.lower()
    assert "training.sft_learning_rate" in line  # the remedy
