"""What flows out of generation and into the losses: typed, with shapes.

`B` episodes (prompts x G samples, samples of one prompt adjacent), `R` the longest response. Nothing
here computes; collecting and losses do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from modern_rlhf.models.forward import Sequences, make_sequences
from modern_rlhf.records import Prompt
from modern_rlhf.rewards.base import RewardScores


@dataclass(frozen=True)
class Generation:
    """One sampled continuation.

    Attributes:
        token_ids: the response, with its stop token when it ended by one; never anything after it.
        log_probs: log-probability of each token under the sampler, at the sampling temperature.
        finished: whether a stop token or stop string ended it (False: cut at the length limit).
    """

    token_ids: list[int]
    log_probs: list[float]
    finished: bool


class GenerationEngine(Protocol):
    """Samples continuations. The fake of the tests scripts them."""

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        samples_per_prompt: int,
        max_new_tokens: int,
        temperature: float,
        generator: torch.Generator | None,
        progress: Callable[[int], None] | None = None,
    ) -> list[Generation]:
        """P prompts -> P x G generations in prompt order; `temperature` 0 is greedy."""
        ...

    def sync(self) -> None:
        """Take over the policy's current weights; called after every update."""
        ...


@dataclass
class RolloutBatch:
    """B scored episodes, on the CPU.

    Attributes:
        prompts, prompt_ids, response_ids, texts, finished: aligned lists of length B.
        scores: what the reward said; `scores.total[i] is None` marks an unscorable episode.
        valid: (B,) bool, False on unscorable episodes: masked everywhere, counted, never 0 (D38).
        log_probs, ref_log_probs, values: (B, R) float32, zeros on padding; None where not needed.
        sampling_log_probs: (B, R) as the sampler saw them.
    """

    prompts: list[Prompt]
    prompt_ids: list[list[int]]
    response_ids: list[list[int]]
    texts: list[str]
    finished: list[bool]
    scores: RewardScores
    valid: Tensor
    sampling_log_probs: Tensor
    log_probs: Tensor | None = None
    ref_log_probs: Tensor | None = None
    values: Tensor | None = None

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def response_lengths(self) -> Tensor:
        """(B,) real response lengths."""
        return torch.tensor([len(r) for r in self.response_ids])

    @property
    def mask(self) -> Tensor:
        """(B, R) bool, True on real response tokens of valid episodes."""
        lengths = self.response_lengths
        inside = torch.arange(int(lengths.max()))[None, :] < lengths[:, None]
        return inside & self.valid[:, None]

    def sequences(self, rows: Sequence[int], *, pad_id: int) -> Sequences:
        """The given rows as one right-padded batch."""
        return make_sequences(
            [self.prompt_ids[i] for i in rows], [self.response_ids[i] for i in rows], pad_id=pad_id
        )

    def lengths(self) -> list[int]:
        """Tokens of each row, prompt and response."""
        return [len(p) + len(r) for p, r in zip(self.prompt_ids, self.response_ids, strict=True)]
