"""What machine and which versions a run had, and how much memory it took.

Facts for `config.json` and `doctor`, so that a number in a report can be traced to where it was
measured. A fact that can't be had is null, never a guess. Standard library at import; torch
is asked only when the caller's process has it loaded or asks for the GPU.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "accelerate",
    "peft",
    "datasets",
    "numpy",
    "scipy",
    "codebleu",
    "tree-sitter",
    "tree-sitter-python",
    "sacrebleu",
    "matplotlib",
)
"""Distributions whose versions can change a result."""

_MIB = 1024 * 1024
_ROOT = Path(__file__).resolve().parents[2]


def hardware_facts() -> dict[str, Any]:
    """Versions, cores, memory, GPUs and the git commit, as JSON values.

    Keys: `python`, `platform`, `versions` (distribution -> version or null), `cpu` (`name`,
    `cores`, `usable_cores`), `memory_mb`, `gpus` (list of `name`, `capability`, `memory_mb`),
    `git` (`commit`, `modified`; null outside a checkout).
    """
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": package_versions(),
        "cpu": {"name": cpu_name(), "cores": os.cpu_count(), "usable_cores": usable_cores()},
        "memory_mb": total_memory_mb(),
        "gpus": gpus(),
        "git": git_state(),
    }


def package_versions(names: tuple[str, ...] = PACKAGES) -> dict[str, str | None]:
    """Installed version by distribution name; null when it is not installed."""
    versions: dict[str, str | None] = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def cpu_name() -> str | None:
    """The processor's marketing name, where the system tells it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or None
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model"):
            return value.strip()
    return platform.processor() or None


def usable_cores() -> int | None:
    """Cores this process may run on: fewer than the machine's under a container or `taskset`."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def total_memory_mb() -> int | None:
    """Physical memory in MiB, or the control group's limit when that is smaller."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text().strip())
    except (OSError, ValueError):  # no such file, or the word "max"
        limit = total
    return min(total, limit) // _MIB


def gpus() -> list[dict[str, Any]]:
    """Name, capability and memory of each CUDA device; empty where torch sees none."""
    try:
        import torch
    except ImportError:
        return []
    if not torch.cuda.is_available():
        return []
    found = []
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        found.append(
            {
                "name": facts.name,
                "capability": f"{facts.major}.{facts.minor}",
                "memory_mb": facts.total_memory // _MIB,
            }
        )
    return found


def git_state(root: Path = _ROOT) -> dict[str, Any] | None:
    """Commit of the checkout the package runs from, and whether files differ from it."""
    if not (root / ".git").exists():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return None
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "modified": None if changes is None else bool(changes)}


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def peak_memory_mb() -> float | None:
    """The most resident memory this process has had, in MiB, since its start or the last reset."""
    try:
        # Not `getrusage`: on Linux its maximum survives exec, so a child starts at its parent's.
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (_MIB if sys.platform == "darwin" else 1024)


def reset_peak_memory() -> bool:
    """Start the peaks of memory anew (a stage begins); False where the system can't do it."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_gpu_memory_mb() -> float | None:
    """The most memory torch has allocated on the current CUDA device, in MiB; null without one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return float(torch.cuda.max_memory_allocated()) / _MIB
