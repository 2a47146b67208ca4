"""Which rows a checkpoint's reference sums are of: what a resumed DPO or KTO run must not mistake.

Sums stand by position, so with other rows each would silently be compared with a stranger's. Knows rows
and sums, no policy.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from modern_rlhf.errors import CheckpointError
from modern_rlhf.trainer.answers import AnswerRow


def digest_of_rows(*columns: Sequence[Any]) -> str:
    """A short hash of rows in their order: `AnswerRow`s, and plain values that belong to them."""
    plain = [
        [[v.prompt_ids, v.answer_ids] if isinstance(v, AnswerRow) else v for v in column]
        for column in columns
    ]
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()[:16]


def restored_reference(
    saved: Mapping[str, Any], *, rows: str, reference: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The reference sums of a checkpoint, once it is sure that they are of the rows trained on now.

    A checkpoint of before the digest was kept is judged by the number of rows alone.

    Args:
        saved: the `trainer` part of the checkpoint, with `reference` and `rows`, their digest.
        rows: the digest of this run's rows.
        reference: its sums, computed afresh.

    Raises:
        CheckpointError: the checkpoint is of other rows.
    """
    kept: dict[str, Tensor] = dict(saved["reference"])
    before, now = ({name: len(sums) for name, sums in all_.items()} for all_ in (kept, reference))
    if saved.get("rows", rows) != rows or before != now:
        raise CheckpointError(
            f"the checkpoint is of other rows than the ones given ({max(before.values(), default=0)} "
            f"then, {max(now.values(), default=0)} now), so its reference log-probabilities are not "
            "theirs; give the same data, or start again in another folder"
        )
    return kept
