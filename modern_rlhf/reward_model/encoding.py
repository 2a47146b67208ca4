"""How a (prompt, response) pair becomes token ids: one path for training, scoring and the cache.

Query and response are tokenised apart by the reward model's own tokenizer and laid into a fixed frame
of ids (D1, D39): `before prompt between response after`. For an encoder the frame is what the tokenizer
itself puts around a text pair (`<s> prompt </s></s> response </s>`); for a decoder it is its chat
template, or `prompt <newline> response <eos>` where it has none. Tokenising the parts apart means that
truncation can never eat a special token, and that the response's ids don't depend on the prompt.

Rows are right-padded and masks come from lengths, never from `id == pad` (D7: pad may equal eos). Text
that spells a special token is read as plain text, so a response can't close its own turn.

Knows nothing of models, heads or losses.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from modern_rlhf.data_loader.template import chat_text
from modern_rlhf.errors import DataError, ModelError
from modern_rlhf.reward_model.text_features import text_features

LOGGER = logging.getLogger(__name__)

TemplateName = Literal["auto", "chat", "plain"]

_PROMPT_SLOT, _RESPONSE_SLOT = "PROMPTxSLOTx7391", "RESPONSExSLOTx7391"
_SURROGATE = re.compile(r"[\ud800-\udfff]")

# These number positions from `pad_token_id + 1`, so fewer than `max_position_embeddings` are usable.
_OFFSET_POSITIONS = frozenset(
    {
        "camembert",
        "data2vec-text",
        "esm",
        "ibert",
        "lilt",
        "longformer",
        "luke",
        "markuplm",
        "mpnet",
        "roberta",
        "roberta-prelayernorm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    }
)

DEFAULT_MAX_LENGTH = 512


@dataclass(frozen=True)
class PairBatch:
    """B encoded pairs, right-padded to the longest.

    Attributes:
        input_ids: (B, T) int64.
        attention_mask: (B, T) int64, made from `lengths`.
        lengths: (B,) int64, real tokens of each row, at least 1.
        token_type_ids: (B, T) int64 where the tokenizer tells the two texts apart, else None.
        text: (B, S) float32 features of the whole texts, where the model has them (`text_features`).
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    lengths: torch.Tensor
    token_type_ids: torch.Tensor | None = None
    text: torch.Tensor | None = None

    def to(self, device: torch.device | str) -> PairBatch:
        types = self.token_type_ids
        return PairBatch(
            input_ids=self.input_ids.to(device),
            attention_mask=self.attention_mask.to(device),
            lengths=self.lengths.to(device),
            token_type_ids=None if types is None else types.to(device),
            text=None if self.text is None else self.text.to(device),
        )


@dataclass(frozen=True)
class Frame:
    """The fixed ids around a pair, and the token types of its five parts (None: no types)."""

    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]
    types: tuple[int, int, int, int, int] | None = None

    @property
    def size(self) -> int:
        return len(self.before) + len(self.between) + len(self.after)


def aligned(prompts: Iterable[str], responses: Iterable[str]) -> tuple[list[str], list[str]]:
    """Prompts and responses as two lists (of a column of a table, say), one response for each prompt.

    Raises:
        DataError: a single text in place of a list, which would be read letter by letter, something
            that is no text, or lists of different lengths.
    """
    lists = []
    for name, texts in (("prompts", prompts), ("responses", responses)):
        if isinstance(texts, str):
            raise DataError(f"{name} is one text: give a list of texts, here [{texts[:40]!r}]")
        lists.append(list(texts))
        for i, text in enumerate(lists[-1]):
            if not isinstance(text, str):
                raise DataError(f"{name}[{i}] is {text!r:.80}: expected text")
    if len(lists[0]) != len(lists[1]):
        raise DataError(f"{len(lists[0])} prompts for {len(lists[1])} responses: give one each")
    return lists[0], lists[1]


