"""Records as token ids: prompts for generation, demonstrations with their loss masks.

Prompt and answer are tokenised apart, exactly as they meet at generation, and text that spells a
special token is plain text unless a template wrote it. Where an answer ends and what is padding is
never read off the ids (D7: the end token may equal the padding token): masks are made while the ids
are laid down, padding from lengths. Tokenizers are read, never changed (D37).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from modern_rlhf.data_loader.template import (
    Segment,
    Style,
    render_prompt,
    render_segments,
    resolve_style,
)
from modern_rlhf.errors import ConfigError, DataError, ModelError
from modern_rlhf.records import Demonstration, Message

LongPrompt = Literal["skip", "truncate_left"]


@dataclass(frozen=True)
class EncodedExample:
    """T token ids with their loss mask: 0 on the prompt, 1 on the answer and its end token.

    `cut` says that the answer did not fit: it then has no end token, which would teach the model to
    stop in the middle.
    """

    input_ids: list[int]
    loss_mask: list[int]
    cut: bool = False

    @classmethod
    def of_answer(cls, prompt_ids: Sequence[int], answer_ids: Sequence[int]) -> EncodedExample:
        """One prompt and one answer as it was sampled."""
        mask = [0] * len(prompt_ids) + [1] * len(answer_ids)
        return cls([*prompt_ids, *answer_ids], mask)

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def prompt_length(self) -> int:
        """Tokens before the first trained one."""
        return self.loss_mask.index(1)


@dataclass(frozen=True)
class Encoded:
    """What is left of N records, and what became of the others.

    Attributes:
        examples: the encoded ones.
        indices: position of each example among the records given.
        cut_answers: examples whose answer was cut at the maximum length.
        cut_prompts: examples whose prompt lost its beginning.
        skipped: records left out, by reason.
    """

    examples: list[EncodedExample]
    indices: list[int]
    cut_answers: int = 0
    cut_prompts: int = 0
    skipped: dict[str, int] = field(default_factory=dict)

    def line(self) -> str:
        """The counts as one line for the log."""
        tokens = sum(map(len, self.examples))
        parts = [f"{len(self.examples)} examples, {tokens} tokens"]
        if self.cut_answers:
            parts.append(f"{self.cut_answers} answers cut at the maximum length")
        if self.cut_prompts:
            parts.append(f"{self.cut_prompts} prompts lost their beginning")
        parts += [f"skipped {count}: {reason}" for reason, count in self.skipped.items()]
        return "; ".join(parts)


@dataclass(frozen=True)
class EncodedPrompts:
    """Prompts as ids, with the position of each among the prompts given, and what was left out."""

    input_ids: list[list[int]]
    indices: list[int]
    cut_prompts: int = 0
    skipped: dict[str, int] = field(default_factory=dict)


def pad_id_of(tokenizer: Any) -> int:
    """An id to fill padding with: the pad token, else the end token, else 0.

    Which it is does not matter: no mask is ever derived from it.
    """
    for token_id in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token_id is not None:
            return int(token_id)
    return 0


def encode_prompts(
    tokenizer: Any,
    prompts: Iterable[str | Sequence[Message]],
    *,
    max_length: int,
    style: Style = "auto",
    system: str | None = None,
    long_prompt: LongPrompt = "skip",
) -> EncodedPrompts:
    """Render and tokenise prompts: the very ids that `encode_demonstrations` trains on.

    Args:
        max_length: longest prompt in tokens; `long_prompt` says whether a longer one is left out, or
            loses tokens at its beginning.
    """
    check_long_prompt(long_prompt)
    chat = resolve_style(tokenizer, style) == "chat"
    rendered = [
        [Segment(render_prompt(tokenizer, prompt, style=style, system=system), False, chat)]
        for prompt in prompts
    ]
    start = _start_ids(tokenizer)
    ids, indices, cut = [], [], 0
    skipped: Counter[str] = Counter()
    for index, (tokens, _) in enumerate(_tokenise(tokenizer, rendered)):
        if len(tokens) > max_length and long_prompt == "skip":
            skipped[f"prompts longer than {max_length} tokens"] += 1
            continue
        cut += len(tokens) > max_length
        ids.append(_without_beginning(tokens, len(tokens) - max_length, start))
        indices.append(index)
    return EncodedPrompts(ids, indices, cut, dict(skipped))


def encode_demonstrations(
    tokenizer: Any,
    demonstrations: Iterable[Demonstration],
    *,
    max_length: int,
    max_prompt_length: int | None = None,
    style: Style = "auto",
    system: str | None = None,
    long_prompt: LongPrompt = "skip",
) -> Encoded:
    """Tokenise demonstrations for training.

    The end token is appended to every answer that fits, as an id; an answer that does not is cut at
    `max_length`, without one. With several assistant turns all of them carry loss.

    Args:
        max_length: tokens of prompt and answer together.
        max_prompt_length: tokens of the prompt; default `max_length - 1`, so that at least one token
            of the answer is left.
        long_prompt: leave out longer prompts, or take tokens off their beginning (single turns only;
            longer conversations are always left out).

    Raises:
        ModelError: the tokenizer has no end token.
        DataError: no record is left.
    """
    check_long_prompt(long_prompt)
    limit = max_length - 1 if max_prompt_length is None else min(max_prompt_length, max_length - 1)
    if limit < 1:
        raise ConfigError(f"max_length={max_length} leaves no room for a prompt and an answer")
    eos = tokenizer.eos_token_id
    if eos is None:
        raise ModelError("the tokenizer has no end token, so a model cannot learn to stop")
    rendered = [
        render_segments(tokenizer, item, style=style, system=system) for item in demonstrations
    ]
    start = _start_ids(tokenizer)
    examples, indices = [], []
    cut_prompts = 0
    skipped: Counter[str] = Counter()
    for index, (tokens, mask) in enumerate(_tokenise(tokenizer, rendered)):
        if 1 not in mask:
            skipped["answers without a token"] += 1
            continue
        if tokens[-1] != eos or not rendered[index][-1].markup:  # a template may have written it
            tokens, mask = [*tokens, eos], [*mask, 1]
        prompt_length = mask.index(1)
        if prompt_length > limit:
            if long_prompt == "skip" or 0 in mask[prompt_length:]:
                skipped[f"prompts longer than {limit} tokens"] += 1
                continue
            cut_prompts += 1
            excess = prompt_length - limit
            tokens, mask = _without_beginning(tokens, excess, start), mask[excess:]
        cut = len(tokens) > max_length
        examples.append(EncodedExample(tokens[:max_length], mask[:max_length], cut))
        indices.append(index)
    if not examples:
        reasons = (
            ", ".join(f"{count} {reason}" for reason, count in skipped.items()) or "none given"
        )
        raise DataError(
            f"no demonstration is left to train on ({reasons}); raise the length limits or set "
            "long_prompt to 'truncate_left'"
        )
    cut_answers = sum(example.cut for example in examples)
    return Encoded(examples, indices, cut_answers, cut_prompts, dict(skipped))


def check_long_prompt(long_prompt: str) -> None:
    """Refuse an unknown way of treating long prompts."""
    if long_prompt not in ("skip", "truncate_left"):
        raise ConfigError(f"long_prompt={long_prompt!r}: expected 'skip' or 'truncate_left'")


def _tokenise(
    tokenizer: Any, rows: Sequence[Sequence[Segment]]
) -> list[tuple[list[int], list[int]]]:
    """Ids and loss mask of each row of segments; the start token first where the tokenizer adds one."""
    start = _start_ids(tokenizer)
    ids_of: dict[bool, dict[str, list[int]]] = {}
    for markup in (False, True):
        texts = list(dict.fromkeys(s.text for row in rows for s in row if s.markup == markup))
        ids_of[markup] = dict(zip(texts, _ids(tokenizer, texts, special=markup), strict=True))
    result = []
    for row in rows:
        ids = [] if row[0].markup else list(start)  # a chat template writes it itself
        mask = [0] * len(ids)
        for segment in row:
            piece = ids_of[segment.markup][segment.text]
            ids += piece
            mask += [int(segment.trained)] * len(piece)
        result.append((ids, mask))
    return result


def _without_beginning(tokens: list[int], excess: int, start: list[int]) -> list[int]:
    """Take `excess` tokens off the front (none if not positive), but keep the start token there."""
    if excess <= 0:
        return tokens
    kept = start if start and tokens[: len(start)] == start else []
    return kept + tokens[excess + len(kept) :]


def _ids(tokenizer: Any, texts: list[str], *, special: bool) -> list[list[int]]:
    if not texts:
        return []
    encoded = tokenizer(
        texts,
        add_special_tokens=False,
        split_special_tokens=not special,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    return [list(ids) for ids in encoded["input_ids"]]


def _start_ids(tokenizer: Any) -> list[int]:
    """The start token, for tokenizers that put one before every text (Llama does, GPT-2 does not)."""
    bos = tokenizer.bos_token_id
    first = list(tokenizer("a", verbose=False)["input_ids"])[:1]
    return first if bos is not None and first == [bos] else []
