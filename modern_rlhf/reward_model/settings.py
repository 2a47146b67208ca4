"""What a reward model is configured with and what it answers: plain data, and the choice of defaults."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from modern_rlhf.errors import ModelError
from modern_rlhf.models.loading import Backbone
from modern_rlhf.reward_model.encoding import DEFAULT_MAX_LENGTH, TemplateName, length_limit
from modern_rlhf.reward_model.heads import HeadKind

Pooling = Literal["last", "cls", "mean"]
HumanLayer = Literal["last", "second_last"]

FEW_RATE, MANY_RATE, MANY = 1e-3, 3e-3, 2000
"""Learning rates of heads for fewer than and for at least `MANY` judgements. In five epochs 1e-3 leaves
thousands of pairs half learnt; some hundreds are learnt best with it (docs/log.d/reward_model.md)."""


@dataclass(frozen=True)
class RewardModelSettings:
    """Everything but weights and tokenizer that decides a score; stored in `reward_model.json`."""

    heads: tuple[str, ...]
    head_kind: HeadKind
    head_width: int
    head_weights: dict[str, float] | None
    dropout: float
    ensemble: int
    human_logits: bool
    human_logits_layer: HumanLayer
    human_feedback_weight: float
    pooling: Pooling
    max_length: int
    template: TemplateName
    freeze_backbone: bool
    text_features: bool

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "heads": list(self.heads)}


@dataclass(frozen=True)
class Prediction:
    """What the reward model says about N pairs, in their order.

    Attributes:
        scores: calibrated (mean 0, std 1 on the calibration samples).
        uncertainty: standard deviation over the ensemble in the same units; zeros when it has one member.
        heads: by head name, raw head values (the scale of their targets: -2..2 for human aspects);
            with a human head also `human`, its expected rating on -2..2.
    """

    scores: list[float]
    uncertainty: list[float]
    heads: dict[str, list[float]]


def choose_pooling(asked: Pooling | None, kind: str) -> Pooling:
    """The asked-for pooling, or the usual one of that kind of backbone."""
    if asked is None:
        return "last" if kind == "decoder" else "cls"
    if asked not in ("last", "cls", "mean"):
        raise ModelError(f"pooling={asked!r}: expected 'last', 'cls' or 'mean'")
    if asked == "cls" and kind == "decoder":
        raise ModelError("pooling='cls' reads the first token, which in a decoder has seen nothing")
    return asked


def choose_max_length(asked: int | None, source: Backbone) -> int:
    """The asked-for length in tokens, or min(512, what the backbone takes)."""
    limit = length_limit(source.model.config, source.tokenizer)
    if asked is None:
        return DEFAULT_MAX_LENGTH if limit is None else min(DEFAULT_MAX_LENGTH, limit)
    if limit is not None and asked > limit:
        raise ModelError(
            f"max_length={asked} is more than {source.name!r} takes ({limit} tokens): use at most {limit}"
        )
    return asked


def choose_head_rate(asked: float | None, *, judgements: int, frozen: bool) -> float:
    """The asked-for learning rate of the heads, or the usual one for so many pairs and ratings.

    The higher one was measured on frozen backbones alone.
    """
    if asked is not None:
        return asked
    return MANY_RATE if frozen and judgements >= MANY else FEW_RATE