class PairEncoder:
    """Encodes pairs with one tokenizer and one frame; the tokenizer is read, never changed (D37).

    Args:
        tokenizer: a Hugging Face tokenizer that has a pad token.
        kind: `encoder` or `decoder`.
        max_length: longest encoded pair. When a pair is longer the response keeps at least half of
            the room and the prompt its beginning (titles and intents stand first).
        template: `chat`, `plain`, or `auto` (chat where the tokenizer has a template; decoders only).
        text_features: compute the features of the texts too.

    Raises:
        ModelError: no pad token, `max_length` too short, or a chat template that hides its content.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        kind: Literal["encoder", "decoder"],
        max_length: int,
        template: TemplateName = "auto",
        text_features: bool = False,
    ) -> None:
        if tokenizer.pad_token_id is None:
            raise ModelError("the reward model's tokenizer has no pad token: set one before")
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.text_features = text_features
        self.pad_id = int(tokenizer.pad_token_id)
        self.frame = (
            encoder_frame(tokenizer) if kind == "encoder" else decoder_frame(tokenizer, template)
        )
        if max_length < self.frame.size + 2:
            raise ModelError(
                f"max_length={max_length} leaves no room for text: the special tokens of this reward "
                f"model take {self.frame.size}; use at least {self.frame.size + 16}"
            )

    def rows(self, prompts: Sequence[str], responses: Sequence[str]) -> list[EncodedRow]:
        """B pairs as ids without padding. Raises `DataError` as `aligned` does."""
        prompts, responses = aligned(prompts, responses)
        texts: Sequence[torch.Tensor | None] = [None] * len(prompts)
        if self.text_features:
            texts = list(text_features(prompts, responses))
        return [
            self._row(*row)
            for row in zip(self.text_ids(prompts), self.text_ids(responses), texts, strict=True)
        ]

    def warn_of_cut(self, parts: Collection[tuple[Sequence[str], Sequence[str]]]) -> None:
        """Say in the log how many texts of all (prompts, responses) lose tokens, if any do."""
        room = self.max_length - self.frame.size
        cut = [
            len(prompt) + len(response) > room
            for prompts, responses in parts
            for prompt, response in zip(
                self.text_ids(prompts), self.text_ids(responses), strict=True
            )
        ]
        if any(cut):
            LOGGER.warning(
                "reward model: %d of %d training texts are cut to %d tokens (reward.reward_max_length)",
                sum(cut),
                len(cut),
                self.max_length,
            )

    def encode(self, prompts: Sequence[str], responses: Sequence[str]) -> PairBatch:
        """B pairs as one padded batch on the CPU."""
        return self.collate(self.rows(prompts, responses))

    def collate(self, rows: Sequence[EncodedRow]) -> PairBatch:
        """Right-pad `rows` (at least one) to the longest."""
        if not rows:
            raise DataError("no pair to encode: the lists of prompts and responses are empty")
        lengths = torch.tensor([len(row.ids) for row in rows])
        width = int(lengths.max())
        ids = torch.full((len(rows), width), self.pad_id)
        types = None if self.frame.types is None else torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row.ids)] = torch.tensor(row.ids)
            if types is not None:
                types[i, : len(row.ids)] = torch.tensor(row.types)
        return PairBatch(
            input_ids=ids,
            attention_mask=(torch.arange(width)[None, :] < lengths[:, None]).long(),
            lengths=lengths,
            token_type_ids=types,
            text=torch.stack([row.text for row in rows]) if self.text_features else None,
        )

    def text_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of plain texts: no special tokens are added and none are recognised.

        Lone surrogates, which JSON can hold and tokenizers refuse, are read as U+FFFD.
        """
        if not texts:
            return []
        encoded = self.tokenizer(
            [text if text.isascii() else _SURROGATE.sub("\ufffd", text) for text in texts],
            add_special_tokens=False,
            split_special_tokens=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        return [list(ids) for ids in encoded["input_ids"]]

    def _row(self, prompt: list[int], response: list[int], text: torch.Tensor | None) -> EncodedRow:
        room = self.max_length - self.frame.size
        if len(prompt) + len(response) > room:
            response = response[: max(room - len(prompt), (room + 1) // 2)]
            prompt = prompt[: room - len(response)]
        frame = self.frame
        parts = (frame.before, prompt, frame.between, response, frame.after)
        types = frame.types or (0, 0, 0, 0, 0)
        return EncodedRow(
            # Without a frame (no end token, a newline that is no token) two empty texts have no token.
            ids=[token for part in parts for token in part] or [self.pad_id],
            types=[kind for part, kind in zip(parts, types, strict=True) for _ in part] or [0],
            text=text,
        )


@dataclass(frozen=True)
class EncodedRow:
    """One pair as ids: `ids` and `types` have the same length."""

    ids: list[int]
    types: list[int]
    text: torch.Tensor | None


def encoder_frame(tokenizer: Any) -> Frame:
    """What the tokenizer itself puts around the pair ("a", "b"), read off a trial encoding."""
    if not tokenizer.is_fast:
        raise ModelError(
            f"the reward model's tokenizer ({type(tokenizer).__name__}) does not say which tokens it puts "
            "around a pair of texts: use a backbone with a fast tokenizer (a tokenizer.json)"
        )
    trial = tokenizer("a", "b", return_token_type_ids=True)
    ids, owners = list(trial["input_ids"]), list(trial.sequence_ids(0))
    first = [i for i, owner in enumerate(owners) if owner == 0]
    second = [i for i, owner in enumerate(owners) if owner == 1]
    if not first or not second or first[-1] > second[0]:
        raise ModelError("the reward model's tokenizer does not encode a pair of texts in order")
    cuts = (slice(0, first[0]), slice(first[-1] + 1, second[0]), slice(second[-1] + 1, None))
    types = None
    if "token_type_ids" in tokenizer.model_input_names:
        at = list(trial["token_type_ids"])
        kinds = [at[0], at[first[0]], at[first[-1] + 1 : second[0]], at[second[0]], at[-1]]
        middle = kinds[2][0] if kinds[2] else kinds[3]
        types = (kinds[0], kinds[1], middle, kinds[3], kinds[4])
    before, between, after = (tuple(ids[cut]) for cut in cuts)
    return Frame(before=before, between=between, after=after, types=types)


def decoder_frame(tokenizer: Any, template: TemplateName) -> Frame:
    """The frame of a causal model: its chat template, or `[bos] prompt <newline> response [eos]`."""
    if template == "auto":
        template = "chat" if tokenizer.chat_template else "plain"
    if template == "plain":
        special = list(tokenizer("a")["input_ids"])
        bos = tokenizer.bos_token_id
        before = (bos,) if bos is not None and special[:1] == [bos] else ()
        newline = tuple(tokenizer("\n", add_special_tokens=False)["input_ids"])
        eos = tokenizer.eos_token_id
        return Frame(before=before, between=newline, after=() if eos is None else (eos,))
    if not tokenizer.chat_template:
        raise ModelError("template='chat' was asked for, but the tokenizer has no chat template")
    turns = [
        {"role": "user", "content": _PROMPT_SLOT},
        {"role": "assistant", "content": _RESPONSE_SLOT},
    ]
    text = chat_text(tokenizer, turns)
    before, found_prompt, rest = text.partition(_PROMPT_SLOT)
    between, found_response, after = rest.partition(_RESPONSE_SLOT)
    if not found_prompt or not found_response:
        raise ModelError(
            "the chat template of the reward model's tokenizer does not show the user's or the "
            "assistant's text: use template='plain'"
        )
    # The score is read at the last token: that is the end-of-turn mark, not the newline after it.
    parts = (before, between, after.rstrip())
    ids = (tokenizer(part, add_special_tokens=False)["input_ids"] if part else [] for part in parts)
    return Frame(*(tuple(part) for part in ids))


def length_limit(config: Any, tokenizer: Any) -> int | None:
    """Longest input the backbone can take in tokens, or None when neither of the two says."""
    limits = []
    positions = getattr(config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        offset = config.model_type in _OFFSET_POSITIONS
        limits.append(positions - (config.pad_token_id or 0) - 1 if offset else positions)
    if tokenizer.model_max_length < 10**9:  # transformers writes 1e30 for "unknown"
        limits.append(int(tokenizer.model_max_length))
    return min(limits) if limits else None


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """Hex digest of what decides a tokenizer's ids: backend (merges, rules) or vocabulary, specials."""
    digest = hashlib.sha256()
    backend = getattr(tokenizer, "backend_tokenizer", None)
    body = backend.to_str() if backend is not None else repr(sorted(tokenizer.get_vocab().items()))
    for part in (
        type(tokenizer).__name__,
        body,
        repr(sorted(tokenizer.special_tokens_map.items())),
    ):
        digest.update(part.encode("utf-8", "backslashreplace") + b"\0")
    return digest.hexdigest()
