"""`doctor` and `verify_gpu.py`: true lines, no network when told so, no hanging."""

from __future__ import annotations

import platform
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from modern_rlhf.cli import doctor
from modern_rlhf.main import main


@pytest.fixture
def no_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "sandbox_lines", lambda: iter(["sandbox         (not probed)"]))


@pytest.mark.usefixtures("no_sandbox")
def test_doctor_says_what_is_here(capsys) -> None:
    import torch

    assert main(["doctor"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["python"].startswith(platform.python_version())
    assert lines["torch"].startswith(torch.__version__)
    assert lines["model"].strip() == "hub       not asked (HF_HUB_OFFLINE is set)"


def test_doctor_probes_the_real_sandbox() -> None:
    lines = list(doctor.sandbox_lines())
    assert lines and all(line.startswith("sandbox ") for line in lines)


def test_an_unreachable_hub_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.delenv("TRANSFORMERS_OFFLINE")
    state = doctor.hub_state(1.0)
    assert "work without it" in state
    assert state.startswith(("not reachable", "no answer"))


def test_a_silent_hub_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that accepts and never answers."""
    import huggingface_hub.constants

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.delenv("TRANSFORMERS_OFFLINE")
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        began = time.monotonic()
        state = doctor.hub_state(0.5)
        assert time.monotonic() - began < 10
    assert state.startswith(("not reachable", "no answer"))


def test_verify_gpu_without_a_gpu(repository: Path, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU; the refusal can't be seen here")
    done = subprocess.run(
        [sys.executable, str(repository / "verify_gpu.py")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "cpu-test` runs without one" in done.stdout
    assert done.stderr == ""
