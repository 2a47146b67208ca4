"""Grouping: rows of similar length share a forward pass whose size follows the real tokens."""

from __future__ import annotations

from collections.abc import Sequence

from modern_rlhf.errors import ConfigError


def token_budget_batches(lengths: Sequence[int], *, max_tokens: int) -> list[list[int]]:
    """Group rows of similar length so that no padded batch holds more than `max_tokens` tokens.

    A batch of n rows costs n times its longest row. A row longer than the budget is alone in its
    batch. Nothing is random.

    Args:
        lengths: real tokens of each row.

    Returns:
        Lists of row indices; every index stands in exactly one of them.

    Raises:
        ConfigError: `max_tokens` is not positive.
    """
    if max_tokens < 1:
        raise ConfigError(f"max_tokens={max_tokens}: expected at least 1 token a batch")
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    batches: list[list[int]] = []
    for index in reversed(order):  # longest first: an oversized batch fails at once, not at the end
        # The first row of a batch is its longest, so adding one more costs that much again.
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= max_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches
