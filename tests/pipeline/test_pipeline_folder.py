"""The output folder: nothing in it is lost to bad input, nothing in it passes for another run's."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modern_rlhf.config import ModernRLHFConfig
from modern_rlhf.config.io import apply_overrides
from modern_rlhf.config.presets import get_preset
from modern_rlhf.config.sections import SECTIONS
from modern_rlhf.errors import ConfigError, DataError, ModelError, OutputError, StopRequested
from modern_rlhf.evaluation import known_evaluation
from modern_rlhf.pipeline import stages
from modern_rlhf.pipeline.artifacts import Artifacts
from modern_rlhf.pipeline.checks import check_judgements
from modern_rlhf.pipeline.data import load_run_data
from modern_rlhf.pipeline.pipeline import ModernRLHFPipeline
from modern_rlhf.pipeline.plan import rlhf_line
from modern_rlhf.pipeline.preflight import preflight
from modern_rlhf.pipeline.settings import (
    FREE,
    check_settings,
    check_stage,
    evaluated,
    remember_settings,
    stage_settings,
)
from modern_rlhf.pipeline.stages import stage_record
from modern_rlhf.records import Prompt
from modern_rlhf.trainer.loop import TrainResult


def run(config: ModernRLHFConfig, **options: Any) -> Any:
    return ModernRLHFPipeline(config, progress=False, **options).run_full_pipeline()


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def cut_weights(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()


def no_end_token(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    del settings["eos_token"]
    path.write_text(json.dumps(settings))


def few_embeddings(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "vocab_size": 100}))


BROKEN: list[tuple[Callable[[Path], None], str]] = [
    (no_weights, "model.base_model_name: .* holds no weights"),
    (cut_weights, "model.base_model_name: the weights of .* cannot be read"),
    (no_tokenizer, "model.base_model_name: cannot load the tokenizer"),
    (no_end_token, "has no end token"),
    (few_embeddings, "gives id 258 and the model has 100 embeddings"),
]


@pytest.mark.parametrize(("damage", "message"), BROKEN, ids=[d.__name__ for d, _ in BROKEN])
@pytest.mark.parametrize("dry", [False, True])
def test_a_model_that_cannot_work_costs_no_earlier_result(
    config: ModernRLHFConfig,
    tiny_model_folder: Path,
    tmp_path: Path,
    damage: Callable[[Path], None],
    message: str,
    dry: bool,
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_model_folder, broken)
    damage(broken)
    out = Path(config.data.output_path)
    out.mkdir()
    (out / "training_results.json").write_text("earlier")
    config = apply_overrides(config, [f"model.base_model_name={broken}"])
    pipeline = ModernRLHFPipeline(config, progress=False, overwrite=True)
    with pytest.raises(ModelError, match=message):
        pipeline.dry_run() if dry else pipeline.run_full_pipeline()
    assert [path.name for path in out.iterdir()] == ["training_results.json"]


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("model.reward_model_name=no/such-model", ModelError, "^model.reward_model_name: "),
        ("trackers=nope", ConfigError, "tracker 'nope' is unknown"),
        ("data.human_feedback_path=null", DataError, "nothing to learn from"),
        ("data.train_data_path={}/long.jsonl", DataError, "no demonstration is left to train on"),
        ("data.eval_data_path={}/unjudged.jsonl", DataError, "can be judged"),
    ],
)
def test_other_bad_input_costs_no_earlier_result(
    config: ModernRLHFConfig, tmp_path: Path, override: str, error: type[Exception], message: str
) -> None:
    rows = [json.loads(line) for line in (tmp_path / "eval.jsonl").read_text().splitlines()[:2]]
    wrong = [{**row, "code": f"def {row['entry_point']}(x):\n    return None"} for row in rows]
    (tmp_path / "unjudged.jsonl").write_text("".join(json.dumps(row) + "\n" for row in wrong))
    long = {"prompt": "p" * 300, "response": "r"}
    (tmp_path / "long.jsonl").write_text(json.dumps(long) + "\n")
    out = Path(config.data.output_path)
    out.mkdir()
    (out / "training_results.json").write_text("earlier")
    with pytest.raises(error, match=message):
        run(apply_overrides(config, [override.format(tmp_path)]), overwrite=True)
    assert [path.name for path in out.iterdir()] == ["training_results.json"]


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ("reward", "run --stage sft first"),
        ("rlhf", "run --stage sft first"),
        ("evaluate", "run --stage reward first"),
    ],
)
def test_a_stage_without_the_earlier_ones_touches_nothing(
    config: ModernRLHFConfig, stage: str, message: str
) -> None:
    out = Path(config.data.output_path)
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(ModelError, match=message):
        run(config, stage=stage)
    assert [path.name for path in out.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("algorithm", ["dpo", "kto"])
def test_judgements_are_looked_for_before_anything_is_trained(
    config: ModernRLHFConfig, tmp_path: Path, algorithm: str
) -> None:
    """Without SFT and a reward model, too: DPO and KTO read them all the same."""
    alone = [f"training.algorithm={algorithm}", "training.use_multi_stage=false"]
    config = apply_overrides(config, alone)
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"prompt": "p", "chosen": "a", "rejected": "b"}\n')
    given = apply_overrides(config, [f"data.preferences_path={pairs}"])
    data = load_run_data(given)
    check_judgements(given, data, reward=True, algorithm=algorithm)
    assert [pair.chosen for pair in data.pairs] == (["a"] if algorithm == "dpo" else [])
    if algorithm == "kto":  # labelled answers are for KTO alone, also where a reward model is made
        pairs.write_text('{"prompt": "p", "completion": "a", "label": true}\n')
        both = apply_overrides(given, ["training.use_multi_stage=true"])
        assert load_run_data(both).pairs == []
        check_judgements(both, data, reward=False, algorithm=algorithm)
    nothing = apply_overrides(config, ["data.human_feedback_path=null"])
    with pytest.raises(DataError, match=f"{algorithm} needs"):
        run(nothing)
    assert not Path(config.data.output_path).exists()


def test_a_refused_folder_stays_refused(config: ModernRLHFConfig) -> None:
    out = Path(config.data.output_path)
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    pipeline = ModernRLHFPipeline(config, progress=False)
    for _ in range(2):
        with pytest.raises(OutputError, match="not empty"):
            pipeline.run_full_pipeline()
    assert [path.name for path in out.iterdir()] == ["notes.txt"]


def test_a_loop_of_links_is_no_output_folder(config: ModernRLHFConfig, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(OutputError, match="loop"):
        run(apply_overrides(config, [f"data.output_path={tmp_path / 'loop'}"]))


@pytest.mark.parametrize(
    ("stage", "overwrite", "override", "message"),
    [
        ("sft", False, "training.use_multi_stage=false", "training.use_multi_stage = false"),
        ("reward", False, "reward.use_custom_reward=false", "reward.use_custom_reward = false"),
        ("reward", True, "tags=a", "--overwrite would remove the whole run"),
        ("rlhf", True, "tags=a", "--overwrite would remove the whole run"),
        ("evaluate", True, "training.use_multi_stage=false", "--overwrite would remove"),
        ("rlhf", True, "training.use_multi_stage=false", None),
        ("sft", True, "tags=a", None),
    ],
)
def test_stages_that_cannot_be_asked_for(
    config: ModernRLHFConfig, stage: str, overwrite: bool, override: str, message: str | None
) -> None:
    config = apply_overrides(config, [override])
    if message is None:
        ModernRLHFPipeline(config, stage=stage, overwrite=overwrite)
        return
    with pytest.raises(ConfigError, match=message):
        ModernRLHFPipeline(config, stage=stage, overwrite=overwrite)


class StopAtOnce:
    requested = True


def test_a_stop_during_evaluation_does_not_wait_for_its_end(config: ModernRLHFConfig) -> None:
    config = apply_overrides(config, ["reward.use_custom_reward=false"])
    with pytest.raises(StopRequested, match="during evaluation; --resume goes on"):
        run(config, stage="evaluate", stop=StopAtOnce())
    out = Path(config.data.output_path)
    assert json.loads((out / "status.json").read_text())["state"] == "interrupted"
    assert not (out / "evaluations" / "base.json").exists()


def settled(config: ModernRLHFConfig, *stages: str) -> Artifacts:
    """A folder in which `stages` have started with `config`."""
    artifacts = Artifacts(Path(config.data.output_path))
    for name, folder in (("sft", "sft"), ("reward", "reward_model"), ("rlhf", "ppo")):
        if name in stages:
            remember_settings(artifacts, folder, stage_settings(config, name))
    return artifacts


@pytest.mark.parametrize(
    ("stage", "override", "field"),
    [
        ("all", "training.sft_learning_rate=1", "sft was made with training.sft_learning_rate"),
        ("all", "reward.reward_epochs=9", "reward_model was made with reward.reward_epochs = 2"),
        ("all", "training.ppo_clip_ratio=.1", "ppo was made with training.ppo_clip_ratio"),
        ("rlhf", "training.learning_rate=1", "ppo was made with training.learning_rate"),
        ("rlhf", "model.base_model_name=other", "sft was made with model.base_model_name"),
        ("evaluate", "model.prompt_style=chat", "sft was made with model.prompt_style = 'plain'"),
        ("rlhf", "training.sft_learning_rate=1", None),  # SFT is only built upon
        ("evaluate", "data.eval_data_path=other.jsonl", None),
        ("sft", "training.learning_rate=1", None),  # of a stage that is not touched
        ("all", "training.save_steps=7", None),
        ("all", "training.total_steps=70", None),  # not finished: it may become longer
        ("all", "training.sft_epochs=70", None),
        ("all", "training.use_multi_stage=false", "ppo was made with training.use_multi_stage"),
        ("rlhf", "training.use_multi_stage=false", "ppo was made with training.use_multi_stage"),
        ("rlhf", "reward.use_custom_reward=false", "ppo was made with reward.use_custom_reward"),
        ("rlhf", "data.human_feedback_path=other", None),  # PPO reads no judgement
        ("all", "evaluation.target_bleu=.1", None),
        ("all", "hardware.threads=2", None),
        ("all", "training.algorithm=reinforce", None),  # a folder of its own
    ],
)
def test_what_a_later_session_may_change(
    config: ModernRLHFConfig, stage: str, override: str, field: str | None
) -> None:
    artifacts = settled(config, "sft", "reward", "rlhf")
    other = apply_overrides(config, [override])

    def check() -> None:
        check_settings(artifacts, other, algorithm=other.training.algorithm, stage=stage)

    if field is None:
        check()
    else:
        with pytest.raises(ConfigError, match=field):
            check()


def test_a_finished_stage_does_not_become_longer(config: ModernRLHFConfig) -> None:
    artifacts = settled(config, "sft")
    (artifacts.stage("sft") / "stage.json").write_text("{}")
    longer = stage_settings(apply_overrides(config, ["training.sft_epochs=70"]), "sft")
    with pytest.raises(ConfigError, match=r"training\.sft_epochs"):
        check_stage(artifacts, "sft", longer)


def test_a_run_on_builtin_data_can_be_gone_on_with(tmp_path: Path) -> None:
    """Settings hold the paths as they were given; what is loaded lies at the real ones."""
    config = get_preset("cpu-test")
    config.data.max_prompts = config.data.max_train_samples = 20
    config.evaluation.eval_samples = 5
    artifacts = Artifacts(tmp_path)
    remember_settings(artifacts, "sft", stage_settings(config, "sft"))
    checked = preflight(
        config,
        artifacts,
        stage="all",
        runs=["sft", "reward", "rlhf"],
        algorithm="ppo",
        overwrite=False,
    )
    assert config.data.train_data_path.startswith("builtin:")
    assert Path(checked.config.data.train_data_path).is_file() and checked.data.demonstrations


def test_other_judgements_are_other_settings_of_dpo_and_kto(config: ModernRLHFConfig) -> None:
    for algorithm in ("dpo", "kto"):
        given = apply_overrides(config, [f"training.algorithm={algorithm}"])
        kept = stage_settings(given, "rlhf")
        assert {"data.human_feedback_path", "data.rater_weights"} <= set(kept)


def test_an_unfinished_stage_goes_on_with_its_own_rows_only(config: ModernRLHFConfig) -> None:
    artifacts = Artifacts(Path(config.data.output_path))
    remember_settings(artifacts, "kto", {"rows": "24 labels (aa)"})
    with pytest.raises(ConfigError, match=r"rows = '24 labels \(aa\)' \(now '24 labels \(bb\)'"):
        check_stage(artifacts, "kto", {"rows": "24 labels (bb)"})
    remember_settings(artifacts, "kto", {})  # of a version that did not keep them
    check_stage(artifacts, "kto", {"rows": "24 labels (bb)"})
    remember_settings(artifacts, "kto", {"rows": "24 labels (aa)"})
    (artifacts.stage("kto") / "stage.json").write_text("{}")  # finished: it has learned from them
    check_stage(artifacts, "kto", {"rows": "25 labels (bb)"})


def test_a_rating_between_stop_and_resume_is_noticed(
    config: ModernRLHFConfig, tmp_path: Path
) -> None:
    alone = ["training.algorithm=kto", "training.use_multi_stage=false"]
    config = apply_overrides(config, alone)
    with pytest.raises(StopRequested):
        run(config, stage="rlhf", stop=StopAtOnce())
    path = tmp_path / "feedback" / "ratings.json"
    ratings = json.loads(path.read_text())
    path.write_text(json.dumps([*ratings, {**ratings[0], "response": "new"}]))
    with pytest.raises(
        ConfigError, match=r"kto was made with rows = '24 labels .* \(now '25 labels"
    ):
        run(config, stage="rlhf", resume=True)


def test_every_field_that_a_stage_reads_is_among_its_settings(
    config: ModernRLHFConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each stage runs under a watch that notes which fields are read, and by which code.

    What the configuration's own code and `dataclasses` read (checks, copies) decides nothing.
    """
    read: dict[str, set[str]] = {}
    now: list[str] = []

    def watch(section: str, kind: type) -> None:
        names = {field.name for field in dataclasses.fields(kind)}
        plain = kind.__getattribute__

        def get(self: Any, name: str) -> Any:
            if now and name in names:
                caller = sys._getframe(1).f_code.co_filename
                if not ("/config/" in caller or caller.endswith("dataclasses.py")):
                    read.setdefault(now[-1], set()).add(f"{section}.{name}")
            return plain(self, name)

        monkeypatch.setattr(kind, "__getattribute__", get)

    for section in ("model", "training", "reward", "data"):
        watch(section, SECTIONS[section])

    def during(stage: str, function: Any) -> Any:
        def watched(workspace: Any) -> Any:
            now.append(stage)
            try:
                return function(workspace)
            finally:
                now.pop()

        return watched

    for stage in ("sft", "reward", "rlhf"):
        function = getattr(stages, f"run_{stage}")
        monkeypatch.setattr(stages, f"run_{stage}", during(stage, function))
    short = ["training.sft_epochs=0.1", "reward.reward_epochs=1", "training.total_steps=1"]
    config = apply_overrides(config, [*short, "training.eval_steps=0"])
    ModernRLHFPipeline(config, progress=False).train_rlhf()
    assert min(len(read[stage]) for stage in ("sft", "reward", "rlhf")) > 10
    missing = {
        stage: sorted(names - set(stage_settings(config, stage)) - FREE)
        for stage, names in read.items()
    }
    assert missing == {"sft": [], "reward": [], "rlhf": []}


