"""A causal model as a rater: an expected 1-5 rating from its own probabilities of the five digits.

The model is shown question and answer and asked for a rating; its next-token probabilities of 1..5 are
renormalised and their mean is the rating. No text is sampled or parsed and no random number is drawn, so
the same model gives the same rating. `digit_mass` says how much probability the digits had at all: near
0 the model did not understand the question, and the rating means little.

What comes out is marked synthetic and kept apart from people's ratings; `agreement` measures how far the
two agree where both exist. Knows nothing of folders: rows go to `feedback.store`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from modern_rlhf.data_loader.splits import group_id_of
from modern_rlhf.data_loader.template import chat_text
from modern_rlhf.errors import DataError, ModelError
from modern_rlhf.models.loading import context_length
from modern_rlhf.records import Rating
from modern_rlhf.reward_model.statistics import correlation

INSTRUCTION = (
    "Rate how well the answer solves the programming question, from 1 (useless) to 5 (excellent).\n\n"
    "Question:\n{prompt}\n\nAnswer:\n{response}\n\n"
)
CUE = "Rating (1-5):"
_SLOT = "RATINGxSLOTx7391"
_DIGITS = ("1", "2", "3", "4", "5")


@dataclass(frozen=True)
class SyntheticRating:
    """One answer's rating.

    Attributes:
        expected: mean rating, 1..5.
        probabilities: of the levels 1..5, summing to 1.
        digit_mass: probability of the five digits together before they were renormalised.
    """

    expected: float
    probabilities: tuple[float, ...]
    digit_mass: float


class SyntheticRater:
    """Rates answers with a causal language model.

    Args:
        model: a causal language model (its `logits` are read), used in eval mode.
        tokenizer: the model's, with a pad token; read, never changed. With a chat template the
            question is the user's turn and the cue begins the assistant's.
        name: what `rater` says in the records, as `synthetic:<name>`.
        max_length: tokens of the whole question; long prompts lose their end, long answers too,
            the instruction never. Default: what the model takes, 1024 at most.

    Raises:
        ModelError: the tokenizer has no token that is one of the digits 1 to 5.
    """

    def __init__(
        self, model: Any, tokenizer: Any, *, name: str, max_length: int | None = None
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.name = name
        self.max_length = max_length or min(1024, context_length(model, tokenizer))
        self.digit_ids = digit_ids(tokenizer)
        # Where " 3" is two tokens the model says the space first: reading digits before it would find
        # almost no probability on them (0.001 instead of most of it with SmolLM2).
        spaced = all(len(ids_of(tokenizer, f" {digit}")) == 1 for digit in _DIGITS)
        self.cue = CUE if spaced else f"{CUE} "
        self.frame = _frame(tokenizer, self.cue)
        fixed = sum(len(part) for part in self.frame)
        if self.max_length < fixed + 16:
            raise ModelError(
                f"max_length={self.max_length} is too short to ask for a rating: the instruction alone "
                f"takes {fixed} tokens"
            )

    def rate(
        self, prompts: Sequence[str], responses: Sequence[str], *, batch_size: int = 8
    ) -> list[SyntheticRating]:
        """One rating for each of N answers, in order.

        Raises:
            DataError: the lists differ in length. ModelError: the model computes NaN.
        """
        if len(prompts) != len(responses):
            raise DataError(f"{len(prompts)} prompts for {len(responses)} responses: give one each")
        rows = [
            self._row(p, r) for p, r in zip(self._ids(prompts), self._ids(responses), strict=True)
        ]
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
        found: dict[int, SyntheticRating] = {}
        was_training = self.model.training
        self.model.eval()
        try:
            for start in range(0, len(order), batch_size):
                part = order[start : start + batch_size]
                found.update(zip(part, self._rate_rows([rows[i] for i in part]), strict=True))
        finally:
            self.model.train(was_training)
        return [found[i] for i in range(len(rows))]

    def rows(
        self, prompts: Sequence[str], responses: Sequence[str], *, batch_size: int = 8
    ) -> list[dict[str, Any]]:
        """The same in the rating-list shape `{id, prompt, response, rating, comment, ...}` of a file."""
        rated = self.rate(prompts, responses, batch_size=batch_size)
        return [
            {
                "id": index,
                "prompt": prompt,
                "response": response,
                "rating": one.expected,
                "comment": f"expected rating of {self.name}; no person rated this",
                "probabilities": list(one.probabilities),
                "digit_mass": one.digit_mass,
                "rater": f"synthetic:{self.name}",
                "synthetic": True,
            }
            for index, (prompt, response, one) in enumerate(
                zip(prompts, responses, rated, strict=True)
            )
        ]

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        encoded = self.tokenizer(
            list(texts), add_special_tokens=False, split_special_tokens=True, verbose=False
        )
        return [list(ids) for ids in encoded["input_ids"]]

    def _row(self, prompt: list[int], response: list[int]) -> list[int]:
        before, between, after = self.frame
        room = self.max_length - len(before) - len(between) - len(after)
        if len(prompt) + len(response) > room:
            response = response[: max(room - len(prompt), room // 2)]
            prompt = prompt[: room - len(response)]
        return [*before, *prompt, *between, *response, *after]

    @torch.no_grad()
    def _rate_rows(self, rows: list[list[int]]) -> list[SyntheticRating]:
        # Left padding puts every next-token position last, so the head runs on one position a row.
        device = next(self.model.parameters()).device
        width = max(len(row) for row in rows)
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=device)
        lengths = torch.tensor([len(row) for row in rows], device=device)
        mask = (torch.arange(width, device=device) >= width - lengths[:, None]).long()
        logits = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=mask.cumsum(-1) - mask,  # D8
            use_cache=False,
            logits_to_keep=1,
        ).logits[:, -1]
        logits = logits.cpu().double()  # not every device has float64
        # In logarithms: a model may be so sure of other words that the digits' own probabilities
        # underflow, and yet prefer one of them.
        by_level = torch.stack(
            [logits[:, ids_of_digit].logsumexp(-1) for ids_of_digit in self.digit_ids], dim=-1
        )
        mass = (by_level.logsumexp(-1) - logits.logsumexp(-1)).exp()
        shares = by_level.softmax(-1)
        if not bool(torch.isfinite(shares).all()):
            raise ModelError(
                f"the synthetic rater {self.name!r} computes NaN: choose another model"
            )
        levels = torch.arange(1, 6, dtype=torch.float64)
        return [
            SyntheticRating(expected, tuple(share), total)
            for expected, share, total in zip(
                (shares @ levels).tolist(), shares.tolist(), mass.tolist(), strict=True
            )
        ]


def digit_ids(tokenizer: Any) -> list[list[int]]:
    """For each of the digits 1..5, the ids of single tokens that spell it, with a space before or not.

    Raises:
        ModelError: a digit has no token of its own.
    """
    found = []
    for digit in _DIGITS:
        ids = set()
        for text in (digit, f" {digit}"):
            tokens = ids_of(tokenizer, text)
            if len(tokens) == 1 and tokenizer.decode(tokens).strip() == digit:
                ids.add(tokens[0])
        if not ids:
            raise ModelError(
                f"the synthetic rater's tokenizer has no single token for {digit!r}: choose another "
                "synth_feedback_model_name"
            )
        found.append(sorted(ids))
    return found


def agreement(synthetic: Sequence[Rating], real: Sequence[Rating]) -> dict[str, Any]:
    """How well synthetic ratings agree with people's, on the answers that have both.

    Several ratings of one answer are averaged, each by its `overall`. Returns `statistics.correlation`'s
    dict, its bounds over the questions of `real`, plus `mean_absolute_error` (None without common answers).
    """
    ours, theirs = _by_answer(synthetic), _by_answer(real)
    common = [key for key in theirs if key in ours]
    x, y = [ours[key] for key in common], [theirs[key] for key in common]
    error = sum(abs(a - b) for a, b in zip(x, y, strict=True)) / len(common) if common else None
    groups = {(rating.prompt, rating.response): group_id_of(rating) for rating in real}
    found = correlation(x, y, [groups[key] for key in common])
    return {**found, "mean_absolute_error": error}


def _by_answer(ratings: Sequence[Rating]) -> Mapping[tuple[str, str], float]:
    seen: dict[tuple[str, str], list[float]] = {}
    for rating in ratings:
        seen.setdefault((rating.prompt, rating.response), []).append(rating.overall)
    return {key: sum(values) / len(values) for key, values in seen.items()}


def ids_of(tokenizer: Any, text: str) -> list[int]:
    """Ids of a plain text."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _frame(tokenizer: Any, cue: str) -> tuple[list[int], list[int], list[int]]:
    """Ids before the question, between question and answer, and after the answer up to the cue."""
    text = INSTRUCTION.format(prompt=_SLOT + "P", response=_SLOT + "R")
    if tokenizer.chat_template:
        turns = [{"role": "user", "content": text.rstrip()}]
        text = chat_text(tokenizer, turns, answer_follows=True)
    elif tokenizer.bos_token and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]:
        text = tokenizer.bos_token + text
    before, found_prompt, rest = (text + cue).partition(_SLOT + "P")
    between, found_response, after = rest.partition(_SLOT + "R")
    if not found_prompt or not found_response:
        raise ModelError("the chat template of the synthetic rater hides the user's text")
    parts = (before, between, after)
    return ids_of(tokenizer, parts[0]), ids_of(tokenizer, parts[1]), ids_of(tokenizer, parts[2])
