"""Fixtures of the checkpoint tests: a small trained state, and a disk that is nearly full."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch


def _train(model: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(5, 3)).square().mean().backward()
        optimizer.step()


def _new_model() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    return model, torch.optim.AdamW(model.parameters(), lr=0.01, amsgrad=True)


@pytest.fixture
def train() -> Callable[[torch.nn.Module, torch.optim.Optimizer, int], None]:
    """`train(model, optimizer, steps)`: AdamW steps on data from torch's global generator."""
    return _train


@pytest.fixture
def new_model() -> Callable[[], tuple[torch.nn.Module, torch.optim.Optimizer]]:
    """`new_model()`: a small network and its AdamW."""
    return _new_model


@pytest.fixture
def state() -> dict[str, Any]:
    """What a trainer saves: a model and an optimiser after two steps, and counters."""
    torch.manual_seed(0)
    model, optimizer = _new_model()
    _train(model, optimizer, 2)
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "loop": {"step": 2, "kl_coefficient": 0.2, "best": float("-inf")},
    }


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 1 MiB."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip(
            "mounting a 1 MiB tmpfs needs root on Linux; the simulated full disk runs anyway"
        )
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("this machine does not allow mounting a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
