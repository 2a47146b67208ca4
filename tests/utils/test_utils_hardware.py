"""Facts about the machine: JSON values, true where they can be checked, null where they can't."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

from modern_rlhf.utils.hardware import (
    git_state,
    hardware_facts,
    package_versions,
    peak_memory_mb,
    reset_peak_memory,
)


def test_facts_are_json_and_true() -> None:
    facts = json.loads(json.dumps(hardware_facts(), allow_nan=False))
    assert facts["python"] == platform.python_version()
    assert 1 <= facts["cpu"]["usable_cores"] <= facts["cpu"]["cores"]
    assert facts["memory_mb"] > 100
    assert set(facts["versions"]) >= {"torch", "transformers", "codebleu"}


def test_a_missing_package_is_null() -> None:
    assert package_versions(("no-such-distribution",)) == {"no-such-distribution": None}


def test_git_state(tmp_path: Path) -> None:
    assert git_state(tmp_path) is None

    def git(*words: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@t", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    assert git_state(tmp_path) is None  # no commit yet
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-q", "-m", "one")
    assert git_state(tmp_path) == {"commit": git("rev-parse", "HEAD"), "modified": False}
    (tmp_path / "file").write_text("two")
    state = git_state(tmp_path)
    assert state is not None and state["modified"] is True


def test_peak_memory_rises_and_resets() -> None:
    """A process of its own, so that other tests' memory does not matter: 200 MiB come and go."""
    code = (
        "from modern_rlhf.utils.hardware import peak_memory_mb, reset_peak_memory\n"
        "before = peak_memory_mb()\n"
        "block = bytearray(200 * 2**20)\n"
        "high = peak_memory_mb()\n"
        "del block\n"
        "print(before, high, peak_memory_mb() if reset_peak_memory() else None)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    before, high, after = done.stdout.split()
    assert float(high) - float(before) > 190
    if after != "None":  # only Linux resets peaks
        assert float(high) - float(after) > 190


def test_a_small_child_of_a_large_process_reports_its_own_peak() -> None:
    """`getrusage` would report the parent's size: its maximum survives exec."""
    block = bytearray(300 * 2**20)
    code = "from modern_rlhf.utils.hardware import peak_memory_mb; print(peak_memory_mb())"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    mine = peak_memory_mb()
    assert mine is not None and mine > 300
    if sys.platform.startswith("linux"):
        assert float(done.stdout) < 150
    assert len(block) and isinstance(reset_peak_memory(), bool)
