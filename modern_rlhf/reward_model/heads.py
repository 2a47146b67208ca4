"""The trainable part of the reward model: named heads on pooled features, calibration, temperature.

A head is the MLP of the reward network (Linear, ReLU, Dropout, twice, then Linear) or one Linear; every
Linear starts as N(0, 1/sqrt(d + 1)) with bias 0, d its inputs (D3; "The N implementation details of
RLHF with PPO"). An ensemble is E independent copies of every head; its disagreement is the uncertainty.
The human head gives logits over the five rating levels.

    member score = sum_k w_k head_k + human_feedback_weight * E[level - 3]
    score        = gain * mean over members + bias                          (D5)
    uncertainty  = gain * std over members of (member score - its mean on the calibration samples)

Bradley-Terry decides differences only, so each member has a constant of its own (2312.09244, section 2):
without taking it off, what the constants differ by would pass for disagreement about every answer.

With text features every head is wide and deep: head_k(pooled) + Linear_k(text features), the Linear
starting at 0 (`text_features`).

Features are standardised by stored statistics first (identity until `set_feature_statistics`), because
pooled features of pretrained models have a few coordinates hundreds of times larger than the rest.

Knows nothing of text, tokens or backbones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from modern_rlhf.errors import ModelError
from modern_rlhf.losses.reward import ordinal_expectation

HeadKind = Literal["mlp", "linear"]
LEVELS = 5
"""Rating levels 1..5 of the human head; level k stands for k - 3 on the -2..2 scale."""

WIDE_RATE = 10.0
"""Times the heads' learning rate that the Linears on text features learn at: a head's few weights of that
kind start at 0 and must move as far as a small step times the few steps of a run allows (docs/log.d/reward_model.md)."""

HUMAN = "human"
"""Name under which the human head's expectation (-2..2) is reported beside the named heads."""


@dataclass(frozen=True)
class RewardOutput:
    """Scores of B pairs by E ensemble members.

    Attributes:
        heads: by head name, (E, B).
        human_logits: (E, B, 5), or None without a human head.
        totals: (E, B) weighted sum of heads and human expectation, not calibrated: what losses use.
        scores: (B,) calibrated mean over members: what a policy is rewarded with.
        uncertainty: (B,) standard deviation over members in calibrated units; zeros when E = 1.
    """

    heads: Mapping[str, torch.Tensor]
    human_logits: torch.Tensor | None
    totals: torch.Tensor
    scores: torch.Tensor
    uncertainty: torch.Tensor

    def by_head(self) -> dict[str, torch.Tensor]:
        """By head name, (B,) mean over members; `human` is the expected rating on -2..2."""
        named = {name: values.mean(0) for name, values in self.heads.items()}
        if self.human_logits is not None:
            named[HUMAN] = ordinal_expectation(self.human_logits).mean(0)
        return named


def init_linear_(layer: nn.Linear, generator: torch.Generator | None = None) -> None:
    """Weights N(0, 1/sqrt(d + 1)) with d inputs, bias 0 (D3)."""
    with torch.no_grad():
        layer.weight.normal_(0.0, 1.0 / math.sqrt(layer.in_features + 1), generator=generator)
        layer.bias.zero_()


def build_head(
    inputs: int,
    outputs: int,
    *,
    kind: HeadKind,
    width: int,
    dropout: float,
    generator: torch.Generator | None = None,
) -> nn.Sequential:
    """One head: (N, inputs) -> (N, outputs)."""
    if kind == "linear":
        layers: list[nn.Module] = [nn.Linear(inputs, outputs)]
    else:
        layers = []
        for size in (inputs, width):
            layers += [nn.Linear(size, width), nn.ReLU(), nn.Dropout(dropout)]
        layers.append(nn.Linear(width, outputs))
    for layer in layers:
        if isinstance(layer, nn.Linear):
            init_linear_(layer, generator)
    return nn.Sequential(*layers)


