"""Padding and grouping: encoded rows become tensors whose size follows the real tokens.

Training rows are padded on the right, prompts for generation on the left; masks come from lengths.
Position ids belong to the models, which make them from the attention mask.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from modern_rlhf.errors import ConfigError

if TYPE_CHECKING:
    from modern_rlhf.data_loader.encoding import EncodedExample


@dataclass(frozen=True)
class TrainBatch:
    """B right-padded rows of T tokens.

    Attributes:
        input_ids: (B, T) int64.
        attention_mask: (B, T) int64, 1 on real tokens.
        loss_mask: (B, T) int64, 1 on trained tokens, the end token included; 0 on padding.
        lengths: (B,) int64, real tokens of each row.
    """

    input_ids: Tensor
    attention_mask: Tensor
    loss_mask: Tensor
    lengths: Tensor

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> TrainBatch:
        parts = (self.input_ids, self.attention_mask, self.loss_mask, self.lengths)
        return TrainBatch(*(part.to(device, non_blocking=non_blocking) for part in parts))


@dataclass(frozen=True)
class PromptBatch:
    """B left-padded prompts: (B, P) int64 `input_ids` and `attention_mask`, (B,) int64 `lengths`."""

    input_ids: Tensor
    attention_mask: Tensor
    lengths: Tensor


def collate_examples(examples: Sequence[EncodedExample], *, pad_id: int) -> TrainBatch:
    """Pad training rows on the right to the longest of them."""
    ids, attention, lengths = _pad([example.input_ids for example in examples], pad_id, left=False)
    loss, _, _ = _pad([example.loss_mask for example in examples], 0, left=False)
    return TrainBatch(ids, attention, loss, lengths)


def collate_prompts(prompts: Sequence[Sequence[int]], *, pad_id: int) -> PromptBatch:
    """Pad prompts on the left to the longest of them."""
    return PromptBatch(*_pad(prompts, pad_id, left=True))


def token_budget_batches(
    lengths: Sequence[int],
    *,
    max_tokens: int,
    seed_generator: random.Random | torch.Generator | None = None,
) -> list[list[int]]:
    """Group rows of similar length so that no padded batch holds more than `max_tokens` tokens.

    A batch of n rows costs n times its longest row. A row longer than the budget is alone in its
    batch. Rows of equal length are shuffled among each other and the batches as a whole, so that
    neither depends on the order of the input; without a generator nothing is random.

    Args:
        lengths: real tokens of each row.
        seed_generator: where the shuffling takes its numbers from.

    Returns:
        Lists of row indices; every index stands in exactly one of them.

    Raises:
        ConfigError: `max_tokens` is not positive.
    """
    if max_tokens < 1:
        raise ConfigError(f"max_tokens={max_tokens}: expected at least 1 token a batch")
    order = _permutation(len(lengths), seed_generator)
    order.sort(key=lambda index: lengths[index])  # stable: ties keep their shuffled order
    batches: list[list[int]] = []
    for index in reversed(order):  # longest first: an oversized batch fails at once, not at the end
        # The first row of a batch is its longest, so adding one more costs that much again.
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= max_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return [batches[position] for position in _permutation(len(batches), seed_generator)]


def _permutation(size: int, generator: random.Random | torch.Generator | None) -> list[int]:
    if generator is None:
        return list(range(size))
    if isinstance(generator, random.Random):
        order = list(range(size))
        generator.shuffle(order)
        return order
    return torch.randperm(size, generator=generator).tolist()


def _pad(rows: Sequence[Sequence[int]], fill: int, *, left: bool) -> tuple[Tensor, Tensor, Tensor]:
    """(B, T) values, (B, T) mask, (B,) lengths."""
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.long)
    width = int(lengths.max()) if rows else 0
    values = torch.full((len(rows), width), fill, dtype=torch.long)
    for position, row in enumerate(rows):
        start = width - len(row) if left else 0
        values[position, start : start + len(row)] = torch.tensor(row, dtype=torch.long)
    columns = torch.arange(width)
    if left:
        mask = columns[None, :] >= width - lengths[:, None]
    else:
        mask = columns[None, :] < lengths[:, None]
    return values, mask.long(), lengths
