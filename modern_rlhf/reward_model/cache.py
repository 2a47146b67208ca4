"""Features of a frozen backbone, computed once and kept on disk.

A folder under `root` belongs to one way of making features: its name is a digest of the backbone's
weights and configuration, the tokenizer, the frame of ids, pooling, layer, maximum length and dtype, so a
change of any of them can never serve stale features. It holds safetensors shards of `features` (N, F) float32 and `keys`
(N, 32) uint8, the SHA-256 of each pair's text. Shards are memory-mapped: rows are read from disk when
asked for. A shard appears whole or not at all; two processes may fill one cache.

Deviation from a plain dictionary: a damaged shard is named in a warning and its rows are computed again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes

from modern_rlhf.errors import ModelError
from modern_rlhf.models.loading import backbone_config, fingerprint
from modern_rlhf.reward_model.encoding import aligned, tokenizer_fingerprint
from modern_rlhf.reward_model.text_features import TEXT_FEATURES
from modern_rlhf.utils.atomic import write_bytes

if TYPE_CHECKING:
    from modern_rlhf.reward_model.model import CustomRewardModel

LOGGER = logging.getLogger(__name__)
SHARD_ROWS = 8192
"""Rows of one shard at most, and how often features that are being computed reach the disk."""


class FeatureCache:
    """Features by text for one reward model with a frozen backbone.

    Attributes:
        hits, misses: pairs served from disk, and pairs the backbone had to be run for.

    Raises:
        ModelError: the backbone is being trained, so its features are not constant.
    """

    def __init__(self, root: str | os.PathLike[str], model: CustomRewardModel) -> None:
        self.model = model
        self._require_frozen()
        self.folder = Path(root) / f"features-{feature_key(model)[:24]}"
        self.hits = 0
        self.misses = 0
        self._where: dict[bytes, tuple[int, int]] = {}
        self._shards: list[torch.Tensor] = []
        self._seen: set[Path] = set()
        self.refresh()

    def __len__(self) -> int:
        return len(self._where)

    def refresh(self) -> None:
        """Open shards that appeared since, from this process or another."""
        for path in sorted(self.folder.glob("shard-*.safetensors")):
            if path not in self._seen:
                self._seen.add(path)
                self._open(path)

    def get(
        self, prompts: Sequence[str], responses: Sequence[str], *, batch_size: int = 32
    ) -> torch.Tensor:
        """Features (N, F) float32 on the CPU, in order; what is not there is computed and stored.

        Raises:
            DataError: the lists differ in length.
            ModelError: the backbone was unfrozen after the cache was made.
        """
        prompts, responses = aligned(prompts, responses)
        self._require_frozen()
        keys = [text_key(p, r) for p, r in zip(prompts, responses, strict=True)]
        missing = {key: i for i, key in enumerate(keys) if key not in self._where}
        self.misses += len(missing)
        self.hits += len(keys) - len(missing)
        todo = list(missing.items())
        for start in range(0, len(todo), SHARD_ROWS):
            part = todo[start : start + SHARD_ROWS]
            with self.model._evaluating():
                features = self.model.pooled(
                    [prompts[i] for _, i in part],
                    [responses[i] for _, i in part],
                    batch_size=batch_size,
                )
            self._store([key for key, _ in part], features.cpu().contiguous())
        rows = torch.empty(len(keys), self.model.heads.feature_size)
        for i, key in enumerate(keys):
            shard, row = self._where[key]
            rows[i] = self._shards[shard][row]
        return rows

    def _store(self, keys: list[bytes], features: torch.Tensor) -> None:
        table = torch.frombuffer(bytearray(b"".join(keys)), dtype=torch.uint8).view(-1, 32)
        path = self.folder / f"shard-{uuid.uuid4().hex}.safetensors"
        write_bytes(path, to_bytes({"features": features, "keys": table.contiguous()}))
        self._seen.add(path)
        self._open(path)

    def _open(self, path: Path) -> None:
        try:
            with safe_open(path, framework="pt") as shard:
                features, keys = shard.get_tensor("features"), shard.get_tensor("keys")
        except (OSError, SafetensorError) as error:
            LOGGER.warning(
                "feature cache: %s is damaged (%s); its rows are computed again", path, error
            )
            return
        if features.shape != (len(keys), self.model.heads.feature_size) or keys.shape[1:] != (32,):
            LOGGER.warning("feature cache: %s has other shapes; its rows are computed again", path)
            return
        for row, key in enumerate(keys.numpy()):
            self._where[key.tobytes()] = (len(self._shards), row)
        self._shards.append(features)

    def _require_frozen(self) -> None:
        if not self.model.frozen:
            raise ModelError(
                "features can only be cached for a frozen backbone, and this one takes gradients: "
                "build the reward model with freeze_backbone=True and no adapters, or use no cache"
            )


def text_key(prompt: str, response: str) -> bytes:
    """32 bytes that stand for one pair; the length prefix keeps ("ab", "c") and ("a", "bc") apart."""
    first = prompt.encode("utf-8", "surrogatepass")
    second = response.encode("utf-8", "surrogatepass")
    return hashlib.sha256(len(first).to_bytes(8, "big") + first + second).digest()


def feature_key(model: CustomRewardModel) -> str:
    """Hex digest of everything but the text that a feature depends on."""
    frame = model.encoder.frame
    parts = {
        "backbone": fingerprint(model.backbone),
        "config": backbone_config(model.backbone),
        "dtype": str(model.scoring_dtype),
        "tokenizer": tokenizer_fingerprint(model.tokenizer),
        "frame": [frame.before, frame.between, frame.after, frame.types],
        "pooling": model.settings.pooling,
        "feature_size": model.heads.feature_size,
        "text_features": TEXT_FEATURES[: model.heads.text_features],
        "max_length": model.settings.max_length,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
