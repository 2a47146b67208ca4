"""The learning figures of the README and of docs/results.md are those that the benchmark wrote."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def runs(repository: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((repository / "docs/learning.json").read_text())[
        "runs"
    ]
    return found


def cell(entry: dict[str, Any], key: str = "value") -> str:
    return f"{100 * entry[key]:.1f} [{100 * entry['low']:.1f}, {100 * entry['high']:.1f}]"


def test_the_readme_s_table(repository: Path, runs: list[dict[str, Any]]) -> None:
    text = (repository / "README.md").read_text(encoding="utf-8")
    for run in runs:
        found = {name: run["by_split"][name]["eval_seen"]["pass_at_1"] for name in run["by_split"]}
        gain = run["differences"]["rlhf - sft"]["pass_at_1/eval_seen"]
        row = f"| {run['seed']} | {100 * found['base']['value']:.1f} | {cell(found['sft'])} | "
        row += f"{cell(found['rlhf'])} | +{cell(gain, 'difference')} | {cell(found['control'])} |"
        assert row in text


def test_the_tables_of_the_results_page(repository: Path, runs: list[dict[str, Any]]) -> None:
    text = (repository / "docs" / "results.md").read_text(encoding="utf-8")
    for run in runs:
        by_split, differences = run["by_split"], run["differences"]
        greedy, sampled = (
            [cell(by_split[name]["eval_seen"][metric]) for name in ("sft", "rlhf", "control")]
            for metric in ("pass_at_1", "pass_at_1_sampled")
        )
        base = cell(by_split["base"]["eval_seen"]["pass_at_1"])
        paired = [
            cell(differences[name]["pass_at_1/eval_seen"], "difference")
            for name in ("sft - base", "rlhf - sft", "control - sft", "rlhf - control")
        ]
        for cells in ([base, *greedy], sampled, paired):
            assert f"| seed {run['seed']} | {' | '.join(cells)} |" in text


def test_the_aim_was_reached(runs: list[dict[str, Any]]) -> None:
    assert [run["seed"] for run in runs] == [0, 1, 2]
    for run in runs:
        seen = {name: values["pass_at_1/eval_seen"] for name, values in run["differences"].items()}
        assert seen["sft - base"]["difference"] >= 0.25
        assert seen["rlhf - sft"]["difference"] >= 0.08 and seen["rlhf - sft"]["low"] > 0


def test_the_readme_s_times_beside_trl(repository: Path) -> None:
    found = json.loads((repository / "docs" / "versus_trl.json").read_text())
    ratio = {
        job: statistics.median(
            there["seconds"] / here["seconds"]
            for here, there in zip(runs["ours"], runs["trl"], strict=True)
        )
        for job, runs in found.items()
    }
    sentence = (
        f"takes TRL 1.16 {ratio['sft']:.1f} times as long for SFT, {ratio['grpo']:.1f} times for "
        f"GRPO and {ratio['dpo']:.1f} times for DPO"
    )
    assert sentence in (repository / "README.md").read_text(encoding="utf-8")


def signed(found: dict) -> str:
    return ("+" if found["difference"] >= 0 else "") + cell(found, "difference")


def test_the_real_run_s_figures(repository: Path) -> None:
    found = json.loads((repository / "docs" / "conala.json").read_text())
    models, gains = found["models"], found["comparisons"]["rlhf - sft"]
    readme = " ".join((repository / "README.md").read_text(encoding="utf-8").split())
    page = (repository / "docs" / "results.md").read_text(encoding="utf-8")
    sft, rlhf, gain = models["sft"], models["rlhf"], gains["bleu"]
    assert f"{cell(sft['bleu'])} after SFT and {cell(rlhf['bleu'])} after RLHF" in readme
    exact = gains["exact_match"]
    assert f"(paired {signed(gain)})" in readme
    assert f"exact match {cell(sft['exact_match'])} and {cell(rlhf['exact_match'])} " in readme
    assert f"(paired {signed(exact)};" in readme
    for name in ("bleu", "exact_match", "chrf", "rouge", "codebleu", "ruby", "reward"):
        cells = [cell(models[model][name]) for model in ("base", "sft", "rlhf")]
        cells.append(signed(gains[name]))
        assert f"| {' | '.join(cells)} |" in page
    assert sft["bleu"]["value"] > 0.32 and exact["low"] > 0 and gains["reward"]["low"] > 0
    assert all(gains[name]["high"] > 0 for name in ("bleu", "chrf", "rouge", "codebleu", "ruby"))


def test_the_algorithms_table(repository: Path) -> None:
    found = json.loads((repository / "docs" / "algorithms.json").read_text())
    page = (repository / "docs" / "results.md").read_text(encoding="utf-8")
    assert "\n".join(found["table"]) in page
    kinds = {run["algorithm"] for run in found["runs"]}
    assert kinds == {"ppo", "reinforce", "rloo", "grpo"} and len(found["runs"]) == 12
    for run in found["runs"]:
        assert run["gain"] == pytest.approx(run["last"] - run["first"]) and run["gain"] > 0
        assert (
            run["kl_max"] == pytest.approx(max(run["curves"]["kl"]), abs=1e-4)
            and run["kl_max"] < 10
        )
        row = f"| {run['algorithm']} | {run['seed']} | {run['first']:.3f} | {run['last']:.3f} |"
        assert row in page
