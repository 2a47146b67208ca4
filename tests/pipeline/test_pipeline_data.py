"""What a run learns from: every source with its weights, nothing that gives the evaluation away."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modern_rlhf.config import ModernRLHFConfig
from modern_rlhf.config.io import apply_overrides
from modern_rlhf.errors import DataError
from modern_rlhf.pipeline.artifacts import Artifacts
from modern_rlhf.pipeline.checks import check_judgements, check_models
from modern_rlhf.pipeline.data import load_run_data, rows_line
from modern_rlhf.pipeline.results import assess_run
from modern_rlhf.pipeline.settings import reward_model_folder
from modern_rlhf.pipeline.stages import sample_answers
from modern_rlhf.pipeline.workspace import Workspace
from modern_rlhf.utils.device import resolve_device

ANSWER = "def leaked(x):\n    return sorted(x, key=lambda pair: (pair[1], pair[0]))[::-1]"


def rows_of(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def leaky(config: ModernRLHFConfig, tmp_path: Path) -> ModernRLHFConfig:
    """One evaluation item whose prompt a rating holds, and whose answer a pair and a label hold."""
    held = rows_of(tmp_path / "held.jsonl", [{"prompt": "Sort the pairs.", "response": ANSWER}])
    ratings = [
        {"prompt": p, "response": "x = 1", "rating": r, "rater": who}
        for p, r, who in (("Sort the pairs.", 5, "ann"), ("Do b.", 1, "bob"), ("Do c.", 4, "ann"))
    ]
    (tmp_path / "feedback" / "ratings.json").write_text(json.dumps(ratings))
    pairs = [
        {"prompt": "Any.", "chosen": ANSWER, "rejected": "no"},
        {"prompt": "Other.", "chosen": "yes", "rejected": "no"},
    ]
    rows_of(tmp_path / "pairs.jsonl", pairs)
    overrides = [f"data.eval_data_path={held}", "data.remove_overlap=true"]
    overrides.append(f"data.preferences_path={tmp_path / 'pairs.jsonl'}")
    return apply_overrides(config, overrides)


def test_judgements_that_give_the_evaluation_away_are_left_out(leaky: ModernRLHFConfig) -> None:
    data = load_run_data(leaky)
    assert [pair.prompt for pair in data.pairs] == ["Other."]
    assert [rating.prompt for rating in data.ratings] == ["Do b.", "Do c."]
    assert {name: found["removed"] for name, found in data.leaks.items()} == {
        "demonstrations": 0,
        "prompts": 0,
        "pairs": 1,
        "ratings": 1,
    }
    assert any(line.startswith("ratings: leak check: 1 training rows") for line in data.lines)
    kept = load_run_data(apply_overrides(leaky, ["data.remove_overlap=false"]))
    assert len(kept.pairs) == 2 and kept.leaks["pairs"]["training_rows_concerned"] == 1
    # the final check of the run's texts sees them, too
    for run, flag in ((data, False), (kept, True)):
        found = assess_run({}, run, overlap_threshold=0.9, seed=0)
        assert found["train_eval_prompt_overlap"]["flag"] is flag, found[
            "train_eval_prompt_overlap"
        ]


def test_kto_learns_from_both_sources_with_the_raters_weights(
    leaky: ModernRLHFConfig, tmp_path: Path
) -> None:
    kto = apply_overrides(leaky, ["training.algorithm=kto", 'data.rater_weights={"bob": 0}'])
    data = load_run_data(kto)
    found = [(one.prompt, one.completion, one.label) for one in data.labels]
    # bob's is left out, ann's first gives the prompt away, the first pair's chosen one the answer
    assert found == [
        ("Do c.", "x = 1", True),
        ("Any.", "no", False),
        ("Other.", "yes", True),
        ("Other.", "no", False),
    ]
    assert "kto: 6 labelled answers" in data.lines
    weighted = ["data.human_feedback_path=null", 'data.rater_weights={"bob": 2, "eve": 3}']
    folder = apply_overrides(kto, [*weighted, f"data.preferences_path={tmp_path / 'feedback'}"])
    assert {one.prompt: one.weight for one in load_run_data(folder).labels} == {
        "Do b.": 2,
        "Do c.": 1,
    }


def test_judgements_that_all_leak_are_said_to(leaky: ModernRLHFConfig, tmp_path: Path) -> None:
    only = apply_overrides(leaky, ["training.algorithm=dpo", "data.human_feedback_path=null"])
    rows_of(tmp_path / "pairs.jsonl", [{"prompt": "Any.", "chosen": ANSWER, "rejected": "no"}])
    with pytest.raises(DataError, match=r"dpo needs preference pairs \(1 that overlap"):
        check_judgements(only, load_run_data(only), reward=False, algorithm="dpo")


def test_min_prob_holds_for_prompts_too(config: ModernRLHFConfig, tmp_path: Path) -> None:
    mined = [
        {"intent": f"intent {i}", "snippet": f"s{i} = {i}", "question_id": i, "prob": i / 40}
        for i in range(40)
    ]
    path = rows_of(tmp_path / "mined.jsonl", mined)
    only = ["data.min_prob=0.5", "data.validation_fraction=0", f"data.train_data_path={path}"]
    config = apply_overrides(config, only)
    tasks = load_run_data(config)  # prompts of a file that has no such column
    assert len(tasks.prompts) == 30 and len(tasks.demonstrations) == 20
    data = load_run_data(apply_overrides(config, ["data.prompts_path=null"]))
    assert len(data.prompts) == len(data.demonstrations) == 20


def test_what_a_stage_learns_from_is_known_by_its_rows(
    config: ModernRLHFConfig, tmp_path: Path
) -> None:
    lines: dict[str, list[str]] = {}
    path = tmp_path / "feedback" / "ratings.json"
    for _ in range(2):
        for algorithm in ("ppo", "kto"):
            given = apply_overrides(config, [f"training.algorithm={algorithm}"])
            run = load_run_data(given)
            for stage in ("sft", "reward", "rlhf"):
                lines.setdefault(f"{algorithm} {stage}", []).append(rows_line(run, given, stage))
        ratings = json.loads(path.read_text())
        path.write_text(json.dumps([{**ratings[0], "response": "another"}, *ratings[1:]]))
    same = {name: before == after for name, (before, after) in lines.items()}
    assert same == {
        "ppo sft": True,
        "ppo reward": False,
        "ppo rlhf": True,
        "kto sft": True,
        "kto reward": False,
        "kto rlhf": False,
    }
    assert lines["kto rlhf"][0].startswith("24 labels (")


def test_a_saved_reward_model_is_taken_without_a_reward_stage(
    config: ModernRLHFConfig, tmp_path: Path
) -> None:
    artifacts = Artifacts(Path(config.data.output_path))
    alone = apply_overrides(config, ["training.use_multi_stage=false"])
    assert reward_model_folder(artifacts, alone) is None
    assert any("no learned part" in line for line in load_run_data(alone).lines)
    saved = tmp_path / "saved"
    taken = apply_overrides(
        alone,
        ["reward.custom_reward_pretrain=false", f"reward.custom_reward_backbone={saved}"],
    )
    assert reward_model_folder(artifacts, taken) == saved
    assert not any("no learned part" in line for line in load_run_data(taken).lines)
    with pytest.raises(Exception, match="folder of none"):
        check_models(taken, reward=False)


def test_calibration_samples_end_at_the_stop_strings(
    config: ModernRLHFConfig, tiny_model_folder: Path
) -> None:
    def answers(config: ModernRLHFConfig) -> list[str]:
        workspace = Workspace(
            config=config,
            device=resolve_device(config.hardware, mixed_precision="no"),
            artifacts=Artifacts(Path(config.data.output_path)),
            data=load_run_data(config),
            tracker=None,
        )
        return sample_answers(workspace, str(tiny_model_folder), ["a", "b", "c"], seed=0)[1]

    stop = next(text for text in answers(config) if text)[0]
    config.training.stop_strings = [stop]
    assert not any(stop in text for text in answers(config))
