"""The README's claims: links lead somewhere, commands parse, the Python snippets run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest


def blocks(repository: Path, language: str) -> list[str]:
    text = (repository / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def test_every_link_of_the_readme_exists(repository: Path) -> None:
    text = (repository / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)\)", text)
    assert links
    for link in links:
        assert (repository / link).exists(), link


def test_every_command_of_the_readme_parses(repository: Path) -> None:
    from modern_rlhf.cli.parser import build_config, train_parser

    lines = [line for block in blocks(repository, "") for line in block.splitlines()]
    checked = 0
    for line in lines:
        for command in line.split("&&"):
            words = shlex.split(command)
            if "run_modern_rlhf.py" in words or "modern_rlhf.main" in words:
                start = 1 + max(
                    i for i, word in enumerate(words) if "modern_rlhf" in word and "/" not in word
                )
                arguments = [w.replace("MODEL", "builtin:tiny-code-lm") for w in words[start:]]
                arguments = [w.replace("examples/", f"{repository}/examples/") for w in arguments]
                build_config(train_parser("modern-rlhf", "").parse_args(arguments))
                checked += 1
    assert checked == 4


def test_every_other_command_of_the_readme_parses(repository: Path) -> None:
    from modern_rlhf.cli.commands import COMMANDS
    from modern_rlhf.cli.parser import OneLineParser

    lines = [line for block in blocks(repository, "") for line in block.splitlines()]
    found = [shlex.split(line)[1:] for line in lines if line.startswith("modern-rlhf ")]
    assert {words[0] for words in found} == {"evaluate", "rate", "correlate", "doctor"}
    for name, *arguments in found:
        parser = OneLineParser(prog=name)
        COMMANDS[name].configure(parser)
        parser.parse_args(arguments)


def test_every_trainer_has_an_example(repository: Path) -> None:
    names = {path.stem for path in (repository / "examples").glob("*.py")}
    assert names >= {"sft", "reward", "ppo", "reinforce", "rloo", "grpo", "dpo", "kto"}


def test_the_named_files_are_there(repository: Path) -> None:
    for name in ("requirements.txt", "requirements-dev.txt", "run_modern_rlhf.py", "Makefile"):
        assert (repository / name).is_file(), name


def test_the_shipped_model_is_as_small_as_said() -> None:
    from modern_rlhf.models.loading import BUILTIN, load_causal_lm

    parameters = sum(p.numel() for p in load_causal_lm(BUILTIN).parameters())
    assert parameters == 5_795_072  # "5.8M-parameter model", at most 6 M


def test_the_trainer_snippet_runs(repository: Path) -> None:
    (pipeline, trainer) = blocks(repository, "python")
    exec(compile(trainer, "README.md", "exec"), {})
    compile(pipeline, "README.md", "exec")


@pytest.mark.slow
def test_the_pipeline_snippet_runs_with_small_sizes(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import modern_rlhf
    from modern_rlhf.config import get_cpu_test_config
    from modern_rlhf.config.io import apply_overrides

    small = apply_overrides(
        get_cpu_test_config(),
        [
            f"data.output_path={tmp_path / 'out'}",
            "data.max_train_samples=64",
            "training.sft_epochs=1",
            "training.total_steps=4",
            "training.rollout_batch_size=16",
            "evaluation.eval_samples=16",
            "evaluation.periodic_eval_samples=8",
        ],
    )
    monkeypatch.setattr(modern_rlhf, "get_cpu_test_config", lambda: small, raising=False)
    exec(compile(blocks(repository, "python")[0], "README.md", "exec"), {})
    assert (tmp_path / "out" / "training_results.json").is_file()
