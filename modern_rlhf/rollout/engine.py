"""Sampling with a Hugging Face model: what samples share is computed once, finished rows leave.

A *row* is one sample, a *line* one sequence in the model's batch. The G samples of a prompt start as
one line and split where they draw different tokens, so a prompt is prefilled once and a beginning
that samples have in common is decoded once. Keys and values live in buffers allocated once a batch;
splitting copies a line inside them, and the place of a line that ended is taken by another.
Sampling is inverse-CDF with one uniform number per (row, step) drawn up front, so what a row
samples does not depend on its neighbours. Weights are sampled from a copy in the compute
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
from modern_rlhf.rollout.types import Generation, Share


class _BufferedLayer(DynamicLayer):  # type: ignore[misc]
    """A full-attention cache layer for up to `lines` lines of `room` more tokens, filled in place."""

    def __init__(self, keys: Tensor, values: Tensor, *, lines: int, room: int) -> None:
        super().__init__()
        self.dtype, self.device = keys.dtype, keys.device
        self.lines, self.used = keys.shape[0], keys.shape[-2]
        self._keys = _with_room(keys, lines, room)
        self._values = _with_room(values, lines, room)
        self.is_initialized = True
        self._expose()

    def _expose(self) -> None:
        self.keys = self._keys[: self.lines, :, : self.used]
        self.values = self._values[: self.lines, :, : self.used]

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        end = self.used + key_states.shape[-2]
        self._keys[: self.lines, :, self.used : end] = key_states
        self._values[: self.lines, :, self.used : end] = value_states
        self.used = end
        self._expose()
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Line i becomes what line `indices[i]` was; lines that stay are not copied."""
        moved = (indices != torch.arange(len(indices), device=indices.device)).nonzero().squeeze(1)
        if len(moved):
            sources = indices[moved]
            for buffer in (self._keys, self._values):
                buffer[moved, :, : self.used] = buffer[sources, :, : self.used]
        self.lines = len(indices)
        self._expose()


def _with_room(tensor: Tensor, lines: int, room: int) -> Tensor:
    used, heads, length, width = tensor.shape
    buffer = tensor.new_empty(lines, heads, length + room, width)
    buffer[:used, :, :length] = tensor
    return buffer


def _give_room(cache: DynamicCache, *, lines: int, room: int) -> None:
    """Replace the full-attention layers of a prefilled cache by buffers; others stay as they are."""
    for index, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer and layer.is_initialized:
            cache.layers[index] = _BufferedLayer(layer.keys, layer.values, lines=lines, room=room)


