"""The one evaluation: generate, extract, execute, score, compare.

Every stage, the periodic in-training evaluation and the command line call `evaluate_policy`, so a
number means the same everywhere. Answers are greedy (k more, drawn at temperature 1, give the sampled
pass rates and the KL to another policy); all models answer the same items, so differences are paired.
Evaluation items come with the tests of the evaluation set, never with training tests.
This file knows models and metrics, not training. It is longer than 350 lines because the set, what a
policy did on it and the paired comparison are read together.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from modern_rlhf.data_loader.encoding import encode_demonstrations, encode_prompts
from modern_rlhf.data_loader.evaluation_set import EvaluationSet
from modern_rlhf.errors import DataError, MetricError
from modern_rlhf.metrics.evaluator import ALL_METRICS, ModernMetricsEvaluator
from modern_rlhf.metrics.execution import pass_at_k
from modern_rlhf.metrics.paired import compare_reports
from modern_rlhf.metrics.perplexity import reference_perplexity
from modern_rlhf.metrics.results import MetricResult, MetricsReport
from modern_rlhf.metrics.stats import bootstrap_interval, paired_bootstrap, proportion_interval
from modern_rlhf.models.forward import Policy, make_sequences
from modern_rlhf.records import Demonstration
from modern_rlhf.rewards.base import Reward, RewardBatch
from modern_rlhf.rollout.collect import decode_response
from modern_rlhf.rollout.engine import HuggingFaceEngine
from modern_rlhf.rollout.resumable import ROWS_AT_ONCE, generate_in_parts
from modern_rlhf.rollout.types import Generation, Share
from modern_rlhf.sandbox.hack_watch import impossible_tasks, shares
from modern_rlhf.trainer.inputs import stop_ids
from modern_rlhf.trainer.loop import micro_batches
from modern_rlhf.trainer.runtime import Runtime

T = TypeVar("T")

PERPLEXITY = "perplexity"
METRICS = (*ALL_METRICS, PERPLEXITY)
"""Everything the final evaluation and the command line measure. `perplexity` is that of the references,
which needs the policy itself; all others are made of its answers."""

IMPOSSIBLE_SAMPLES = 4
"""Answers drawn for each impossible task."""
PERIODIC_METRICS = ("pass_at_1", "bleu", "rouge", "codebleu", "ruby", "bertscore", "syntax_valid")


@dataclass(frozen=True)
class PolicyEvaluation:
    """What one policy did on an evaluation set of N items.

    Attributes:
        answers: N greedy answers as text.
        samples: N lists of k answers at temperature 1, or empty.
        report: every metric with interval and per-item scores.
        by_split: per split, `pass_at_1` with interval and n.
        extra: further quantities in the same five fields (`reward`, `kl`, `pass_at_1_sampled`,
            `pass_at_<k>`).
        hack_watch: `signatures`, the share of programs (greedy and sampled) with each signature of
            `sandbox.hack_watch`, their `mean_length` in characters, `pass_rate` of the greedy ones and
            `impossible_pass_rate` (0 unless the judge was fooled); empty where nothing was executed
            or no answers were sampled.
    """

    answers: list[str]
    samples: list[list[str]]
    report: MetricsReport
    by_split: dict[str, dict[str, Any]]
    extra: dict[str, dict[str, Any]] = field(default_factory=dict)
    extra_items: dict[str, list[float | None]] = field(default_factory=dict)
    hack_watch: dict[str, Any] = field(default_factory=dict)

    def summary(self) -> dict[str, dict[str, Any]]:
        """Metrics as `training_results.json` holds them."""
        return {**self.report.summary(), **self.extra}

    def to_dict(self) -> dict[str, Any]:
        return {
            "answers": self.answers,
            "samples": self.samples,
            "report": self.report.to_dict(),
            "by_split": self.by_split,
            "extra": self.extra,
            "extra_items": self.extra_items,
            "hack_watch": self.hack_watch,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PolicyEvaluation:
        """What `to_dict` gave."""
        return cls(
            answers=list(data["answers"]),
            samples=[list(texts) for texts in data.get("samples", [])],
            report=MetricsReport.from_dict(data["report"]),
            by_split=dict(data["by_split"]),
            extra=dict(data["extra"]),
            extra_items=dict(data["extra_items"]),
            hack_watch=dict(data.get("hack_watch", {})),
        )


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
        )
        prompt_ids = self.encode(tokenizer, items.prompts)
        engine = HuggingFaceEngine(
            lm,
            eos_ids=stop_ids(lm, tokenizer),
            pad_id=tokenizer.pad_token_id,
            dtype=self.runtime.compute_dtype,
            stop_strings=self.stop_strings,
            tokenizer=tokenizer,
            max_rows=ROWS_AT_ONCE,
        )

        # Each process answers its share of the items; the main one measures all of them.
        processes = self.runtime.processes
        mine = processes.share(len(prompt_ids))
        if keep is not None and processes.count > 1:
            keep = keep.with_name(f"{keep.stem}-{processes.rank}-of-{processes.count}{keep.suffix}")

        def answer(samples: int, temperature: float) -> list[Generation]:
            part = generate_in_parts(
                engine,
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

        greedy = answer(1, 0.0)
        drawn = answer(sampled, 1.0) if sampled else []
        return processes.on_main(
            lambda: self._measured(
                measure, engine, lm, tokenizer, items, greedy, drawn, names, sampled, kl_to
            )
        )

    def _measured(
        self,
        measure: ModernMetricsEvaluator,
        engine: HuggingFaceEngine,
        lm: Any,
        tokenizer: Any,
        items: EvaluationSet,
        greedy: Sequence[Generation],
        drawn: Sequence[Generation],
        names: Sequence[str],
        sampled: int,
        kl_to: Any,
    ) -> PolicyEvaluation:
        """Everything that is made of the N greedy answers and the N x `sampled` drawn ones."""
        # 1. Greedy answers and every metric of them.
        answers = self._decode(tokenizer, greedy)
        report = measure.evaluate(answers, items.references, items.prompts, items.tasks)
        if PERPLEXITY in names:
            report.results[PERPLEXITY] = self._perplexity(lm, tokenizer, items)
        # 2. Sampled answers: pass rates, signs of hacking, distance to the reference policy.
        extra_items: dict[str, list[float | None]] = {}
        hack_watch: dict[str, Any] = {}
        texts: list[str] = []
        if sampled:
            texts = self._decode(tokenizer, drawn)
            if any(task is not None for task in items.tasks):
                rates, codes = self._sampled_rates(items, texts, sampled)
                extra_items |= rates
                hack_watch = self._watch(engine, tokenizer, report.predictions + codes)
                rate = report["pass_at_1"].value if "pass_at_1" in report else None
                hack_watch["pass_rate"] = rate
            if kl_to is not None:
                prompt_ids = self.encode(tokenizer, items.prompts)
                repeated = [ids for ids in prompt_ids for _ in range(sampled)]
                ratios = self._log_ratios(lm, kl_to, tokenizer, repeated, drawn)
                extra_items["kl"] = [_mean(group) for group in _groups(ratios, sampled)]
        # 3. What training optimised, beside what it did not.
        if self.reward is not None:
            scores = self.reward.score(RewardBatch(prompts=items.items, responses=answers))
            extra_items["reward"] = list(scores.total)
            for name, values in scores.components.items():
                extra_items[f"reward_{name}"] = list(values)
        return PolicyEvaluation(
            answers=answers,
            samples=_groups(texts, sampled) if sampled else [],
            report=report,
            by_split=self._by_split(items, report, extra_items),
            extra={
                name: self._five_fields(values, rate=name.startswith("pass_at"))
                for name, values in extra_items.items()
            },
            extra_items=extra_items,
            hack_watch=hack_watch,
        )

    def _decode(self, tokenizer: Any, generations: Sequence[Generation]) -> list[str]:
        return [decode_response(tokenizer, one, self.stop_strings) for one in generations]

    def _sampled_rates(
        self, items: EvaluationSet, texts: Sequence[str], k: int
    ) -> tuple[dict[str, list[float | None]], list[str]]:
        """Pass rates of k samples an item (pass@1 of one, and pass@k), and the programs in them."""
        repeated = [item for item in items.items for _ in range(k)]
        found = ModernMetricsEvaluator(
            metrics=["pass_at_1"], executor=self.executor, bootstrap_samples=0
        ).evaluate(
            texts,
            [item.reference for item in repeated],
            [item.prompt for item in repeated],
            [item.task for item in repeated],
        )
        groups = _groups(found["pass_at_1"].per_item, k)
        rates = {"pass_at_1_sampled": [_mean(group) for group in groups]}
        if k > 1:
            judged = [[value for value in group if value is not None] for group in groups]
            rates[f"pass_at_{k}"] = [
                pass_at_k(k, round(sum(group)), k) if len(group) == k else None for group in judged
            ]
        return rates, found.predictions

    def _perplexity(self, lm: Any, tokenizer: Any, items: EvaluationSet) -> MetricResult:
        """Perplexity of the references, encoded as answers are for training."""
        known = [
            (place, Demonstration(item.prompt, item.reference))
            for place, item in enumerate(items.items)
            if item.reference and item.reference.strip()
        ]
        prompts: list[list[int]] = [[] for _ in items.items]
        answers: list[list[int] | None] = [None] * len(items)
        if known:
            encoded = encode_demonstrations(
                tokenizer,
                [demonstration for _, demonstration in known],
                max_length=self.max_prompt_tokens + self.max_response_tokens,
                max_prompt_length=self.max_prompt_tokens,
                style=self.prompt_style,  # type: ignore[arg-type]
                system=self.system_prompt,
                long_prompt="truncate_left",
            )
            for index, example in zip(encoded.indices, encoded.examples, strict=True):
                place, begin = known[index][0], example.prompt_length
                prompts[place], answers[place] = (
                    example.input_ids[:begin],
                    example.input_ids[begin:],
                )
        with self.runtime.autocast():
            return reference_perplexity(
                Policy(lm),
                prompts,
                answers,
                pad_id=tokenizer.pad_token_id,
                samples=self.bootstrap_samples,
                seed=self.seed,
            )

    def _watch(
        self,
        engine: HuggingFaceEngine,
        tokenizer: Any,
        codes: Sequence[str],
    ) -> dict[str, Any]:
        """Signatures in the programs of the answers, and the pass rate on impossible tasks."""
        tasks = impossible_tasks()
        drawn = engine.generate(
            self.encode(tokenizer, [task.prompt for task in tasks]),
            samples_per_prompt=IMPOSSIBLE_SAMPLES,
            max_new_tokens=self.max_response_tokens,
            temperature=1.0,
            generator=torch.Generator().manual_seed(self.seed),
        )
        repeated = [task for task in tasks for _ in range(IMPOSSIBLE_SAMPLES)]
        found = ModernMetricsEvaluator(
            metrics=["pass_at_1"], executor=self.executor, bootstrap_samples=0
        ).evaluate(
            self._decode(tokenizer, drawn),
            [None] * len(repeated),
            [task.prompt for task in repeated],
            repeated,
        )
        return {
            "mean_length": sum(map(len, codes)) / max(1, len(codes)),
            "signatures": shares(codes),
            "impossible_pass_rate": found["pass_at_1"].value,
        }

    def encode(self, tokenizer: Any, prompts: Sequence[str]) -> list[list[int]]:
        """Rendered token ids of every prompt; none is dropped.

        Raises:
            DataError: a prompt could not be encoded.
        """
        encoded = encode_prompts(
            tokenizer,
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

    @torch.no_grad()
    def _log_ratios(
        self,
        lm: Any,
        other: Any,
        tokenizer: Any,
        prompt_ids: Sequence[list[int]],
        drawn: Sequence[Generation],
    ) -> list[float]:
        """Per item, sum over tokens of log p(answer) - log q(answer), nats."""
        policies = [Policy(lm), Policy(other)]
        lengths = [len(p) + len(g.token_ids) for p, g in zip(prompt_ids, drawn, strict=True)]
        ratios = [0.0] * len(drawn)
        for rows in micro_batches(
            range(len(drawn)), lengths, max_tokens=self.tokens_per_micro_batch
        ):
            sequences = make_sequences(
                [prompt_ids[i] for i in rows],
                [drawn[i].token_ids for i in rows],
                pad_id=tokenizer.pad_token_id,
            ).to(self.runtime.device)
            with self.runtime.autocast():
                mine, theirs = (policy(sequences).log_probs.sum(1) for policy in policies)
            for row, ratio in zip(rows, (mine - theirs).tolist(), strict=True):
                ratios[row] = ratio
        return ratios

    def _five_fields(self, values: Sequence[float | None], *, rate: bool) -> dict[str, Any]:
        known = [value for value in values if value is not None]
        if not known:
            return {"value": None, "low": None, "high": None, "n": 0, "reason": "no item has it"}
        bounds = proportion_interval if rate else bootstrap_interval
        interval = bounds(known, samples=self.bootstrap_samples, seed=self.seed)
        return {
            "value": sum(known) / len(known),
            "low": interval.low,
            "high": interval.high,
            "n": len(known),
            "reason": None,
        }

    def _by_split(
        self,
        items: EvaluationSet,
        report: MetricsReport,
        extra_items: Mapping[str, Sequence[float | None]],
    ) -> dict[str, dict[str, Any]]:
        splits = sorted({split for split in items.splits if split})
        columns: dict[str, Sequence[float | None]] = {
            name: report[name].per_item
            for name in ("pass_at_1", "exact_match", "syntax_valid")
            if name in report
        }
        columns |= {k: v for k, v in extra_items.items() if k.startswith("pass_at_")}
        return {
            split: {
                name: self._five_fields(
                    [v for v, s in zip(values, items.splits, strict=True) if s == split],
                    rate=True,
                )
                for name, values in columns.items()
            }
            for split in splits
        }


def compare(
    first: PolicyEvaluation,
    second: PolicyEvaluation,
    *,
    splits: Sequence[str] = (),
    samples: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Paired differences `second - first` by metric, with 95% intervals and p-values.

    With `splits` (one name an item) the pass rate is compared within each split too, under the name
    `pass_at_1/<split>`. Items that either policy has no score for are left out of both.
    """
    differences = compare_reports(
        first.report, second.report, splits=splits, samples=samples, seed=seed
    )
    for name, values in first.extra_items.items():
        if name in second.extra_items:
            found = paired_bootstrap(second.extra_items[name], values, samples=samples, seed=seed)
            if found.n:
                differences[name] = found
    return {name: one.to_dict() for name, one in differences.items()}


def _groups(values: Sequence[T], size: int) -> list[list[T]]:
    """The values in consecutive groups of `size`."""
    return [list(values[start : start + size]) for start in range(0, len(values), size)]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def read_evaluation(path: Path) -> PolicyEvaluation:
    """An evaluation a run has written."""
    return PolicyEvaluation.from_dict(json.loads(path.read_text(encoding="utf-8")))