class RewardHeads(nn.Module):
    """Named heads, the optional human head, and the stored statistics, on features (B, F).

    Args:
        hidden_size: H of the backbone. F is H, or 2H (last layer, then second-last) when the human
            head reads the second-last layer; the S text features come after them.
        names: names of the heads, unique and not empty.
        kind, width, dropout: shape of each head; `width` is the MLP's hidden size.
        ensemble: E, number of independent copies.
        human_logits: None, or the layer the human head reads: `last` or `second_last`.
        human_feedback_weight: weight of the human expectation in the total.
        head_weights: weight of each head in the total; default 1/K each.
        text_features: S, how many text features every head sees beside its layer.
        generator: source of the initial weights; torch's default one when None.

    Raises:
        ModelError: a setting that can't be used; the message names it.
    """

    feature_mean: torch.Tensor
    feature_scale: torch.Tensor
    gain: torch.Tensor
    bias: torch.Tensor
    member_means: torch.Tensor
    temperature: torch.Tensor
    weights: torch.Tensor

    def __init__(
        self,
        hidden_size: int,
        names: Sequence[str],
        *,
        kind: HeadKind = "mlp",
        width: int,
        dropout: float = 0.1,
        ensemble: int = 1,
        human_logits: Literal["last", "second_last"] | None = None,
        human_feedback_weight: float = 0.3,
        head_weights: Mapping[str, float] | None = None,
        text_features: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        _check(names, kind, width, dropout, ensemble, human_logits, head_weights)
        if not math.isfinite(human_feedback_weight):
            raise ModelError(f"human_feedback_weight={human_feedback_weight}: expected a number")
        self.names = tuple(names)
        self.kind = kind
        self.hidden_size = hidden_size
        self.ensemble = ensemble
        self.human_layer = human_logits
        self.human_feedback_weight = float(human_feedback_weight) if human_logits else 0.0
        self.layers = 2 if human_logits == "second_last" else 1
        self.text_features = text_features
        self.feature_size = hidden_size * self.layers + text_features

        def copies(outputs: int) -> nn.ModuleList:
            return nn.ModuleList(
                build_head(
                    hidden_size,
                    outputs,
                    kind=kind,
                    width=width,
                    dropout=dropout,
                    generator=generator,
                )
                for _ in range(ensemble)
            )

        def wide(outputs: int) -> nn.ModuleList:
            linears = [nn.Linear(text_features, outputs, bias=False) for _ in range(ensemble)]
            for linear in linears:
                nn.init.zeros_(linear.weight)
            return nn.ModuleList(linears)

        self.members = nn.ModuleDict({f"head_{name}": copies(1) for name in self.names})
        self.human = copies(LEVELS) if human_logits else None
        self.wide = nn.ModuleDict()
        if text_features:
            self.wide.update({f"head_{name}": wide(1) for name in self.names})
            if human_logits:
                self.wide[HUMAN] = wide(LEVELS)
        given = head_weights or {name: 1.0 / len(self.names) for name in self.names}
        self.register_buffer("weights", torch.tensor([float(given[name]) for name in self.names]))
        self.register_buffer("feature_mean", torch.zeros(self.feature_size))
        self.register_buffer("feature_scale", torch.ones(self.feature_size))
        self.register_buffer("gain", torch.ones(()))
        self.register_buffer("bias", torch.zeros(()))
        self.register_buffer("member_means", torch.zeros(ensemble))
        self.register_buffer("temperature", torch.ones(()))

    def forward(self, features: torch.Tensor) -> RewardOutput:
        """Features (B, F) -> `RewardOutput`."""
        if features.ndim != 2 or features.shape[1] != self.feature_size:
            raise ModelError(
                f"features have shape {tuple(features.shape)}; these heads need (B, {self.feature_size})"
            )
        features = (features.float() - self.feature_mean) / self.feature_scale
        last = features[:, : self.hidden_size]
        heads = {
            name: self._values(f"head_{name}", self.members[f"head_{name}"], last, features)[..., 0]
            for name in self.names
        }
        totals = sum(w * heads[name] for w, name in zip(self.weights, self.names, strict=True))
        logits = None
        if self.human is not None:
            end = self.hidden_size * self.layers
            logits = self._values(
                HUMAN, self.human, features[:, end - self.hidden_size : end], features
            )
            totals = totals + self.human_feedback_weight * ordinal_expectation(logits)
        scores = self.gain * totals.mean(0) + self.bias
        uncertainty = self.gain * (totals - self.member_means[:, None]).std(0, correction=0)
        return RewardOutput(heads, logits, totals, scores, uncertainty)

    def _values(
        self, name: str, copies: nn.Module, layer: torch.Tensor, features: torch.Tensor
    ) -> torch.Tensor:
        """(E, B, outputs) of one head's copies on a layer (B, H), with its share of the text features."""
        values = torch.stack([copy(layer) for copy in copies.children()])
        if not self.text_features:
            return values
        text = features[:, -self.text_features :]
        return values + torch.stack([linear(text) for linear in self.wide[name].children()])

    def learning_groups(
        self, learning_rate: float, *, weight_decay: float
    ) -> list[tuple[list[nn.Parameter], float, float]]:
        """(parameters, learning rate, weight decay) for AdamW: what reads the pooled states, then the Linears
        on text features, which learn at `WIDE_RATE` times the rate and never decay."""
        deep = [p for name, p in self.named_parameters() if not name.startswith("wide.")]
        groups = [(deep, learning_rate, weight_decay)]
        if self.text_features:
            groups.append((list(self.wide.parameters()), WIDE_RATE * learning_rate, 0.0))
        return groups

    @property
    def standardised(self) -> bool:
        """Whether feature statistics are stored, to which trained weights have been fitted."""
        return bool((self.feature_mean != 0).any() or (self.feature_scale != 1).any())

    @torch.no_grad()
    def set_feature_statistics(self, features: torch.Tensor) -> None:
        """Store mean and standard deviation of training features (N, F), N at least 2.

        (N, S) are the text features alone: all that stays constant while a backbone trains.

        Raises:
            ModelError: another shape, or a feature that is no finite number.
        """
        known = (self.feature_size, self.text_features or self.feature_size)
        if features.ndim != 2 or features.shape[0] < 2 or features.shape[1] not in known:
            raise ModelError(
                "a reward model needs at least 2 texts to be trained on, each with "
                f"{self.feature_size} features; these are {tuple(features.shape)}"
            )
        features = features.float()
        broken = int((~torch.isfinite(features)).any(1).sum())
        if broken:
            raise ModelError(
                f"the reward model's backbone gives NaN or infinite states for {broken} of "
                f"{len(features)} training texts, from which nothing can be learned: use another backbone"
            )
        spread = features.std(0, correction=0)
        # A coordinate that never moves is only centred: dividing by its noise would make it matter.
        flat = spread < 1e-6 * features.abs().mean().clamp_min(1e-12)
        self.feature_mean[-features.shape[1] :] = features.mean(0)
        self.feature_scale[-features.shape[1] :] = torch.where(
            flat, torch.ones_like(spread), spread
        )

    @torch.no_grad()
    def set_calibration(self, totals: torch.Tensor) -> None:
        """Choose gain and bias so that the members' mean of `totals` (E, N) gets mean 0 and standard
        deviation 1 (D5), and keep each member's own mean.

        The temperature is rescaled with the gain, so that pairwise probabilities stay what they were.

        Raises:
            ModelError: fewer than two samples, a non-finite one, or all alike.
        """
        members, totals = totals.double(), totals.double().mean(0)
        if totals.numel() < 2 or not bool(torch.isfinite(totals).all()):
            raise ModelError("calibration needs at least two samples with finite scores")
        spread = float(totals.std(correction=0))
        if spread <= 1e-6 * max(1.0, float(totals.abs().mean())):
            raise ModelError(
                "calibration is impossible: the reward model gives all calibration samples the same "
                "score; use more varied samples or train it further"
            )
        self.temperature.mul_(1.0 / (spread * float(self.gain)))
        self.gain.fill_(1.0 / spread)
        self.bias.fill_(-float(totals.mean()) / spread)
        self.member_means.copy_(members.mean(1))

    @torch.no_grad()
    def set_temperature(self, temperature: float) -> None:
        """Store T of P(first is preferred) = sigmoid(gap of calibrated scores / T).

        Raises:
            ModelError: not a positive finite number.
        """
        if not (math.isfinite(temperature) and temperature > 0):
            raise ModelError(f"temperature={temperature}: expected a positive number")
        self.temperature.fill_(temperature)


def _check(
    names: Sequence[str],
    kind: str,
    width: int,
    dropout: float,
    ensemble: int,
    human_logits: str | None,
    head_weights: Mapping[str, float] | None,
) -> None:
    if not names or isinstance(names, str) or len(set(names)) != len(names) or HUMAN in names:
        raise ModelError(
            f"heads={names!r}: give a list of different names, none of them {HUMAN!r} "
            "(the name of the human-rating head)"
        )
    if any(not name or "." in name for name in names):
        raise ModelError(f"heads={names!r}: a head's name must not be empty or hold a dot")
    if kind not in ("mlp", "linear"):
        raise ModelError(f"head_kind={kind!r}: expected 'mlp' or 'linear'")
    if human_logits not in (None, "last", "second_last"):
        raise ModelError(f"human_logits_layer={human_logits!r}: expected 'last' or 'second_last'")
    if ensemble < 1 or width < 1:
        raise ModelError(f"ensemble={ensemble}, head_width={width}: both must be at least 1")
    if not 0.0 <= dropout < 1.0:
        raise ModelError(f"dropout={dropout}: expected 0 <= dropout < 1")
    if head_weights is not None and set(head_weights) != set(names):
        raise ModelError(
            f"head_weights name {sorted(head_weights)}, the heads are {sorted(names)}: give one each"
        )
    whole = 1.0 if head_weights is None else float(sum(head_weights.values()))
    if not (math.isfinite(whole) and whole > 0):
        raise ModelError(f"head_weights={head_weights}: expected numbers with a sum above 0")
