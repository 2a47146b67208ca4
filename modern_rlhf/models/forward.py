"""The forward passes of training: position ids, hidden states, response log-probs and values.

Sequences are right-padded rows `prompt + response`; which positions are prompt, response and padding
comes from lengths alone (D7). The language-model head runs on response positions only, and
log-probabilities come from the chunked log-softmax of `ops.log_probs`, so no `B x T x V` tensor ever
exists. `Policy` and `ValueModel` are modules whose `forward` does all of it, so that a data-parallel
wrapper around them sees one ordinary forward.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from modern_rlhf.models.adapters import has_adapters
from modern_rlhf.ops.log_probs import log_probs_from_logits, response_log_probs


@dataclass(frozen=True)
class Sequences:
    """B rows of `prompt + response`, right-padded to T.

    Attributes:
        input_ids: (B, T) token ids.
        prompt_lengths, response_lengths: (B,) true lengths; the rest of a row is padding.
    """

    input_ids: Tensor
    prompt_lengths: Tensor
    response_lengths: Tensor

    def __len__(self) -> int:
        return int(self.input_ids.shape[0])

    @property
    def attention_mask(self) -> Tensor:
        """(B, T) 1 on real tokens."""
        positions = torch.arange(self.input_ids.shape[1], device=self.input_ids.device)
        return (positions < (self.prompt_lengths + self.response_lengths)[:, None]).long()

    @property
    def response_mask(self) -> Tensor:
        """(B, R) bool, True on real response tokens; R is the longest response of the batch."""
        width = int(self.response_lengths.max())
        positions = torch.arange(width, device=self.input_ids.device)
        return positions < self.response_lengths[:, None]

    def to(self, device: torch.device | str) -> Sequences:
        return Sequences(
            self.input_ids.to(device, non_blocking=True),
            self.prompt_lengths.to(device, non_blocking=True),
            self.response_lengths.to(device, non_blocking=True),
        )


def make_sequences(
    prompts: list[list[int]], responses: list[list[int]], *, pad_id: int
) -> Sequences:
    """Right-pad `prompt + response` token lists into one batch."""
    width = max(len(p) + len(r) for p, r in zip(prompts, responses, strict=True))
    rows = [
        p + r + [pad_id] * (width - len(p) - len(r))
        for p, r in zip(prompts, responses, strict=True)
    ]
    return Sequences(
        torch.tensor(rows, dtype=torch.long),
        torch.tensor([len(p) for p in prompts]),
        torch.tensor([len(r) for r in responses]),
    )


def position_ids(attention_mask: Tensor) -> Tensor:
    """Position of each real token counted from 0, whatever the padding side (D8).

    `cumsum(mask) - mask` over (B, T); GPT-2 and CodeGPT need it, rotary models do not mind.
    """
    return torch.cumsum(attention_mask, dim=1) - attention_mask


def trunk_of(model: Any) -> nn.Module:
    """The model without its head, with any LoRA adapters still active inside it."""
    inner = model.get_base_model() if has_adapters(model) else model
    return getattr(inner, inner.base_model_prefix)


def trunk_hidden(trunk: nn.Module, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """(B, T, H) final hidden states."""
    outputs = trunk(
        input_ids=input_ids,
        attention_mask=attention_mask,
        position_ids=position_ids(attention_mask),
        use_cache=False,
    )
    return outputs.last_hidden_state


def action_positions(sequences: Sequences) -> tuple[Tensor, Tensor]:
    """Row and column of the hidden state that predicts each real response token.

    Returns two (N,) index tensors, N = number of real response tokens, in row order.
    """
    rows, offsets = sequences.response_mask.nonzero(as_tuple=True)
    return rows, sequences.prompt_lengths[rows] + offsets - 1


def scatter(values: Tensor, sequences: Sequences) -> Tensor:
    """(N,) values of real response tokens -> (B, R) with zeros on padding; differentiable."""
    mask = sequences.response_mask
    return torch.zeros(mask.shape, dtype=values.dtype, device=values.device).masked_scatter(
        mask, values
    )


@dataclass(frozen=True)
class PolicyOutput:
    """What one policy forward yields, each (B, R) in float32 with zeros on padding."""

    log_probs: Tensor
    entropy: Tensor | None
    values: Tensor | None

    def rows(self, index: Tensor) -> PolicyOutput:
        """The rows of an (n,) index, which may repeat; differentiable."""
        return PolicyOutput(
            log_probs=self.log_probs[index],
            entropy=None if self.entropy is None else self.entropy[index],
            values=None if self.values is None else self.values[index],
        )


class Policy(nn.Module):
    """A causal language model, with an optional value head on its trunk (D25 `shared`).

    `head_is_plain` says whether logits are exactly `hidden @ weight.T + bias`; models that scale or
    cap their logits (Gemma, Granite, Cohere) are found by a probe and take their own head instead.
    """

    def __init__(self, lm: Any, *, value_head: nn.Module | None = None) -> None:
        super().__init__()
        self.lm = lm
        self.value_head = value_head
        self.head_is_plain = _head_is_plain(lm)

    def forward(
        self, sequences: Sequences, *, temperature: float = 1.0, with_entropy: bool = False
    ) -> PolicyOutput:
        """Log-probabilities of the response tokens at the sampling temperature (D10)."""
        hidden = trunk_hidden(trunk_of(self.lm), sequences.input_ids, sequences.attention_mask)
        rows, columns = action_positions(sequences)
        states = hidden[rows, columns]  # (N, H)
        labels = sequences.input_ids[rows, columns + 1]
        head = self.lm.get_output_embeddings()
        entropy: Tensor | None
        if self.head_is_plain:
            log_probs, entropy = response_log_probs(
                states,
                head.weight,
                labels,
                temperature=temperature,
                bias=head.bias,
                with_entropy=with_entropy,
            )
        else:
            logits = (
                self.lm(
                    input_ids=sequences.input_ids,
                    attention_mask=sequences.attention_mask,
                    position_ids=position_ids(sequences.attention_mask),
                    use_cache=False,
                )
                .logits[rows, columns]
                .float()
            )
            log_probs = log_probs_from_logits(logits, labels, temperature=temperature)
            entropy = None
            if with_entropy:
                entropy = torch.distributions.Categorical(logits=logits / temperature).entropy()
        values = None
        if self.value_head is not None:
            values = scatter(self.value_head(states).squeeze(-1).float(), sequences)
        return PolicyOutput(
            log_probs=scatter(log_probs, sequences),
            entropy=None if entropy is None else scatter(entropy, sequences),
            values=values,
        )


class ValueModel(nn.Module):
    """A value network of its own: trunk + head, reading the state before each response token."""

    def __init__(self, trunk: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk
        self.value_head = head

    def forward(self, sequences: Sequences) -> Tensor:
        """(B, R) values in float32, zeros on padding."""
        hidden = trunk_hidden(self.trunk, sequences.input_ids, sequences.attention_mask)
        rows, columns = action_positions(sequences)
        return scatter(self.value_head(hidden[rows, columns]).squeeze(-1).float(), sequences)


@torch.no_grad()
def _head_is_plain(lm: Any) -> bool:
    """Compare the model's own logits with `head(trunk(x))` on four tokens.

    A head that carries adapters is not plain: at first they add 0, later they do not.
    """
    head = lm.get_output_embeddings()
    if type(head) is not nn.Linear:
        return False
    device = head.weight.device
    ids = torch.arange(4, device=device)[None] % head.weight.shape[0]
    mask = torch.ones_like(ids)
    was_training = lm.training
    lm.eval()
    own = lm(input_ids=ids, attention_mask=mask, position_ids=position_ids(mask)).logits
    plain = head(trunk_hidden(trunk_of(lm), ids, mask))
    lm.train(was_training)
    return bool(torch.allclose(own.float(), plain.float(), rtol=1e-3, atol=1e-3))
