"""Does torch use the GPU, and how fast? `python verify_gpu.py`; exit code 1 without a working one.

Multiplies matrices in float32 and bf16 on every CUDA device, checks the product against the CPU's, and
prints the speed. Meant for the first minute on a new machine, before anything long is started.
"""

from __future__ import annotations

import sys
import time

from modern_rlhf.cli.doctor import torch_lines


def measure(device: str, dtype_name: str, *, size: int = 4096, rounds: int = 20) -> str:
    """One line: TFLOP/s of `size` x `size` products, and the error against float32 on the CPU."""
    import torch

    dtype = getattr(torch, dtype_name)
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(512, 512, generator=generator) for _ in range(2))
    expected = left @ right
    found = (left.to(device, dtype) @ right.to(device, dtype)).float().cpu()
    error = float((found - expected).norm() / expected.norm())
    big = torch.ones(size, size, device=device, dtype=dtype)
    for _ in range(3):
        big @ big
    torch.cuda.synchronize(device)
    started = time.perf_counter()
    for _ in range(rounds):
        big @ big
    torch.cuda.synchronize(device)
    seconds = time.perf_counter() - started
    speed = rounds * 2 * size**3 / seconds / 1e12
    verdict = "ok" if error < (2e-2 if dtype_name == "bfloat16" else 2e-3) else "WRONG RESULT"
    return f"{device} {dtype_name:9} {speed:8.1f} TFLOP/s   relative error {error:.1e}   {verdict}"


def main() -> int:
    """Print the report; 0 when every CUDA device computes correctly."""
    for line in torch_lines():
        print(line)
    try:
        import torch
    except ImportError:
        return 1
    if not torch.cuda.is_available():
        print("no CUDA GPU: `python run_modern_rlhf.py --config cpu-test` runs without one")
        return 1
    lines = [
        measure(f"cuda:{index}", dtype)
        for index in range(torch.cuda.device_count())
        for dtype in ("float32", "bfloat16")
    ]
    print("\n".join(lines))
    return 1 if any("WRONG" in line for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
