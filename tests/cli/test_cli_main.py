"""`main`: exit codes, one line on stderr, and the one call each command makes.

The doors behind the commands are replaced by recorders that keep the real signature
(`create_autospec`), so a call the real function would refuse fails here too.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import create_autospec

import pytest

from modern_rlhf import main as main_module
from modern_rlhf.cli.commands import COMMANDS
from modern_rlhf.cli.errors import guarded, one_line, resume_command
from modern_rlhf.errors import (
    CheckpointError,
    ConfigError,
    DeviceError,
    StopRequested,
    TrainingError,
)
from modern_rlhf.main import main

Door = Callable[..., object]


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    """`door("module:name", returns)`: replace a function by a recorder with its signature."""

    def replace(place: str, returns: object = None) -> object:
        module, _, name = place.partition(":")
        recorder = create_autospec(getattr(importlib.import_module(module), name))
        recorder.return_value = returns
        monkeypatch.setattr(f"{module}.{name}", recorder)
        return recorder

    return replace


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_of_every_command(name: str, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        main([name, "--help"] if name else ["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: modern-rlhf{' ' + name if name else ''}")
    if not name:
        for command in COMMANDS:
            assert f"\n  {command} " in text


def test_the_commands_of_the_design() -> None:
    expected = "evaluate generate rate correlate report status doctor fetch-model"
    assert list(COMMANDS) == expected.split()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config", "nope"],
        ["--set", "training.seed=x"],
        ["evalute"],
        ["generate"],
        ["generate", " "],
        ["generate", "a prompt", "--max-new-tokens", "100000"],
        ["generate", "a prompt", "--samples", "2"],
        ["generate", "a prompt", "--samples", "0"],
        ["rate"],
        ["rate", "--answers", "a.jsonl", "--port", "70000"],
        ["rate", "--answers", "a.jsonl", "--prompts", "p.txt"],
        ["rate", "--answers", "a.jsonl", "--model", "m", "--prompts", "p.txt"],
        ["rate", "--model", "m", "--model", "n"],
        ["rate", "--model", "m", "--prompts", "p.txt"],
        ["rate", "--model", "m", "--model", "m", "--prompts", "p.txt"],
        ["evaluate"],
        ["evaluate", "--model", "m", "--max-items", "0"],
        ["fetch-model"],
        ["status", "a", "b"],
    ],
)
def test_usage_mistakes_exit_2_with_one_line(arguments: list[str], capsys) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize("preset", ["fast", "research", "production"])
def test_gpu_presets_stop_at_once(preset: str, capsys, monkeypatch, tmp_path: Path) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    assert main(["--mode", preset]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: CUDA GPU is not available!")
    assert "--config cpu-test" in err and "--device cpu" in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ConfigError("a key"), 2, "error: a key"),
        (DeviceError("no gpu"), 2, "error: no gpu"),
        (TrainingError("the loss\nis NaN"), 1, "error: the loss is NaN"),
        (CheckpointError("damaged"), 1, "error: damaged"),
        (StopRequested("checkpoint written at step 3"), 130, "stopped: checkpoint written"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 1, "error: out of memory"),
        (OSError(28, "No space left on device", "/x/y"), 1, "free some space"),
        (PermissionError(13, "Permission denied", "/x/y"), 1, "Permission denied: /x/y"),
    ],
)
def test_errors_become_lines_and_codes(error: BaseException, code: int, line: str, capsys) -> None:
    def fail() -> int:
        raise error

    assert guarded(fail, debug=False) == code
    err = capsys.readouterr().err
    assert line in err
    assert err.count("\n") == 1


def test_a_full_gpu_is_explained(capsys) -> None:
    import torch

    def fail() -> int:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate ...")

    assert guarded(fail, debug=False) == 1
    assert "tokens_per_micro_batch" in capsys.readouterr().err


def test_debug_shows_the_traceback() -> None:
    def fail() -> int:
        raise ConfigError("a key")

    with pytest.raises(ConfigError):
        guarded(fail, debug=True)


@pytest.mark.parametrize("error", [ValueError("bug"), RuntimeError("bug"), AssertionError("bug")])
def test_a_fault_of_ours_is_not_disguised(error: Exception) -> None:
    def fail() -> int:
        raise error

    with pytest.raises(type(error)):
        guarded(fail, debug=False)


def test_a_system_error_without_number_keeps_its_text() -> None:
    assert one_line(OSError("disk fell\noff")) == "disk fell off"


@pytest.mark.parametrize(
    ("program", "start"),
    [
        ("/here/run_modern_rlhf.py", "python run_modern_rlhf.py"),
        ("/x/modern_rlhf/main.py", "python -m modern_rlhf.main"),
        ("/x/modern_rlhf/__main__.py", "python -m modern_rlhf.main"),
        ("/venv/bin/modern-rlhf", "modern-rlhf"),
    ],
)
def test_the_way_on(program: str, start: str) -> None:
    arguments = ["--mode", "cpu-test", "--overwrite", "--output-dir", "my run"]
    expected = f"{start} --mode cpu-test --output-dir 'my run' --resume"
    assert resume_command(arguments, program) == expected
    assert resume_command([*arguments, "--resume"], program) == expected


class FakePipeline:
    """Records how it was made, and does what the test says."""

    made: dict[str, object]
    outcome: object

    def __init__(self, config: object, **options: object) -> None:
        type(self).made = {"config": config, **options}

    def dry_run(self) -> str:
        return "the plan"

    def run_full_pipeline(self) -> object:
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return SimpleNamespace(success=self.outcome)


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> type[FakePipeline]:
    import modern_rlhf.pipeline.pipeline as real

    create_autospec(real.ModernRLHFPipeline)(None, resume=0, overwrite=0, stage="", stop=None)
    monkeypatch.setattr(real, "ModernRLHFPipeline", FakePipeline)
    return FakePipeline


def test_training_is_one_call(pipeline: type[FakePipeline], capsys) -> None:
    pipeline.outcome = True
    assert main(["--mode", "cpu-test", "--seed", "3", "--stage", "sft", "--resume"]) == 0
    made = pipeline.made
    assert (made["resume"], made["overwrite"], made["stage"]) == (True, False, "sft")
    assert made["config"].training.seed == 3
    pipeline.outcome = False
    assert main(["--mode", "cpu-test"]) == 1


def test_a_dry_run_prints_the_plan(pipeline: type[FakePipeline], capsys) -> None:
    pipeline.outcome = AssertionError("must not run")
    assert main(["--mode", "cpu-test", "--dry-run"]) == 0
    assert capsys.readouterr().out == "the plan\n"


@pytest.mark.parametrize("outcome", [StopRequested("saved step 4"), KeyboardInterrupt()])
def test_a_stopped_run_says_how_to_go_on(
    outcome: BaseException, pipeline: type[FakePipeline], capsys, monkeypatch
) -> None:
    pipeline.outcome = outcome
    monkeypatch.setattr(main_module.sys, "argv", ["run_modern_rlhf.py"])
    assert main(["--mode", "cpu-test"]) == 130
    err = capsys.readouterr().err
    assert "go on with: python run_modern_rlhf.py --mode cpu-test --resume\n" in err


def test_stages_are_the_pipeline_s() -> None:
    from modern_rlhf.cli.parser import STAGES
    from modern_rlhf.pipeline.pipeline import STAGES as REAL

    assert STAGES == REAL


def test_evaluate_call(door: Door, capsys) -> None:
    from modern_rlhf.cli.evaluate import EvaluationSettings

    recorder = door("modern_rlhf.cli.evaluate:evaluate_command", "the table")
    flags = ["--data", "d", "--max-items", "9", "--samples", "5", "--seed", "1"]
    command = ["evaluate", "--model", "one", "--model", "two", *flags, "--metrics", "bleu,chrf"]
    assert main(command) == 0
    recorder.assert_called_once_with(
        models=["one", "two"],
        data="d",
        output_dir="./evaluation",
        max_items=9,
        device="auto",
        settings=EvaluationSettings(
            metrics=("bleu", "chrf"),
            samples=5,
            max_new_tokens=256,
            bertscore_model=None,
            bootstrap_samples=1000,
            seed=1,
        ),
    )
    assert capsys.readouterr().out == "the table\n"


def test_generate_call(door: Door, capsys, tmp_path: Path) -> None:
    recorder = door("modern_rlhf.cli.models:generate_command", "the answers")
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("sort a list\nreverse a string\n")
    assert main(["generate", "--prompts-file", str(prompts), "--model", "m"]) == 0
    recorder.assert_called_once_with(
        model="m",
        prompts=["sort a list", "reverse a string"],
        output=None,
        samples=1,
        temperature=0.0,
        max_new_tokens=128,
        device="auto",
        seed=0,
    )


def test_rate_call(door: Door) -> None:
    recorder = door("modern_rlhf.feedback.server:serve")
    assert main(["rate", "--answers", "answers.jsonl", "--port", "0", "--mode", "single"]) == 0
    recorder.assert_called_once_with(
        "answers.jsonl",
        "./evaluation_results_server",
        host="127.0.0.1",
        port=0,
        mode="single",
        raters_per_item=2,
        seed=0,
    )


def test_rate_finds_a_bad_folder_before_the_models_answer(door: Door, capsys, tmp_path) -> None:
    recorder = door("modern_rlhf.cli.models:answers_to_rate", "answers.jsonl")
    file, prompts = tmp_path / "a-file", tmp_path / "prompts.txt"
    file.write_text("")
    prompts.write_text("sort a list\n")
    command = ["rate", "--model", "a", "--model", "b", "--prompts", str(prompts)]
    assert main([*command, "--folder", str(file)]) == 1
    recorder.assert_not_called()
    assert "cannot be used for ratings" in capsys.readouterr().err


def test_rate_summary_call(door: Door, capsys) -> None:
    recorder = door("modern_rlhf.feedback.agreement:summary", "3 forms")
    assert main(["rate", "--summary", "--folder", "f"]) == 0
    recorder.assert_called_once_with("f")
    assert capsys.readouterr().out == "3 forms\n"


def test_report_call(door: Door, capsys) -> None:
    recorder = door("modern_rlhf.report.build:build_report", [Path("o/report.html")])
    assert main(["report", "o"]) == 0
    recorder.assert_called_once_with(Path("o"))
    assert capsys.readouterr().out == "o/report.html\n"


def test_report_of_no_run_is_one_line(capsys, tmp_path: Path) -> None:
    assert main(["report", str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ") and str(tmp_path) in err and err.count("\n") == 1


def test_status_of_no_run(capsys, tmp_path: Path) -> None:
    assert main(["status", str(tmp_path)]) == 0
    assert "no run has started here" in capsys.readouterr().out


def test_fetch_model_call(door: Door, capsys) -> None:
    recorder = door("modern_rlhf.models.fetch:fetch_model", Path("cache/minilm"))
    assert main(["fetch-model", "minilm"]) == 0
    recorder.assert_called_once_with("minilm")
    assert "cache/minilm" in capsys.readouterr().out


def test_fetching_an_unknown_model(capsys) -> None:
    assert main(["fetch-model", "gpt9"]) == 1
    assert "there are: minilm, smollm2-135m" in capsys.readouterr().err


@pytest.mark.parametrize(
    "start",
    [
        ["-m", "modern_rlhf.main"],
        ["-m", "modern_rlhf"],
        ["modern_rlhf/main.py"],
        ["run_modern_rlhf.py"],
    ],
    ids=" ".join,
)
def test_every_way_to_start(start: list[str], repository: Path, tmp_path: Path) -> None:
    """From another folder, as a newcomer may; a mistake proves that the CLI was reached."""
    words = [str(repository / w) if w.endswith(".py") else w for w in start]
    done = subprocess.run(
        [sys.executable, *words, "--config", "nope"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown preset 'nope'")
    assert list(tmp_path.iterdir()) == []


def test_a_closed_pipe_is_no_traceback(tmp_path: Path) -> None:
    command = f"{sys.executable} -m modern_rlhf --help | true"
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
