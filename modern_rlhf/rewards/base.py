"""The one Reward protocol: texts in, named components out.

A reward sees finished text (prompt, response, and what the prompt's record offers beside it) and
returns one number a sample, with the components it is made of. It knows nothing of tokens, tensors
of the policy, or training. `None` means "could not be scored": such a sample is masked and counted
by the trainer, never treated as 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from modern_rlhf.records import Prompt


@dataclass(frozen=True)
class RewardBatch:
    """Aligned lists of length B: the prompt records and the decoded responses.

    A response is cut at the first stop token before it gets here, so text after EOS cannot be seen.
    """

    prompts: Sequence[Prompt]
    responses: Sequence[str]

    def __len__(self) -> int:
        return len(self.responses)


@dataclass(frozen=True)
class RewardScores:
    """What a reward returns for B samples.

    Attributes:
        total: B numbers, or None where the sample could not be scored.
        components: by component name, B numbers or None where that component does not apply.
        details: by name, B values of any JSON type for the rollout log (verdicts, reasons).
    """

    total: list[float | None]
    components: Mapping[str, list[float | None]] = field(default_factory=dict)
    details: Mapping[str, list[Any]] = field(default_factory=dict)


class Reward(Protocol):
    """Anything that scores a batch of responses.

    `name` is the component's name in logs; `close` frees processes and is safe to call twice.
    """

    name: str

    def score(self, batch: RewardBatch) -> RewardScores: ...

    def close(self) -> None: ...
