"""The main job's configuration at the size of a test: a handful of tasks, a tiny model, six steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modern_rlhf.config import ModernRLHFConfig, get_cpu_test_config
from modern_rlhf.config.io import apply_overrides

NAMES = ["alpha", "beta", "gamma", "delta", "omega", "sigma", "kappa", "theta"]


def write_inputs(folder: Path) -> None:
    tasks = [
        {
            "task_id": f"t{i}",
            "text": f"Write {name}{i}(x) that adds {i} to x.",
            "code": f"def {name}{i}(x):\n    return x + {i}",
            "test_list": [f"assert {name}{i}({k}) == {k + i}" for k in (1, 2, 3)],
            "entry_point": f"{name}{i}",
            "split": "eval_seen" if i >= 30 else "train",
        }
        for i in range(40)
        for name in [NAMES[i % 8]]
    ]
    for part, rows in (("train", tasks[:30]), ("eval", tasks[30:])):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{part}.jsonl").write_text(text)
    ratings = [
        {
            "id": i,
            "prompt": tasks[i % 30]["text"],
            "response": "return x" if i % 2 else "x",
            "rating": 1 + 3 * (i % 2),
            "comment": "",
        }
        for i in range(24)
    ]
    (folder / "feedback").mkdir()
    (folder / "feedback" / "ratings.json").write_text(json.dumps(ratings))


@pytest.fixture
def config(tmp_path: Path, tiny_model_folder: Path) -> ModernRLHFConfig:
    write_inputs(tmp_path)
    return apply_overrides(
        get_cpu_test_config(),
        [
            f"model.base_model_name={tiny_model_folder}",
            f"model.reward_model_name={tiny_model_folder}",
            "model.prompt_style=plain",
            f"evaluation.bertscore_model={tiny_model_folder}",
            "evaluation.bootstrap_samples=100",
            f"data.train_data_path={tmp_path / 'train.jsonl'}",
            f"data.prompts_path={tmp_path / 'train.jsonl'}",
            f"data.eval_data_path={tmp_path / 'eval.jsonl'}",
            f"data.human_feedback_path={tmp_path / 'feedback'}",
            "data.remove_overlap=false",
            "data.skip_demonstrated_prompts=false",
            "data.validation_fraction=0.1",
            "training.samples_per_prompt=4",
            "training.ppo_epochs=2",
            "training.ppo_mini_batches=1",
            f"data.output_path={tmp_path / 'out'}",
            "training.batch_size=8",
            "training.rollout_batch_size=16",
            "training.self_imitation_steps=1",
            "training.total_steps=9",
            "training.save_steps=1",
            "training.eval_steps=2",
            "training.max_response_tokens=12",
            "training.mixed_precision=no",
            "reward.reward_epochs=2",
            "hardware.threads=1",
            "hardware.sandbox_workers=1",
        ],
    )
