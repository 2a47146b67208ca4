"""What the sandbox really holds on this machine, found by trying it from the inside.

`runtime/probes.py` runs in a confined child at each start of an executor and attempts what must not
work. The level claimed is that of the layers that were built, lowered to the highest whose probes were
all refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modern_rlhf.errors import SandboxError
from modern_rlhf.sandbox.runtime import probes as tried

LAYERS = (
    "fresh processes, resource limits, split judge; files and system calls are guarded by courtesy",
    "also Landlock (files) and seccomp (system calls); filling the disk is only watched",
    "also namespaces (processes, mounts, network) and a scratch file system with its own limits",
)
"""What the layers are, in words."""


@dataclass(frozen=True)
class SandboxReport:
    """The isolation of this machine.

    Attributes:
        level: 0, 1 or 2; -1 when no program can be run at all.
        holds: what was attempted and refused (what a platform does not have is in neither list).
        gaps: what got through, or could not be built, with the reason.
    """

    level: int
    holds: tuple[str, ...] = ()
    gaps: tuple[str, ...] = ()

    @classmethod
    def from_probes(
        cls, *, layer: int, reasons: Sequence[str], probes: Mapping[str, Any]
    ) -> SandboxReport:
        """The report of a worker.

        Args:
            layer: the isolation its zygote built.
            reasons: why it is not more.
            probes: by probe name True (got through), False (refused) or None (not applicable).
        """
        if "failed" in probes or set(probes) != set(tried.LEVEL):
            why = str(probes.get("failed", "the probes did not answer"))
            return cls(level=0, holds=(), gaps=(*reasons, why))
        through = [name for name, answer in probes.items() if answer is True]
        level = layer
        for name in through:
            if tried.LEVEL[name] >= 1:
                level = min(level, tried.LEVEL[name] - 1)
        return cls(
            level=level,
            holds=tuple(tried.meaning(n) for n, answer in probes.items() if answer is False),
            gaps=(*reasons, *(f"not refused: {tried.meaning(name)}" for name in through)),
        )

    def lines(self) -> list[str]:
        """For `modern-rlhf doctor`: the level, what holds and what does not, one a line."""
        if self.level < 0:
            head = "Sandbox: generated code cannot be executed here"
        else:
            head = f"Sandbox: layer {self.level} of 2 - {LAYERS[self.level]}"
        return [
            head,
            *(f"  refused: {line}" for line in self.holds),
            *(f"  gap: {line}" for line in self.gaps),
        ]


def examine(**options: Any) -> SandboxReport:
    """Start an executor with these options, take its report, close it.

    Options are those of `SandboxExecutor`; one worker unless told otherwise. An executor that does not
    start is a report of level -1 whose gap says why.
    """
    from modern_rlhf.sandbox.executor import SandboxExecutor

    try:
        with SandboxExecutor(**{"workers": 1, **options}) as executor:
            return executor.report
    except (SandboxError, OSError) as error:
        return SandboxReport(level=-1, gaps=(str(error),))
