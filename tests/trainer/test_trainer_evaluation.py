"""Evaluation by several processes: each item is answered once, and the result is that of one process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from modern_rlhf.data_loader.evaluation_set import EvaluationSet
from modern_rlhf.evaluation import Evaluator, PolicyEvaluation
from modern_rlhf.records import Prompt
from modern_rlhf.rollout.engine import HuggingFaceEngine
from modern_rlhf.trainer.processes import Processes
from modern_rlhf.trainer.runtime import Runtime

ITEMS = EvaluationSet(
    [Prompt(f"item {i}" * (1 + i % 3), reference="x = 1") for i in range(7)], "test"
)


class Threads(Processes):
    """Two processes as threads, which exchange values where real ones would send them."""

    barrier = threading.Barrier(2, timeout=60)
    slots: list[Any] = [None, None]

    def gather(self, value: Any) -> list[Any]:
        self.slots[self.rank] = value
        self.barrier.wait()
        gathered = list(self.slots)
        self.barrier.wait()
        return gathered

    def on_main(self, action: Callable[[], Any]) -> Any:
        return self.gather(action() if self.is_main else None)[0]


def evaluate(lm: Any, tokenizer: Any, processes: Processes | None) -> PolicyEvaluation:
    runtime = Runtime()
    runtime.processes = processes or runtime.processes
    evaluator = Evaluator(
        runtime=runtime,
        executor=None,
        max_prompt_tokens=32,
        max_response_tokens=8,
        bootstrap_samples=0,
        metrics=("exact_match", "chrf"),
        prompt_style="plain",
    )
    return evaluator.evaluate_policy(lm, tokenizer, ITEMS, sampled=2)


def test_no_item_is_answered_twice(
    tiny_llama: Callable[..., Any], byte_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = evaluate(tiny_llama(), byte_tokenizer, None)
    answered: list[tuple[int, ...]] = []
    generate = HuggingFaceEngine.generate

    def spy(self: Any, prompts: Any, **options: Any) -> Any:
        answered.extend((int(options["temperature"]), *ids) for ids in prompts)
        return generate(self, prompts, **options)

    monkeypatch.setattr(HuggingFaceEngine, "generate", spy)
    found: list[Any] = [None, None]
    models = [tiny_llama(), tiny_llama()]  # not in the threads: they seed the global generator

    def work(rank: int) -> None:
        processes = Threads(rank=rank, count=2, device="cpu")
        found[rank] = evaluate(models[rank], byte_tokenizer, processes)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answered) == len(set(answered)) == 2 * len(ITEMS)  # greedy and sampled, each once
    for one in found:
        assert one is not None and one.answers == alone.answers and one.samples == alone.samples
        assert one.to_dict() == alone.to_dict()
