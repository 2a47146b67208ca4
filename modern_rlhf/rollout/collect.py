"""From prompts to scored episodes: sample, decode, score, mark what could not be scored.

Text is decoded from the tokens up to the stop token and handed to the reward as text, so a reward
model may use any tokenizer of its own (D39) and nothing after the stop can be seen (D12). A text that
was sampled several times for a prompt is scored once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from modern_rlhf.errors import TrainingError
from modern_rlhf.records import Prompt
from modern_rlhf.rewards.base import Reward, RewardBatch, RewardScores
from modern_rlhf.rollout.types import Generation, GenerationEngine, RolloutBatch, Share


def decode_response(
    tokenizer: Any, generation: Generation, stop_strings: Sequence[str] = ()
) -> str:
    """The response as text, without its stop token or what begins at the first stop string."""
    text = str(tokenizer.decode(generation.token_ids, skip_special_tokens=True))
    return text[
        : min((text.find(stop) for stop in stop_strings if stop in text), default=len(text))
    ]


def score_once(reward: Reward, prompts: Sequence[Prompt], texts: Sequence[str]) -> RewardScores:
    """Scores of B responses, each different text of a prompt handed to the reward once.

    Raises:
        TrainingError: the reward returned another number of scores than it was given responses.
    """
    number: dict[tuple[int, str], int] = {}
    chosen: list[int] = []
    for index, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
        if (id(prompt), text) not in number:
            number[id(prompt), text] = len(chosen)
            chosen.append(index)
    place = [number[id(prompt), text] for prompt, text in zip(prompts, texts, strict=True)]
    found = reward.score(
        RewardBatch(prompts=[prompts[i] for i in chosen], responses=[texts[i] for i in chosen])
    )
    if len(found.total) != len(chosen):
        raise TrainingError(
            f"the reward {reward.name!r} returned {len(found.total)} scores for {len(chosen)} "
            "responses; it must return one for each (None where it cannot score)"
        )

    def spread(values: Sequence[Any]) -> list[Any]:
        return [values[index] for index in place]

    return RewardScores(
        total=spread(found.total),
        components={name: spread(values) for name, values in found.components.items()},
        details={name: spread(values) for name, values in found.details.items()},
    )


def collect(
    prompts: Sequence[Prompt],
    prompt_ids: Sequence[list[int]],
    *,
    engine: GenerationEngine,
    tokenizer: Any,
    reward: Reward,
    samples_per_prompt: int,
    max_new_tokens: int,
    temperature: float,
    generator: torch.Generator,
    share: Share | None = None,
    stop_strings: Sequence[str] = (),
) -> RolloutBatch:
    """Sample G responses for each of P prompts and score them: B = P x G episodes.

    `share` says which of the prompts of all processes these are; `stop_strings` are the engine's, and
    are cut off the texts.

    Raises:
        TrainingError: the reward did not score every response.
    """
    generations = engine.generate(
        prompt_ids,
        samples_per_prompt=samples_per_prompt,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        generator=generator,
        share=share,
    )
    repeated = [prompt for prompt in prompts for _ in range(samples_per_prompt)]
    texts = [decode_response(tokenizer, generation, stop_strings) for generation in generations]
    scores = score_once(reward, repeated, texts)
    width = max(len(generation.token_ids) for generation in generations)
    sampling_log_probs = torch.zeros(len(texts), width)
    for row, generation in enumerate(generations):
        sampling_log_probs[row, : len(generation.log_probs)] = torch.tensor(generation.log_probs)
    return RolloutBatch(
        prompts=repeated,
        prompt_ids=[list(ids) for ids in prompt_ids for _ in range(samples_per_prompt)],
        response_ids=[generation.token_ids for generation in generations],
        texts=texts,
        finished=[generation.finished for generation in generations],
        scores=scores,
        valid=torch.tensor([score is not None for score in scores.total]),
        sampling_log_probs=sampling_log_probs,
    )
