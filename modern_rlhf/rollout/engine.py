"""Sampling with a Hugging Face model: one prefill a prompt, finished rows leave the batch.

A prompt is prefilled once for all its G samples; keys and values live in buffers allocated once a
batch instead of being concatenated a step; rows that met a stop leave the batch when enough of them
have. Sampling is inverse-CDF with one uniform number per (row, step) drawn up front, so what a row
samples does not depend on when its neighbours finish. Weights are sampled from a copy in the compute
dtype (bf16 where the hardware has it), refreshed by `sync`; old log-probabilities for the loss are
recomputed by the training forward, so the first ratio is 1 whatever the sampler's dtype (D33).
This file knows nothing of rewards or losses.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from modern_rlhf.models.forward import position_ids, trunk_of
from modern_rlhf.rollout.types import Generation


class _BufferedLayer(DynamicLayer):  # type: ignore[misc]
    """A full-attention cache layer with room for `room` more tokens, filled in place."""

    def __init__(self, keys: Tensor, values: Tensor, *, room: int) -> None:
        super().__init__()
        self.dtype, self.device = keys.dtype, keys.device
        self.used = keys.shape[-2]
        self._keys = _with_room(keys, room)
        self._values = _with_room(values, room)
        self.is_initialized = True
        self._expose()

    def _expose(self) -> None:
        self.keys = self._keys[:, :, : self.used]
        self.values = self._values[:, :, : self.used]

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        end = self.used + key_states.shape[-2]
        self._keys[:, :, self.used : end] = key_states
        self._values[:, :, self.used : end] = value_states
        self.used = end
        self._expose()
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        self._keys, self._values = self._keys[indices], self._values[indices]
        self._expose()


def _with_room(tensor: Tensor, room: int) -> Tensor:
    rows, heads, length, width = tensor.shape
    buffer = tensor.new_empty(rows, heads, length + room, width)
    buffer[:, :, :length] = tensor
    return buffer


def _expand(cache: DynamicCache, repeats: int, room: int) -> None:
    """Repeat every row of a prefilled cache and give full-attention layers their buffers."""
    if repeats > 1:
        cache.batch_repeat_interleave(repeats)
    for index, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer and layer.is_initialized:
            cache.layers[index] = _BufferedLayer(layer.keys, layer.values, room=room)


class HuggingFaceEngine:
    """Samples from a causal LM held in the trainer's process.

    Args:
        lm: the policy's language model; read at construction and at every `sync`.
        eos_ids: token ids that end a response.
        pad_id: id used to pad prompts on the left.
        dtype: compute dtype; another than the parameters' makes a private copy of the weights.
        max_rows: sequences decoded at once.
        stop_strings: texts that end a response as well (needs `tokenizer`).
    """

    def __init__(
        self,
        lm: Any,
        *,
        eos_ids: Sequence[int],
        pad_id: int,
        dtype: torch.dtype = torch.float32,
        max_rows: int = 256,
        stop_strings: Sequence[str] = (),
        tokenizer: Any = None,
    ) -> None:
        if stop_strings and tokenizer is None:
            raise ValueError("stop_strings need the tokenizer to be looked for")
        self._source = lm
        self._eos = sorted(set(eos_ids))
        self._pad = pad_id
        self._max_rows = max_rows
        self._stop_strings = tuple(stop_strings)
        self._tokenizer = tokenizer
        self._dtype = dtype
        own = next(lm.parameters()).dtype
        self._copied = dtype != own and not hasattr(lm, "peft_config")
        self._lm = copy.deepcopy(lm).to(dtype).eval() if self._copied else lm

    def sync(self) -> None:
        if not self._copied:
            return
        with torch.no_grad():
            for mine, theirs in zip(self._lm.parameters(), self._source.parameters(), strict=True):
                mine.copy_(theirs)

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
        group = samples_per_prompt
        order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
        # One uniform a (sample, step), indexed by the sample's place in the call: what a sample
        # draws depends neither on how prompts are batched nor on which rows have finished.
        uniforms = torch.ones(0)
        if temperature > 0:
            uniforms = torch.rand(len(prompts) * group, max_new_tokens, generator=generator)
        results: dict[int, list[Generation]] = {}
        per_batch = max(1, self._max_rows // group)
        was_training = self._lm.training
        self._lm.eval()
        for start in range(0, len(order), per_batch):
            chosen = order[start : start + per_batch]
            batch_uniforms = uniforms
            if temperature > 0:
                rows = [i * group + g for i in chosen for g in range(group)]
                batch_uniforms = uniforms[torch.tensor(rows)]
            done = self._batch(
                [list(prompts[i]) for i in chosen],
                group,
                max_new_tokens,
                temperature,
                batch_uniforms,
            )
            for place, index in enumerate(chosen):
                results[index] = done[place * group : (place + 1) * group]
            if progress is not None:
                progress(len(chosen) * group)
        self._lm.train(was_training)
        return [generation for i in range(len(prompts)) for generation in results[i]]

    def _autocast(self) -> Any:
        parameter = next(self._lm.parameters())
        if parameter.dtype == self._dtype:
            return contextlib.nullcontext()
        return torch.autocast(parameter.device.type, dtype=self._dtype)

    @torch.no_grad()
    def _batch(
        self,
        prompts: list[list[int]],
        group: int,
        max_new_tokens: int,
        temperature: float,
        uniforms: Tensor,
    ) -> list[Generation]:
        device = next(self._lm.parameters()).device
        trunk, head = trunk_of(self._lm), self._lm.get_output_embeddings()
        width = max(map(len, prompts))
        ids = torch.tensor([[self._pad] * (width - len(p)) + p for p in prompts], device=device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
        uniforms = uniforms.to(device)
        eos = torch.tensor(self._eos, device=device)
        with self._autocast():
            # 1. Prefill every prompt once, then repeat its cache for its G samples.
            cache = DynamicCache(config=self._lm.config)
            hidden = trunk(
                input_ids=ids,
                attention_mask=mask,
                position_ids=position_ids(mask),
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state[:, -1]
            hidden = hidden.repeat_interleave(group, dim=0)
            _expand(cache, group, max_new_tokens)
            rows = len(prompts) * group
            mask = torch.cat(
                [mask.repeat_interleave(group, dim=0), mask.new_ones(rows, max_new_tokens)], dim=1
            )
            next_position = mask[:, :width].sum(1, keepdim=True)
            tokens = ids.new_full((rows, max_new_tokens), -1)
            log_probs = torch.zeros(rows, max_new_tokens, device=device)
            finished = torch.zeros(rows, dtype=torch.bool, device=device)
            alive = torch.arange(rows, device=device)  # row of each line still in the batch
            running = torch.ones(rows, dtype=torch.bool, device=device)  # by line, not yet stopped
            # 2. Decode until every row has met a stop or the limit.
            for step in range(max_new_tokens):
                logits = self._logits(head, hidden)
                token, log_prob = _pick(
                    logits, temperature, uniforms[alive, step] if temperature > 0 else None
                )
                live = alive[running]
                tokens[live, step] = token[running]
                log_probs[live, step] = log_prob[running]
                stopped = torch.isin(token, eos)
                if self._stop_strings:
                    stopped |= self._met_stop_string(tokens[alive, : step + 1])
                stopped &= running
                finished[alive[stopped]] = True
                running &= ~stopped
                count = int(running.sum())
                if count == 0 or step + 1 == max_new_tokens:
                    break
                if count <= 0.75 * len(alive):
                    keep = running.nonzero().squeeze(1)
                    cache.batch_select_indices(keep)
                    alive, token, running = alive[keep], token[keep], running[keep]
                hidden = trunk(
                    input_ids=token[:, None],
                    attention_mask=mask[alive, : width + step + 1],
                    position_ids=next_position[alive] + step,
                    past_key_values=cache,
                    use_cache=True,
                ).last_hidden_state[:, -1]
        # 3. Back to lists; a row's tokens end at its first -1.
        lengths = (tokens >= 0).sum(1).tolist()
        return [
            Generation(row[:n], scores[:n], done)
            for row, scores, n, done in zip(
                tokens.tolist(), log_probs.tolist(), lengths, finished.tolist(), strict=True
            )
        ]

    def _logits(self, head: Any, hidden: Tensor) -> Tensor:
        return head(hidden).float()

    def _met_stop_string(self, tokens: Tensor) -> Tensor:
        texts = self._tokenizer.batch_decode(tokens.clamp_min(0), skip_special_tokens=True)
        return torch.tensor(
            [any(stop in text for stop in self._stop_strings) for text in texts],
            device=tokens.device,
        )


def _pick(logits: Tensor, temperature: float, uniform: Tensor | None) -> tuple[Tensor, Tensor]:
    """One token a row and its log-probability: greedy, or inverse CDF at `uniform` (rows,)."""
    if uniform is None:
        token = logits.argmax(dim=-1)
        return token, logits.log_softmax(-1).gather(-1, token[:, None]).squeeze(1)
    log_probs = (logits / temperature).log_softmax(-1)
    cumulative = log_probs.exp().cumsum(-1)
    threshold = uniform[:, None] * cumulative[:, -1:]
    token = torch.searchsorted(cumulative, threshold, right=True).clamp_max(logits.shape[-1] - 1)
    return token.squeeze(1), log_probs.gather(-1, token).squeeze(1)
