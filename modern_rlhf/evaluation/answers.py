"""A policy's answers to evaluation prompts: encoded, generated in parts that survive a kill, decoded.

Knows models and engines, no metric. Prompts come from outside and none is dropped: a long one loses its
beginning. Where several processes evaluate together each answers its share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from modern_rlhf.data_loader.encoding import encode_prompts
from modern_rlhf.errors import DataError
from modern_rlhf.models.forward import Policy, make_sequences
from modern_rlhf.rollout.collect import decode_response
from modern_rlhf.rollout.resumable import ROWS_AT_ONCE, generate_in_parts
from modern_rlhf.rollout.sampling import sampling_engine
from modern_rlhf.rollout.types import Generation, Share
from modern_rlhf.trainer.loop import micro_batches
from modern_rlhf.trainer.runtime import Runtime


class Answerer:
    """One policy with everything that decides its answers.

    Args:
        lm, tokenizer: the policy.
        max_prompt_tokens, max_response_tokens: longer prompts lose their beginning, longer answers
            are cut.
        stop_strings: end an answer, and are no part of it.
        seed: of the sampled answers.
    """

    def __init__(
        self,
        lm: Any,
        tokenizer: Any,
        *,
        runtime: Runtime,
        max_prompt_tokens: int,
        max_response_tokens: int,
        prompt_style: str = "auto",
        system_prompt: str | None = None,
        stop_strings: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        self.lm = lm
        self.tokenizer = tokenizer
        self.runtime = runtime
        self.max_prompt_tokens = max_prompt_tokens
        self.max_response_tokens = max_response_tokens
        self.prompt_style = prompt_style
        self.system_prompt = system_prompt
        self.stop_strings = stop_strings
        self.seed = seed
        self.engine = sampling_engine(
            lm,
            tokenizer,
            dtype=runtime.compute_dtype,
            stop_strings=stop_strings,
            max_rows=ROWS_AT_ONCE,
        )

    def encode(self, prompts: Sequence[str]) -> list[list[int]]:
        """Rendered token ids of every prompt; none is dropped.

        Raises:
            DataError: a prompt could not be encoded.
        """
        encoded = encode_prompts(
            self.tokenizer,
            list(prompts),
            max_length=self.max_prompt_tokens,
            style=self.prompt_style,  # type: ignore[arg-type]
            system=self.system_prompt,
            long_prompt="truncate_left",
        )
        if len(encoded.input_ids) != len(prompts):
            raise DataError(
                f"{len(prompts) - len(encoded.input_ids)} of {len(prompts)} evaluation prompts could "
                f"not be encoded: {encoded.skipped}"
            )
        return encoded.input_ids

    def answer(
        self,
        prompt_ids: Sequence[list[int]],
        *,
        samples: int,
        temperature: float,
        keep: Path | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> list[Generation]:
        """N prompts -> N x `samples` generations in order; all processes together make them.

        Args:
            temperature: 0 is greedy.
            keep: file that answers are written to as they are made, and read from when a killed
                evaluation is begun again; its name must say what decides the answers.
            progress: called with the number of answers just finished.
        """
        processes = self.runtime.processes
        mine = processes.share(len(prompt_ids))
        if keep is not None and processes.count > 1:
            keep = keep.with_name(f"{keep.stem}-{processes.rank}-of-{processes.count}{keep.suffix}")
        part = generate_in_parts(
            self.engine,
            [prompt_ids[place] for place in mine],
            samples_per_prompt=samples,
            max_new_tokens=self.max_response_tokens,
            temperature=temperature,
            seed=self.seed,
            keep=keep,
            name="sampled" if temperature else "greedy",
            progress=progress,
            share=Share(mine, len(prompt_ids)),
        )
        return [one for other in processes.gather(part) for one in other]

    def quick(self, prompts: Sequence[str], *, samples: int) -> list[str]:
        """`samples` answers to each of a few prompts, at temperature 1, by this process alone."""
        drawn = self.engine.generate(
            self.encode(prompts),
            samples_per_prompt=samples,
            max_new_tokens=self.max_response_tokens,
            temperature=1.0,
            generator=torch.Generator().manual_seed(self.seed),
        )
        return self.decode(drawn)

    def decode(self, generations: Sequence[Generation]) -> list[str]:
        """The answers as text."""
        return [decode_response(self.tokenizer, one, self.stop_strings) for one in generations]

    @torch.no_grad()
    def log_ratios(
        self,
        other: Any,
        prompt_ids: Sequence[list[int]],
        answers: Sequence[Generation],
        *,
        tokens_per_micro_batch: int,
    ) -> list[float]:
        """Per answer, sum over its tokens of log p(answer) - log q(answer), nats; q is `other`."""
        policies = [Policy(self.lm), Policy(other)]
        lengths = [len(p) + len(g.token_ids) for p, g in zip(prompt_ids, answers, strict=True)]
        ratios = [0.0] * len(answers)
        for rows in micro_batches(range(len(answers)), lengths, max_tokens=tokens_per_micro_batch):
            sequences = make_sequences(
                [prompt_ids[i] for i in rows],
                [answers[i].token_ids for i in rows],
                pad_id=self.tokenizer.pad_token_id,
            ).to(self.runtime.device)
            with self.runtime.autocast():
                mine, theirs = (policy(sequences).log_probs.sum(1) for policy in policies)
            for row, ratio in zip(rows, (mine - theirs).tolist(), strict=True):
                ratios[row] = ratio
        return ratios
