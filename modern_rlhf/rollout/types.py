"""What flows out of generation and into the losses: typed, with shapes.

`B` episodes (prompts x G samples, samples of one prompt adjacent), `R` the longest response. Nothing
here computes; collecting and losses do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

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


@dataclass(frozen=True)
class Share:
    """Which of the prompts that several processes answer together are this process's.

    Attributes:
        places: number of each of its prompts among all of them.
        total: how many prompts all processes have.
    """

    places: Sequence[int]
    total: int


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
        share: Share | None = None,
    ) -> list[Generation]:
        """P prompts -> P x G generations in prompt order; `temperature` 0 is greedy.

        With `share` the prompts are a part of many: equal generators in all processes then give each
        prompt the answers it would have had in one call with all prompts, and advance alike.
        """
        ...

    def sync(self) -> None:
        """Take over the policy's current weights; called before every rollout."""
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
        credited: (B, R) bool, False on tokens that take no part in the policy loss (`credit`); None
            where all do.
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
    credited: Tensor | None = None

    def __len__(self) -> int:
        return len(self.texts)

    @classmethod
    def joined(cls, parts: Sequence[RolloutBatch]) -> RolloutBatch:
        """The episodes of all parts in order, padded to the longest response."""
        if len(parts) == 1:
            return parts[0]

        def rows(name: str) -> list[Any]:
            return [item for part in parts for item in getattr(part, name)]

        def stacked(name: str) -> Tensor | None:
            tensors = [getattr(part, name) for part in parts]
            if all(tensor is None for tensor in tensors):
                return None
            assert all(tensor is not None for tensor in tensors), f"{name} in some parts only"
            width = max(tensor.shape[1] for tensor in tensors)
            return torch.cat([pad(tensor, (0, width - tensor.shape[1])) for tensor in tensors])

        sampling = stacked("sampling_log_probs")
        assert sampling is not None
        return cls(
            prompts=rows("prompts"),
            prompt_ids=rows("prompt_ids"),
            response_ids=rows("response_ids"),
            texts=rows("texts"),
            finished=rows("finished"),
            scores=_joined_scores([part.scores for part in parts]),
            valid=torch.cat([part.valid for part in parts]),
            sampling_log_probs=sampling,
            log_probs=stacked("log_probs"),
            ref_log_probs=stacked("ref_log_probs"),
            values=stacked("values"),
            credited=stacked("credited"),
        )

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

    @property
    def policy_mask(self) -> Tensor:
        """(B, R) bool, `mask` without the tokens that are not credited."""
        return self.mask if self.credited is None else self.mask & self.credited

    def sequences(self, rows: Sequence[int], *, pad_id: int) -> Sequences:
        """The given rows as one right-padded batch."""
        return make_sequences(
            [self.prompt_ids[i] for i in rows], [self.response_ids[i] for i in rows], pad_id=pad_id
        )

    def lengths(self) -> list[int]:
        """Tokens of each row, prompt and response."""
        return [len(p) + len(r) for p, r in zip(self.prompt_ids, self.response_ids, strict=True)]


def _joined_scores(parts: Sequence[RewardScores]) -> RewardScores:
    """Scores one after the other; a component or detail that a part lacks is None there."""

    def columns(tables: list[Mapping[str, Sequence[Any]]]) -> dict[str, list[Any]]:
        names = dict.fromkeys(name for table in tables for name in table)
        return {
            name: [
                value
                for table, part in zip(tables, parts, strict=True)
                for value in table.get(name, [None] * len(part.total))
            ]
            for name in names
        }

    return RewardScores(
        total=[score for part in parts for score in part.total],
        components=columns([part.components for part in parts]),
        details=columns([part.details for part in parts]),
    )
