"""Which device a run uses, in which precision, and why.

The rule: what was asked for is used or refused, never silently replaced. `auto` takes CUDA, then
MPS, then the CPU. `require_cuda` (the default of all presets but `cpu-test`) guards against an
expensive configuration landing on a CPU: without CUDA it refuses every device but `cpu`, which
nobody names by accident. A device named on the command line (`explicit`) is not second-guessed.

bf16 is chosen where the hardware has it in silicon: emulated bf16 is slower than float32, native is
up to 5 times faster. torch is imported inside functions, so that floor 0 stays free of it.
"""

from __future__ import annotations

import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from modern_rlhf.errors import DeviceError

if TYPE_CHECKING:
    from modern_rlhf.config.sections import HardwareConfig

Precision = Literal["bf16", "fp32", "fp16"]

NO_CUDA = (
    "CUDA GPU is not available! The presets fast, research and production need one; ways on: "
    "`python run_modern_rlhf.py --config cpu-test` (small, needs no GPU), "
    "or add `--device cpu` to run this one on the CPU"
)

_CPU_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")
"""Flags of /proc/cpuinfo: two of x86, and the one of 64-bit ARM."""


@dataclass(frozen=True)
class DeviceChoice:
    """A torch device string, the precision of autocast, and one line that says why."""

    device: str
    dtype: Precision
    reason: str

    def line(self) -> str:
        """What a run prints at its start."""
        return f"device {self.device}, {self.dtype} ({self.reason})"


def resolve_device(
    hardware: HardwareConfig, explicit: bool = False, mixed_precision: str = "auto"
) -> DeviceChoice:
    """Choose device and precision.

    Args:
        explicit: the device was named by `--device` and always wins over `require_cuda`.
        mixed_precision: `training.mixed_precision`: `auto`, or `bf16`, `fp16`, `no` to insist.

    Raises:
        DeviceError: the device is not there, or cannot do the precision insisted on.
    """
    import torch

    wanted = hardware.device
    cuda = torch.cuda.is_available()
    if hardware.require_cuda and not explicit and not cuda and not wanted.startswith("cpu"):
        raise DeviceError(NO_CUDA)
    if wanted == "auto":
        mps = torch.backends.mps.is_available()
        device = "cuda" if cuda else "mps" if mps else "cpu"
    else:
        device = wanted
        _check_present(device, cuda)
    dtype, reason = _precision(device, mixed_precision)
    return DeviceChoice(device, dtype, reason)


def _check_present(device: str, cuda: bool) -> None:
    import torch

    if device.startswith("cuda"):
        if not cuda:
            raise DeviceError(NO_CUDA)
        _, colon, index = device.partition(":")
        count = torch.cuda.device_count()
        if colon and not (index.isdecimal() and int(index) < count):
            last = "cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
            raise DeviceError(f"hardware.device = {device!r} is not there; this machine has {last}")
    elif device == "mps":
        if not torch.backends.mps.is_available():
            raise DeviceError(
                "hardware.device = 'mps' is not there: it needs an Apple GPU and a torch built for "
                "it; use --device cpu"
            )
    elif device != "cpu":
        raise DeviceError(f"hardware.device = {device!r} is not auto, cpu, cuda, cuda:N or mps")


def _precision(device: str, mixed_precision: str) -> tuple[Precision, str]:
    native, why = bf16_in_silicon(device)
    if mixed_precision == "no":
        return "fp32", "training.mixed_precision = no"
    if mixed_precision == "bf16":
        return "bf16", f"training.mixed_precision = bf16; {why}"
    if mixed_precision == "fp16":
        if not device.startswith("cuda"):
            raise DeviceError(
                f"training.mixed_precision = 'fp16' needs a CUDA GPU, not {device}; "
                "use bf16, no or auto"
            )
        return "fp16", "training.mixed_precision = fp16"
    return ("bf16" if native else "fp32"), why


def bf16_in_silicon(device: str) -> tuple[bool, str]:
    """Whether bf16 is native on `device` (`cpu`, `cuda[:N]` or `mps`), and how that is known."""
    if device.startswith("cuda"):
        import torch

        major, minor = torch.cuda.get_device_capability(device)
        return major >= 8, f"{torch.cuda.get_device_name(device)}, CUDA capability {major}.{minor}"
    if device == "mps":
        return False, "Apple GPUs differ in bf16 support, so float32"
    return cpu_bf16()


def cpu_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[bool, str]:
    """Whether this CPU has bf16 instructions: its flags on Linux, `sysctl` on macOS."""
    if platform.system() == "Darwin":
        return _mac_bf16()
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False, "the CPU's features are unknown on this system"
    flags = {
        word
        for line in text.splitlines()
        if line.partition(":")[0].strip() in ("flags", "Features")
        for word in line.partition(":")[2].split()
    }
    found = [flag for flag in _CPU_FLAGS if flag in flags]
    if found:
        return True, f"the CPU has {' and '.join(found)}"
    return False, "the CPU has no bf16 instructions"


def _mac_bf16() -> tuple[bool, str]:
    key = "hw.optional.arm.FEAT_BF16"
    try:
        done = subprocess.run(
            ["sysctl", "-n", key], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False, f"sysctl {key} could not be read"
    native = done.stdout.strip() == "1"
    return native, f"sysctl {key} = {done.stdout.strip() or 'unknown'}"
