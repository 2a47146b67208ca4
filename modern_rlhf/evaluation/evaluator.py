"""The one evaluation: generate, extract, execute, score.

Every stage, the periodic in-training evaluation and the command line call `evaluate_policy`, so a
number means the same everywhere. Answers are greedy (k more, drawn at temperature 1, give the sampled
pass rates and the KL to another policy); all models answer the same items, so differences are paired.
Evaluation items come with the tests of the evaluation set, never with training tests.
This file knows models and metrics, not training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modern_rlhf.data_loader.evaluation_set import EvaluationSet
from modern_rlhf.errors import MetricError
from modern_rlhf.evaluation.answers import Answerer
from modern_rlhf.evaluation.results import PolicyEvaluation, five_fields, rates_by_split
from modern_rlhf.evaluation.scoring import (
    groups,
    hack_watch,
    mean,
    perplexity_of_references,
    sampled_rates,
)
from modern_rlhf.metrics.evaluator import ALL_METRICS, ModernMetricsEvaluator
from modern_rlhf.rewards.base import Reward, RewardBatch
from modern_rlhf.rollout.types import Generation
from modern_rlhf.trainer.runtime import Runtime

PERPLEXITY = "perplexity"
METRICS = (*ALL_METRICS, PERPLEXITY)
"""Everything the final evaluation and the command line measure. `perplexity` is that of the references,
which needs the policy itself; all others are made of its answers."""

PERIODIC_METRICS = ("pass_at_1", "bleu", "rouge", "codebleu", "ruby", "bertscore", "syntax_valid")


@dataclass
class Evaluator:
    """How policies are evaluated: the settings that stay the same for all of them.

    Attributes:
        executor: runs programs against tests; None leaves pass rates without a value.
        reward: the composite reward, to report what training optimised beside what it did not.
        max_prompt_tokens, max_response_tokens: longer prompts lose their beginning here (nothing is
            dropped from an evaluation), longer answers are cut.
        metrics: names to compute.
    """

    runtime: Runtime
    executor: Any
    max_prompt_tokens: int
    max_response_tokens: int
    bertscore_model: str | None = None
    bootstrap_samples: int = 1000
    seed: int = 0
    prompt_style: str = "auto"
    system_prompt: str | None = None
    tokens_per_micro_batch: int = 4096
    reward: Reward | None = None
    stop_strings: Sequence[str] = ()
    metrics: Sequence[str] = METRICS

    def evaluate_policy(
        self,
        lm: Any,
        tokenizer: Any,
        items: EvaluationSet,
        *,
        metrics: Sequence[str] | None = None,
        sampled: int = 0,
        kl_to: Any = None,
        keep: Path | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> PolicyEvaluation:
        """Answer every item greedily and measure.

        Each process answers its share of the items; the main one measures all of them.

        Args:
            metrics: names to compute instead of the evaluator's.
            sampled: also draw k answers an item at temperature 1, for `pass_at_1_sampled` and (k
                above 1) `pass_at_<k>`.
            kl_to: a reference policy; `kl` is then the mean summed log-ratio of the sampled answers.
            keep: file that answers are written to as they are made, and read from when a killed
                evaluation is begun again; its name must say what decides the answers.
            progress: called with the number of answers just finished.

        Raises:
            DataError: a prompt could not be encoded.
            MetricError: an unknown metric, or `kl_to` without `sampled`.
        """
        if kl_to is not None and not sampled:
            raise MetricError("the KL is measured on sampled answers; draw at least 1 an item")
        names = tuple(metrics or self.metrics)
        measure = ModernMetricsEvaluator(
            metrics=[name for name in names if name != PERPLEXITY],
            bertscore_model=self.bertscore_model,
            executor=self.executor,
            bootstrap_samples=self.bootstrap_samples,
            seed=self.seed,
            device=str(self.runtime.device),
        )
        answerer = Answerer(
            lm,
            tokenizer,
            runtime=self.runtime,
            max_prompt_tokens=self.max_prompt_tokens,
            max_response_tokens=self.max_response_tokens,
            prompt_style=self.prompt_style,
            system_prompt=self.system_prompt,
            stop_strings=self.stop_strings,
            seed=self.seed,
        )
        prompt_ids = answerer.encode(items.prompts)

        def answer(samples: int, temperature: float) -> list[Generation]:
            return answerer.answer(
                prompt_ids, samples=samples, temperature=temperature, keep=keep, progress=progress
            )

        greedy = answer(1, 0.0)
        drawn = answer(sampled, 1.0) if sampled else []

        def measured() -> PolicyEvaluation:
            # 1. Greedy answers and every metric of them.
            answers = answerer.decode(greedy)
            report = measure.evaluate(answers, items.references, items.prompts, items.tasks)
            if PERPLEXITY in names:
                report.results[PERPLEXITY] = perplexity_of_references(
                    answerer, items, samples=self.bootstrap_samples, seed=self.seed
                )
            # 2. Sampled answers: pass rates, signs of hacking, distance to the reference policy.
            texts = answerer.decode(drawn)
            extra: dict[str, list[float | None]] = {}
            watch: dict[str, Any] = {}
            if sampled and any(task is not None for task in items.tasks):
                rates, codes = sampled_rates(items, texts, sampled, executor=self.executor)
                extra |= rates
                watch = hack_watch(
                    answerer,
                    report.predictions + codes,
                    pass_rate=report["pass_at_1"].value if "pass_at_1" in report else None,
                    executor=self.executor,
                )
            if kl_to is not None:
                ratios = answerer.log_ratios(
                    kl_to,
                    [ids for ids in prompt_ids for _ in range(sampled)],
                    drawn,
                    tokens_per_micro_batch=self.tokens_per_micro_batch,
                )
                extra["kl"] = [mean(group) for group in groups(ratios, sampled)]
            # 3. What training optimised, beside what it did not.
            extra |= self._rewards(items, answers)
            return self._evaluation(
                items, answers, groups(texts, sampled) if sampled else [], report, extra, watch
            )

        return self.runtime.processes.on_main(measured)

    def _rewards(
        self, items: EvaluationSet, answers: Sequence[str]
    ) -> dict[str, list[float | None]]:
        """The reward of every answer and its components, where there is a reward."""
        if self.reward is None:
            return {}
        scores = self.reward.score(RewardBatch(prompts=items.items, responses=list(answers)))
        parts = {f"reward_{name}": list(one) for name, one in scores.components.items()}
        return {"reward": list(scores.total), **parts}

    def _evaluation(
        self,
        items: EvaluationSet,
        answers: list[str],
        samples: list[list[str]],
        report: Any,
        extra: dict[str, list[float | None]],
        watch: dict[str, Any],
    ) -> PolicyEvaluation:
        """All of it, with means, intervals and rates by split."""
        resampling = {"samples": self.bootstrap_samples, "seed": self.seed}
        return PolicyEvaluation(
            answers=answers,
            samples=samples,
            report=report,
            by_split=rates_by_split(items.splits, report, extra, **resampling),
            extra={
                name: five_fields(values, rate=name.startswith("pass_at"), **resampling)
                for name, values in extra.items()
            },
            extra_items=extra,
            hack_watch=watch,
        )
