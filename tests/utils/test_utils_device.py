"""Device and precision: what was asked for is used or refused, and the reason is told."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from modern_rlhf.config.presets import get_preset
from modern_rlhf.config.sections import HardwareConfig
from modern_rlhf.errors import DeviceError
from modern_rlhf.utils import device as device_module
from modern_rlhf.utils.device import cpu_bf16, resolve_device


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """`machine(cuda=(9, 0), count=1, mps=False)`: torch says that this is there."""

    def build(*, cuda: tuple[int, int] | None = None, count: int = 1, mps: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda is not None)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count if cuda else 0)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: cuda)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "Test GPU")
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(device_module, "cpu_bf16", lambda: (True, "test cpu"))

    return build


def hardware(device: str, require_cuda: bool = False) -> HardwareConfig:
    return HardwareConfig(device=device, require_cuda=require_cuda)


@pytest.mark.parametrize("preset", ["fast", "research", "production"])
def test_gpu_presets_stop_at_once_without_cuda(preset: str, machine) -> None:
    machine()
    with pytest.raises(RuntimeError, match="CUDA GPU is not available!") as caught:
        resolve_device(get_preset(preset).hardware)
    assert isinstance(caught.value, DeviceError)
    assert caught.value.exit_code == 2
    for way in ("python run_modern_rlhf.py --config cpu-test", "--device cpu"):
        assert way in str(caught.value)


def test_require_cuda_refuses_auto_and_mps_too(machine) -> None:
    machine(mps=True)
    for name in ("auto", "mps", "cuda:0"):
        with pytest.raises(DeviceError, match="CUDA GPU is not available!"):
            resolve_device(hardware(name, require_cuda=True))


def test_an_explicit_device_wins(machine) -> None:
    machine(mps=True)
    assert resolve_device(hardware("cpu", require_cuda=True), explicit=True).device == "cpu"
    assert resolve_device(hardware("auto", require_cuda=True), explicit=True).device == "mps"


def test_a_missing_cuda_is_never_replaced(machine) -> None:
    machine()
    with pytest.raises(DeviceError, match="CUDA GPU is not available!"):
        resolve_device(hardware("cuda"), explicit=True)


@pytest.mark.parametrize(
    ("there", "expected"),
    [({"cuda": (9, 0), "mps": True}, "cuda"), ({"mps": True}, "mps"), ({}, "cpu")],
)
def test_auto_takes_the_best_there_is(machine, there: dict, expected: str) -> None:
    machine(**there)
    assert resolve_device(hardware("auto")).device == expected


@pytest.mark.parametrize("name", ["cuda:2", "cuda:", "cuda:x", "cuda:-1"])
def test_an_absent_gpu_number_is_refused(machine, name: str) -> None:
    machine(cuda=(9, 0), count=2)
    with pytest.raises(DeviceError, match="this machine has cuda:0 to cuda:1"):
        resolve_device(hardware(name))


def test_a_present_gpu_number_is_kept(machine) -> None:
    machine(cuda=(9, 0), count=2)
    assert resolve_device(hardware("cuda:1", require_cuda=True)).device == "cuda:1"


def test_an_absent_mps_is_refused(machine) -> None:
    machine(cuda=(9, 0))
    with pytest.raises(DeviceError, match="Apple GPU"):
        resolve_device(hardware("mps"))


@pytest.mark.parametrize(
    ("capability", "dtype"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")]
)
def test_cuda_precision_follows_the_silicon(machine, capability, dtype: str) -> None:
    machine(cuda=capability)
    choice = resolve_device(hardware("cuda"))
    assert choice.dtype == dtype
    assert f"{capability[0]}.{capability[1]}" in choice.line()


@pytest.mark.parametrize(
    ("asked", "device", "dtype"),
    [
        ("no", "cuda", "fp32"),
        ("fp16", "cuda", "fp16"),
        ("bf16", "cuda", "bf16"),
        ("bf16", "cpu", "bf16"),
        ("no", "cpu", "fp32"),
        ("auto", "mps", "fp32"),
    ],
)
def test_insisting_on_a_precision(machine, asked: str, device: str, dtype: str) -> None:
    machine(cuda=(7, 0), mps=True)
    assert resolve_device(hardware(device), mixed_precision=asked).dtype == dtype


def test_fp16_needs_cuda(machine) -> None:
    machine()
    with pytest.raises(DeviceError, match="needs a CUDA GPU, not cpu"):
        resolve_device(hardware("cpu"), mixed_precision="fp16")


@pytest.mark.parametrize(
    ("line", "native"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16 sha", True),
        ("flags\t\t: fpu amx_tile amx_bf16", True),
        ("Features\t: fp asimd bf16", True),
        ("flags\t\t: fpu avx2 avx512f", False),
        ("model name\t: an avx512_bf16 cpu", False),
        ("flags\t\t: fpu xavx512_bf16", False),
    ],
)
def test_cpu_flags(line: str, native: bool, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(device_module.platform, "system", lambda: "Linux")
    path = tmp_path / "cpuinfo"
    path.write_text(f"processor\t: 0\n{line}\n")
    assert cpu_bf16(path)[0] is native


def test_an_unreadable_cpuinfo_means_no(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(device_module.platform, "system", lambda: "Linux")
    assert cpu_bf16(tmp_path / "none") == (False, "the CPU's features are unknown on this system")


@pytest.mark.parametrize(("answer", "native"), [("1\n", True), ("0\n", False), ("", False)])
def test_a_mac_is_asked_by_sysctl(answer: str, native: bool, monkeypatch) -> None:
    monkeypatch.setattr(device_module.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: SimpleNamespace(stdout=answer))
    assert cpu_bf16()[0] is native
