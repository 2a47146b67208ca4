"""docs/metrics.md names every key a run logs, and nothing that no run logs."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modern_rlhf.evaluation import METRICS
from modern_rlhf.tracking import RunTracker

KINDS = ("sft", "reward", "ppo", "reinforce", "rloo", "grpo", "dpo", "online_dpo", "kto")


def page_keys(text: str) -> set[str]:
    """The keys in the first columns of the page's tables."""
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return {key for cell in cells for key in re.findall(r"`([^`]+)`", cell)}


def unexplained(emitted: set[str], page: set[str]) -> set[str]:
    """Emitted keys that no key or `prefix_<something>` of the page covers."""
    exact = {key for key in page if "<" not in key}
    patterns = [re.compile(re.sub(r"<\w+>", r"\\w+", key)) for key in page - exact]
    return {
        key for key in emitted - exact if not any(pattern.fullmatch(key) for pattern in patterns)
    }


def unused(emitted: set[str], page: set[str]) -> set[str]:
    """Keys of the page that nothing emitted."""
    return {
        key
        for key in page
        if not any(re.fullmatch(re.sub(r"<\w+>", r"\\w+", key), one) for one in emitted)
    }


class TwoPartReward:
    """Scores with a component and verdicts, as the composite and the execution reward give them."""

    name = "composite"

    def score(self, batch: Any) -> Any:
        from modern_rlhf.rewards.base import RewardScores

        values: list[float | None] = [len(set(text)) / 8 for text in batch.responses]
        return RewardScores(
            values,
            components={"execution": values},
            details={
                "verdict": ["fail"] * len(values),
                "hack_signatures": [["exit"]] * len(values),
                "missing": [["semantic"]] * len(values),
                "trace": [{"code": "x = 1", "unexecuted_lines": []}] * len(values),
            },
        )

    def close(self) -> None:
        pass


def lines_of(
    kind: str, folder: Path, lm: Any, tokenizer: Any, backbone: Any
) -> list[dict[str, Any]]:
    """What two steps of a trainer write to metrics.jsonl."""
    from modern_rlhf.config.reward import RewardConfig
    from modern_rlhf.config.sections import ModelConfig
    from modern_rlhf.config.training import TrainingConfig
    from modern_rlhf.pipeline.function_style import create_trainer
    from modern_rlhf.records import ASPECTS, PreferencePair, Rating
    from modern_rlhf.reward_model.model import CustomRewardModel
    from modern_rlhf.trainer.runtime import Runtime

    training = TrainingConfig(
        algorithm="ppo" if kind in ("sft", "reward", "online_dpo") else kind,
        batch_size=2,
        rollout_batch_size=8,
        samples_per_prompt=4,
        total_steps=2,
        max_response_tokens=4,
        ppo_sft_coef=0.5,
        self_imitation_steps=1,
        sft_epochs=1,
    )
    rows = [{"prompt": p, "response": f"{p}!"} for p in "abcd"]
    with RunTracker(folder) as tracker:
        options: dict[str, Any] = {"runtime": Runtime(tracker=tracker)}
        if kind == "reward":
            pairs = [PreferencePair(f"q{i}", "good", "bad") for i in range(8)]
            ratings = [
                Rating(f"q{i}", "good", {aspect: 1 + i % 5 for aspect in ASPECTS}) for i in range(8)
            ]
            trainer = create_trainer(
                "reward",
                CustomRewardModel(backbone, freeze_backbone=True, human_logits=True),
                pairs=pairs,
                ratings=ratings,
                config=RewardConfig(reward_epochs=1, reward_batch_size=4),
                training=training,
                **options,
            )
        else:
            options |= {"config": training, "model_config": ModelConfig(prompt_style="plain")}
            if kind == "sft":
                trainer = create_trainer("sft", lm, tokenizer, train_data=rows, **options)
            elif kind in ("dpo", "kto"):
                data = [{"prompt": p, "chosen": "good", "rejected": "bad"} for p in "abcd"]
                trainer = create_trainer(kind, lm, tokenizer, train_data=data, **options)
            else:
                trainer = create_trainer(
                    kind,
                    lm,
                    tokenizer,
                    prompts=list("abcd"),
                    reward=TwoPartReward(),
                    sft_data=rows,
                    **options,
                )
        trainer.train()
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_training_logs_what_the_page_says_and_nothing_else(
    repository: Path, tmp_path: Path, tiny_llama: Callable[..., Any], byte_tokenizer: Any
) -> None:
    file = repository / "tests" / "reward_model" / "reward_model_backbones.py"
    spec = importlib.util.spec_from_file_location("reward_model_backbones", file)
    assert spec is not None and spec.loader is not None
    fixtures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fixtures)
    backbone = fixtures.tiny_backbone("decoder")
    emitted = {
        key
        for kind in KINDS
        for line in lines_of(kind, tmp_path / kind, tiny_llama(), byte_tokenizer, backbone)
        for key in line
    }
    page = page_keys((repository / "docs" / "metrics.md").read_text())
    assert unexplained(emitted, page) == set()
    assert unused(emitted, page) == set()


def test_the_check_sees_a_missing_and_a_stale_key() -> None:
    page = page_keys("| `loss`, `reward_<component>` | two |\n| `old` | gone |\n")
    assert page == {"loss", "reward_<component>", "old"}
    assert unexplained({"loss", "reward_syntax", "new"}, page) == {"new"}
    assert unused({"loss", "reward_syntax"}, page) == {"old"}


def test_every_metric_of_an_evaluation_is_defined(repository: Path) -> None:
    text = (repository / "docs" / "metrics_definitions.md").read_text()
    assert [name for name in METRICS if f"`{name}`" not in text] == []