def split_lines(line: Tensor, token: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where rows go on after a step: rows of one line that drew the same token stay together.

    Args:
        line: (n,) line of each row that goes on.
        token: (n,) what each of them drew.

    Returns:
        `source` (m,): for each of the m new lines, the old line it continues. `drawn` (m,): its
        token. `place` (n,): the new line of each row. Lines keep their number where they can.
    """
    pairs, inverse = torch.unique((line << 32) + token, return_inverse=True)  # sorted
    parent, drawn = pairs >> 32, pairs & 0xFFFFFFFF
    count = len(pairs)
    first = torch.ones_like(parent, dtype=torch.bool)
    first[1:] = parent[1:] != parent[:-1]
    stays = first & (parent < count)
    free = torch.ones(count, dtype=torch.bool, device=line.device)
    free[parent[stays]] = False
    to = torch.empty_like(parent)
    to[stays] = parent[stays]
    to[~stays] = free.nonzero().squeeze(1)
    back = torch.argsort(to)
    return parent[back], drawn[back], to[inverse]


class HuggingFaceEngine:
    """Samples from a causal LM held in the trainer's process.

    Args:
        lm: the policy's language model; read at construction and at every `sync`.
        eos_ids: token ids that end a response.
        pad_id: id used to pad prompts on the left.
        dtype: compute dtype; another than the parameters' makes a private copy of the weights.
        max_rows: samples decoded at once.
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
        # Every token but a special one is at least a byte, so a text that just ended lies in here.
        self._tail = max((len(text.encode()) for text in stop_strings), default=0) + 4
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
        share: Share | None = None,
    ) -> list[Generation]:
        group = samples_per_prompt
        order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
        share = share or Share(range(len(prompts)), len(prompts))
        # One uniform a (sample, step), indexed by the sample's place among all prompts: what a sample
        # draws depends neither on how prompts are batched or shared nor on which rows have finished.
        uniforms = torch.ones(0)
        if temperature > 0:
            uniforms = torch.rand(share.total * group, max_new_tokens, generator=generator)
        results: dict[int, list[Generation]] = {}
        per_batch = max(1, self._max_rows // group)
        was_training = self._lm.training
        self._lm.eval()
        for start in range(0, len(order), per_batch):
            chosen = order[start : start + per_batch]
            batch_uniforms = uniforms
            if temperature > 0:
                rows = [share.places[i] * group + g for i in chosen for g in range(group)]
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
        eos = torch.tensor(self._eos, device=device)
        rows = len(prompts) * group
        uniforms = uniforms.to(device)
        tokens = ids.new_full((rows, max_new_tokens), -1)
        log_probs = torch.zeros(rows, max_new_tokens, device=device)
        finished = torch.zeros(rows, dtype=torch.bool, device=device)
        with self._autocast():
            # 1. Prefill every prompt: one line each, which its G rows share.
            cache = DynamicCache(config=self._lm.config)
            hidden = trunk(
                input_ids=ids,
                attention_mask=mask,
                position_ids=position_ids(mask),
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state[:, -1]
            _give_room(cache, lines=rows, room=max_new_tokens)
            lengths = mask.sum(1, keepdim=True)
            mask = torch.cat([mask, mask.new_ones(len(prompts), max_new_tokens)], dim=1)
            prompt = torch.arange(len(prompts), device=device)  # of each line
            running = torch.arange(rows, device=device)  # rows that have not stopped
            line = running // group  # of each running row
            # 2. Decode until every row has met a stop or the limit.
            for step in range(max_new_tokens):
                token, log_prob = _pick(
                    self._logits(head, hidden),
                    temperature,
                    line,
                    running % group,
                    uniforms[running, step] if temperature > 0 else None,
                    group,
                )
                tokens[running, step] = token
                log_probs[running, step] = log_prob
                stopped = torch.isin(token, eos)
                if self._stop_strings:
                    recent = tokens[running, max(0, step + 1 - self._tail) : step + 1]
                    stopped |= self._met_stop_string(recent)
                finished[running[stopped]] = True
                running, line, token = running[~stopped], line[~stopped], token[~stopped]
                if len(running) == 0 or step + 1 == max_new_tokens:
                    break
                source, drawn, line = split_lines(line, token)
                cache.batch_select_indices(source)
                prompt = prompt[source]
                hidden = trunk(
                    input_ids=drawn[:, None],
                    attention_mask=mask[prompt, : width + step + 1],
                    position_ids=lengths[prompt] + step,
                    past_key_values=cache,
                    use_cache=True,
                ).last_hidden_state[:, -1]
        # 3. Back to lists; a row's tokens end at its first -1.
        counts = (tokens >= 0).sum(1).tolist()
        return [
            Generation(row[:n], scores[:n], done)
            for row, scores, n, done in zip(
                tokens.tolist(), log_probs.tolist(), counts, finished.tolist(), strict=True
            )
        ]

    def _logits(self, head: Any, hidden: Tensor) -> Tensor:
        return head(hidden).float()

    def _met_stop_string(self, tokens: Tensor) -> Tensor:
        texts = self._tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return torch.tensor(
            [any(stop in text for stop in self._stop_strings) for text in texts],
            device=tokens.device,
        )


def _pick(
    logits: Tensor,
    temperature: float,
    line: Tensor,
    slot: Tensor,
    uniform: Tensor | None,
    group: int,
) -> tuple[Tensor, Tensor]:
    """One token a row and its log-probability: greedy, or inverse CDF at each row's `uniform`.

    `logits` are (lines, V); `line` and `slot` (its number within the prompt's samples) are (rows,).
    """
    if uniform is None:
        log_probs = logits.log_softmax(-1)
        token = logits.argmax(dim=-1)[line]
        return token, log_probs[line, token]
    log_probs = (logits / temperature).log_softmax(-1)
    cumulative = log_probs.exp().cumsum(-1)
    thresholds = torch.zeros(len(logits), group, device=logits.device)
    # A float32 uniform is at most 1 - 2^-24, and that times any total rounds below the total.
    thresholds[line, slot] = uniform * cumulative[line, -1]
    found = torch.searchsorted(cumulative, thresholds, right=True)
    token = found[line, slot].clamp_max(logits.shape[-1] - 1)
    return token, log_probs[line, token]
