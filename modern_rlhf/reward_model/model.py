"""`CustomRewardModel`: any encoder or decoder, pooled to one vector, with named heads on top.

    pair --PairEncoder--> ids --backbone--> hidden states --pooling--> features (B, F) --RewardHeads--> scores

Query and response are read together (D1), the score of a decoder stands at its last real token (D2),
and dropout is off everywhere in the backbone (D11); the heads' own dropout acts only in train mode, so
`score`, which always runs in eval mode, is deterministic. With a frozen backbone the features of a pair
never change, which is what `cache.FeatureCache` lives from.

Knows nothing of losses, loops, rewards of a policy, or files beyond its own folder (`persistence`).
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from modern_rlhf.errors import ModelError
from modern_rlhf.models.adapters import add_adapters
from modern_rlhf.models.loading import Backbone, disable_dropout, load_backbone
from modern_rlhf.records import ASPECTS
from modern_rlhf.reward_model.encoding import (
    PairBatch,
    PairEncoder,
    TemplateName,
    aligned,
)
from modern_rlhf.reward_model.heads import HUMAN, HeadKind, RewardHeads, RewardOutput
from modern_rlhf.reward_model.settings import (
    HumanLayer,
    Pooling,
    Prediction,
    RewardModelSettings,
    choose_max_length,
    choose_pooling,
)
from modern_rlhf.reward_model.text_features import TEXT_FEATURES


class CustomRewardModel(nn.Module):
    """Scores (prompt, response) pairs; see the module docstring.

    Args:
        backbone: a `Backbone`, or a model name for `load_backbone`. Its tokenizer is copied (D37).
        heads: names of the scalar heads.
        freeze_backbone: no gradient reaches the backbone, and features can be cached.
        head_kind: `mlp` or `linear`.
        human_logits: add a head for the distribution over the five rating levels, on the hidden
            states named by `human_logits_layer`.
        ensemble: independent copies of every head; their disagreement is the uncertainty.
        pooling: `last` (real token), `cls` (first token) or `mean`; by default `last` for decoders and
            `cls` for encoders.
        dropout: inside the MLP heads, while training them.
        head_width: hidden size of the MLP heads; default min(H, 256).
        head_weights: weight of each head in the score; default equal.
        human_feedback_weight: weight of the human expectation in the score.
        max_length: tokens of an encoded pair; default min(512, what the backbone takes).
        template: see `encoding.PairEncoder`.
        text_features: the heads see `text_features.TEXT_FEATURES` beside the pooled states.
        generator: source of the heads' initial weights.

    Raises:
        ModelError: settings that don't fit together or don't fit the backbone.
    """

    def __init__(
        self,
        backbone: Backbone | str,
        heads: Sequence[str] = ASPECTS,
        *,
        freeze_backbone: bool = True,
        head_kind: HeadKind = "mlp",
        human_logits: bool = False,
        human_logits_layer: HumanLayer = "last",
        ensemble: int = 1,
        pooling: Pooling | None = None,
        dropout: float = 0.1,
        head_width: int | None = None,
        head_weights: Mapping[str, float] | None = None,
        human_feedback_weight: float = 0.3,
        max_length: int | None = None,
        template: TemplateName = "auto",
        text_features: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        source = load_backbone(backbone) if isinstance(backbone, str) else backbone
        self.settings = RewardModelSettings(
            heads=tuple(heads) if not isinstance(heads, str) else (heads,),
            head_kind=head_kind,
            head_width=head_width if head_width is not None else min(source.hidden_size, 256),
            head_weights=None if head_weights is None else dict(head_weights),
            dropout=dropout,
            ensemble=ensemble,
            human_logits=human_logits,
            human_logits_layer=human_logits_layer,
            human_feedback_weight=human_feedback_weight,
            pooling=choose_pooling(pooling, source.kind),
            max_length=choose_max_length(max_length, source),
            template=template,
            freeze_backbone=freeze_backbone,
            text_features=text_features,
        )
        if human_logits_layer not in ("last", "second_last"):
            raise ModelError(
                f"human_logits_layer={human_logits_layer!r}: expected last or second_last"
            )
        self.backbone_name = source.name
        self.backbone_kind = source.kind
        self.backbone_fingerprint = source.fingerprint
        self.encoder = PairEncoder(
            copy.deepcopy(source.tokenizer),
            kind="decoder" if source.kind == "decoder" else "encoder",
            max_length=self.settings.max_length,
            template=template,
            text_features=text_features,
        )
        self.backbone: Any = disable_dropout(source.model)
        self.scoring_dtype = torch.float32  # of the backbone where nothing is trained
        self.heads = RewardHeads(
            source.hidden_size,
            self.settings.heads,
            kind=head_kind,
            width=self.settings.head_width,
            dropout=dropout,
            ensemble=ensemble,
            human_logits=human_logits_layer if human_logits else None,
            human_feedback_weight=human_feedback_weight,
            head_weights=head_weights,
            text_features=len(TEXT_FEATURES) if text_features else 0,
            generator=generator,
        ).to(self.device)
        # Either way: another reward model may have frozen the same loaded backbone before.
        self.backbone.requires_grad_(not freeze_backbone)

    @property
    def device(self) -> torch.device:
        device: torch.device = next(self.backbone.parameters()).device
        return device

    @property
    def tokenizer(self) -> Any:
        return self.encoder.tokenizer

    @property
    def frozen(self) -> bool:
        """True when no parameter of the backbone takes a gradient: its features may be cached."""
        return not any(p.requires_grad for p in self.backbone.parameters())

    def train(self, mode: bool = True) -> CustomRewardModel:
        """As `nn.Module.train`, but a frozen backbone stays in eval mode."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def add_lora(
        self, *, rank: int = 16, alpha: int = 32, targets: str = "all-linear", seed: int = 0
    ) -> None:
        """Train low-rank adapters in the backbone instead of its weights (`models.adapters`).

        Raises:
            ModelError: the backbone has adapters already. ConfigError: no layer fits `targets`.
        """
        self.backbone = add_adapters(
            self.backbone, rank=rank, alpha=alpha, targets=targets, seed=seed
        )

    def encode_pairs(self, prompts: Sequence[str], responses: Sequence[str]) -> PairBatch:
        """B pairs as ids on the model's device: the one path of training and scoring (D39)."""
        return self.encoder.encode(prompts, responses).to(self.device)

    def features(self, batch: PairBatch) -> torch.Tensor:
        """Pooled hidden states (B, F) of an encoded batch, then its text features: see `RewardHeads`.

        Gradients flow into the backbone unless it is frozen.
        """
        both = self.heads.layers == 2
        inputs: dict[str, Any] = {
            "input_ids": batch.input_ids,
            "attention_mask": batch.attention_mask,
        }
        if batch.token_type_ids is not None:
            inputs["token_type_ids"] = batch.token_type_ids
        if self.backbone_kind == "decoder":
            inputs["use_cache"] = False
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            output = self.backbone(**inputs, output_hidden_states=both)
            pooled = self._pool(output.last_hidden_state, batch)
            if both:
                pooled = torch.cat([pooled, self._pool(output.hidden_states[-2], batch)], dim=-1)
        pooled = pooled.float()
        return pooled if batch.text is None else torch.cat([pooled, batch.text], dim=-1)

    def _pool(self, hidden: torch.Tensor, batch: PairBatch) -> torch.Tensor:
        """(B, T, H) -> (B, H)."""
        if self.settings.pooling == "cls":
            return hidden[:, 0]
        if self.settings.pooling == "last":
            return hidden[torch.arange(len(hidden), device=hidden.device), batch.lengths - 1]
        mask = batch.attention_mask.bool()[..., None]
        summed = hidden.float().masked_fill(~mask, 0.0).sum(1)
        return summed / batch.lengths[:, None]

    def head_scores(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        """By head name, (B,) mean over the ensemble; with a human head also `human` (-2..2)."""
        output: RewardOutput = self.heads(features)
        return output.by_head()

    def forward(self, batch: PairBatch) -> RewardOutput:
        """Encoded batch -> everything the heads say (see `RewardOutput`)."""
        output: RewardOutput = self.heads(self.features(batch))
        return output

    def predict(
        self,
        prompts: Sequence[str],
        responses: Sequence[str],
        *,
        batch_size: int = 32,
    ) -> Prediction:
        """Scores, uncertainty and head values of N pairs in one pass, in eval mode.

        Pairs are run in order of length, so a batch holds little padding.

        Raises:
            DataError: `prompts` and `responses` differ in length, or one of them is no list.
        """
        prompts, responses = aligned(prompts, responses)
        if not prompts:
            names = (*self.settings.heads, *([HUMAN] if self.settings.human_logits else []))
            return Prediction([], [], {name: [] for name in names})
        with self._evaluating(), torch.no_grad():
            output = self.heads(self.pooled(prompts, responses, batch_size=batch_size))
        return Prediction(
            scores=output.scores.tolist(),
            uncertainty=output.uncertainty.tolist(),
            heads={name: values.tolist() for name, values in output.by_head().items()},
        )

    @torch.no_grad()
    def pooled(
        self, prompts: Sequence[str], responses: Sequence[str], *, batch_size: int = 32
    ) -> torch.Tensor:
        """Features (N, F) of N >= 1 pairs without gradients."""
        rows = self.encoder.rows(prompts, responses)
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i].ids))
        parts = []
        for start in range(0, len(order), batch_size):
            batch = self.encoder.collate([rows[i] for i in order[start : start + batch_size]])
            with torch.autocast(
                self.device.type,
                dtype=self.scoring_dtype,
                enabled=self.scoring_dtype != torch.float32,
            ):
                parts.append(self.features(batch.to(self.device)).float())
        features = torch.empty_like(torch.cat(parts))
        features[torch.tensor(order, device=features.device)] = torch.cat(parts)
        return features

    def score(
        self, prompts: Sequence[str], responses: Sequence[str], *, batch_size: int = 32
    ) -> list[float]:
        """Calibrated scores, one a pair (mean 0 and std 1 on the samples of `calibrate`)."""
        return self.predict(prompts, responses, batch_size=batch_size).scores

    def score_heads(
        self, prompts: Sequence[str], responses: Sequence[str], *, batch_size: int = 32
    ) -> dict[str, list[float]]:
        """By head name, raw head values, one a pair (see `Prediction.heads`)."""
        return self.predict(prompts, responses, batch_size=batch_size).heads

    def uncertainty(
        self, prompts: Sequence[str], responses: Sequence[str], *, batch_size: int = 32
    ) -> list[float]:
        """Disagreement of the ensemble in units of the calibrated score, one a pair.

        Raises:
            ModelError: the model has a single member, so it can't disagree with itself.
        """
        if self.settings.ensemble < 2:
            raise ModelError(
                "uncertainty needs an ensemble of heads: build the model with ensemble >= 2"
            )
        return self.predict(prompts, responses, batch_size=batch_size).uncertainty

    def calibrate(
        self, prompts: Sequence[str], responses: Sequence[str], *, batch_size: int = 32
    ) -> dict[str, float]:
        """Store gain and bias that give these samples mean 0 and standard deviation 1 (D5).

        Use samples of the policy that RL starts from. Returns `gain`, `bias` and the `mean` and `std`
        that the raw scores had.
        """
        if len(prompts) < 2:
            raise ModelError(f"calibration needs at least two samples, not {len(prompts)}")
        with self._evaluating(), torch.no_grad():
            features = self.pooled(prompts, responses, batch_size=batch_size)
            totals = self.heads(features).totals
        self.heads.set_calibration(totals)
        return {
            "gain": float(self.heads.gain),
            "bias": float(self.heads.bias),
            "mean": float(totals.mean()),
            "std": float(totals.mean(0).std(correction=0)),
        }

    def preference_probability(
        self, prompts: Sequence[str], first: Sequence[str], second: Sequence[str]
    ) -> list[float]:
        """Probability that `first` is preferred: sigmoid of the score gap over the temperature."""
        gap = torch.tensor(self.score(prompts, first)) - torch.tensor(self.score(prompts, second))
        return torch.sigmoid(gap / self.heads.temperature.cpu()).tolist()

    def save_pretrained(
        self, folder: str | os.PathLike[str], *, copy_backbone: bool | None = None
    ) -> None:
        """Write the model as a folder of safetensors and text; see `persistence.save`."""
        from modern_rlhf.reward_model.persistence import save

        save(self, folder, copy_backbone=copy_backbone)

    @classmethod
    def from_pretrained(
        cls, folder: str | os.PathLike[str], *, device: str | torch.device = "cpu"
    ) -> CustomRewardModel:
        """Load what `save_pretrained` wrote: same scores to 1e-6, or a `ModelError`."""
        from modern_rlhf.reward_model.persistence import load

        return load(folder, device=device)

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        was_training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(was_training)