def test_an_evaluation_is_known_by_what_it_is_of(config: ModernRLHFConfig, tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path / "out")
    model = artifacts.final_model("ppo")
    artifacts.finish("ppo", {"seconds": 1})

    def of(*, config: ModernRLHFConfig = config, text: str = "p", model: str = str(model)) -> Any:
        return evaluated(artifacts, config, model=model, kl_to=None, items=[Prompt(text)])

    first = of()
    assert of() == first
    others = [
        of(text="q"),
        of(model="builtin:tiny-code-lm"),
        of(config=apply_overrides(config, ["training.max_response_tokens=13"])),
    ]
    artifacts.finish("ppo", {"seconds": 2})  # trained again
    others.append(of())
    path = tmp_path / "rlhf.json"
    path.write_text(json.dumps({"of": first}))
    assert all(other != first and known_evaluation(path, other) is None for other in others)
    path.write_text("{")
    assert known_evaluation(path, first) is None


@pytest.mark.parametrize("algorithm", ["ppo", "grpo", "rloo", "dpo", "kto"])
def test_the_plan_counts_steps_as_the_trainers_do(config: ModernRLHFConfig, algorithm: str) -> None:
    """9 steps at most, 25 prompts x 4 samples in rollouts of 16 twice: 13 rollouts, were there no cap."""
    overrides = ["training.rlhf_epochs=2", f"training.algorithm={algorithm}"]
    config = apply_overrides(config, overrides)
    line = rlhf_line(config, load_run_data(config), 25)
    expected = {
        # 2 inner epochs and 1 step of imitation: 3 steps a rollout, so 9 / 3 rollouts
        "ppo": "ppo: 3 rollouts of 16 episodes (4 prompts x 4), up to 3 optimiser steps each",
        "grpo": "grpo: 3 rollouts of 16 episodes (4 prompts x 4), up to 3 optimiser steps each",
        # used once: 1 + 1 steps, ceil(9 / 2)
        "rloo": "rloo: 5 rollouts of 16 episodes (4 prompts x 4), up to 2 optimiser steps each",
        "dpo": "dpo: 1 steps of 8 pairs, of 0",
        "kto": "kto: 6 steps of 8 labelled answers, of 24",
    }
    assert line == expected[algorithm]
    unlimited = apply_overrides(config, ["training.total_steps=null"])
    if algorithm == "ppo":
        assert "13 rollouts" in rlhf_line(unlimited, load_run_data(unlimited), 25)


def test_a_metric_without_a_value_does_not_cost_the_stage(tmp_path: Path) -> None:
    """The explained variance of returns that are all the same is NaN, which JSON does not have."""
    result = TrainResult(
        steps=1, metrics={"loss": 0.5, "explained_variance": float("nan")}, seconds=1.0, tokens=2
    )
    record = stage_record(result, 1.0)
    assert record["last_metrics"] == {"loss": 0.5, "explained_variance": None}
    artifacts = Artifacts(tmp_path)
    artifacts.finish("ppo", record)
    found = artifacts.done("ppo")
    assert found is not None and found["steps"] == 1
