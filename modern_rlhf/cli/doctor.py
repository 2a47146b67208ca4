"""`modern-rlhf doctor`: what this machine offers, as lines a person can paste into a question.

Every line is looked up when asked for, and what can't be had is said as such. It reaches out only to
ask whether the model hub answers, with a short limit, and not at all under `HF_HUB_OFFLINE`.
"""

from __future__ import annotations

import os
import platform
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

from modern_rlhf.config.sections import HardwareConfig
from modern_rlhf.utils.device import cpu_bf16, resolve_device
from modern_rlhf.utils.hardware import gpus, hardware_facts, package_versions
from modern_rlhf.utils.paths import data_root, shipped_data
from modern_rlhf.version import __version__

OPTIONAL = ("gguf", "tensorboard", "trackio", "wandb", "trl")
"""Packages that extras bring; a missing one is no fault."""


def doctor_lines(*, hub_seconds: float = 3.0) -> Iterator[str]:
    """The report, a line at a time (the sandbox's probes and the hub take a moment)."""
    facts = hardware_facts()
    yield f"modern_rlhf     {__version__}"
    yield f"python          {platform.python_version()} ({sys.executable})"
    yield f"system          {facts['platform']}"
    cpu = facts["cpu"]
    memory = "unknown" if facts["memory_mb"] is None else f"{facts['memory_mb']} MiB"
    yield f"cpu             {cpu['name']}, {cpu['usable_cores']} of {cpu['cores']} cores usable"
    yield f"memory          {memory}"
    native, why = cpu_bf16()
    yield f"bf16 on the cpu {'yes' if native else 'no'} ({why})"
    yield from torch_lines()
    for name, version in facts["versions"].items():
        yield f"package         {name} {version or 'MISSING: pip install -r requirements.txt'}"
    for name, version in package_versions(OPTIONAL).items():
        yield f"optional        {name} {version or 'not installed'}"
    yield f"shipped data    {len(shipped_data())} names in {data_root()}"
    yield f"model hub       {hub_state(hub_seconds)}"
    yield from sandbox_lines()


def torch_lines() -> Iterator[str]:
    """torch, its threads, the GPUs, and the device a run with `--device auto` would take."""
    try:
        import torch
    except ImportError as error:
        yield f"torch           MISSING: {error}"
        return
    yield f"torch           {torch.__version__}, {torch.get_num_threads()} threads"
    found = gpus()
    for gpu in found:
        yield f"gpu             {gpu['name']}, {gpu['memory_mb']} MiB, capability {gpu['capability']}"
    if not found:
        yield "gpu             none that CUDA can use"
    choice = resolve_device(HardwareConfig(device="auto", require_cuda=False), explicit=True)
    yield f"--device auto   {choice.line()}"


def sandbox_lines() -> Iterator[str]:
    """What the sandbox for generated code holds against here, probed, not guessed."""
    from modern_rlhf.sandbox.doctor import examine

    for line in examine().lines():
        yield f"sandbox         {line}"


def hub_state(seconds: float) -> str:
    """Whether the model hub answers within `seconds`; asks nothing when told to stay offline."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(name, "").lower() in ("1", "true", "yes", "on"):
            return f"not asked ({name} is set)"
    try:
        from huggingface_hub.constants import ENDPOINT
    except ImportError:
        return "not asked (huggingface_hub is not installed)"
    answers: list[str] = []

    def ask() -> None:
        request = urllib.request.Request(ENDPOINT, method="HEAD")
        try:
            with urllib.request.urlopen(request, timeout=seconds):
                answers.append("reachable")
        except urllib.error.HTTPError as error:
            answers.append(f"answers with status {error.code}")
        except (OSError, ValueError) as error:
            answers.append(f"not reachable ({error})")

    # A name look-up has no time limit of its own, so the wait has one.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds + 1)
    state = answers[0] if answers else f"no answer within {seconds:.0f} s"
    if state == "reachable":
        return state
    return f"{state}; builtin:, local and fetched models work without it"
