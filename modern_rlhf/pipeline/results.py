"""training_results.json and samples.md: what a run reached, in the words DESIGN fixes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modern_rlhf.config.sections import ModernRLHFConfig
from modern_rlhf.data_loader.evaluation_set import EvaluationSet
from modern_rlhf.data_loader.splits import answer_of, prompt_of
from modern_rlhf.evaluation.results import PolicyEvaluation, compare
from modern_rlhf.honesty import assess
from modern_rlhf.metrics.trivial import trivial_baselines
from modern_rlhf.pipeline.artifacts import SCHEMA
from modern_rlhf.pipeline.data import RunData
from modern_rlhf.pipeline.workspace import Workspace
from modern_rlhf.report.build import build_report
from modern_rlhf.report.samples import write_samples
from modern_rlhf.report.table import closing_table
from modern_rlhf.utils.atomic import write_json

TARGETS = ("bertscore", "codebleu", "bleu", "rouge", "ruby")
SHOWN_SAMPLES = 20


@dataclass(frozen=True)
class PipelineResults:
    """What a run reached.

    Attributes:
        success: every stage asked for finished.
        evaluation_metrics: the final model's value by metric (None where it has none).
        targets_met: by metric, whether the target was reached; None where there is no value.
        stages: by stage, seconds, memory, tokens a second.
        output_dir: where everything lies.
        results: the content of training_results.json (empty when nothing was evaluated).
    """

    success: bool
    evaluation_metrics: dict[str, float | None]
    targets_met: dict[str, bool | None]
    stages: dict[str, Any]
    output_dir: Path
    results: dict[str, Any] = field(default_factory=dict)


def targets_of(config: ModernRLHFConfig) -> dict[str, float]:
    """The target of every metric that has one."""
    return {name: float(getattr(config.evaluation, f"target_{name}")) for name in TARGETS}


def paired_differences(
    config: ModernRLHFConfig, found: Mapping[str, PolicyEvaluation], *, splits: list[str]
) -> dict[str, Any]:
    """`sft - base`, `rlhf - sft` and `rlhf - base`, as far as the run has both."""
    return {
        f"{after} - {before}": compare(
            found[before],
            found[after],
            splits=splits,
            samples=config.evaluation.bootstrap_samples,
            seed=config.training.seed,
        )
        for before, after in (("base", "sft"), ("sft", "rlhf"), ("base", "rlhf"))
        if before in found and after in found
    }


def training_results(
    config: ModernRLHFConfig,
    algorithm: str,
    found: Mapping[str, PolicyEvaluation],
    comparisons: Mapping[str, Any],
    records: Mapping[str, Any],
    data: RunData,
) -> dict[str, Any]:
    """The content of training_results.json."""
    final = found[list(found)[-1]].summary()
    targets = targets_of(config)
    values = {name: final.get(name, {}).get("value") for name in TARGETS}
    return {
        "seed": config.training.seed,
        "algorithm": algorithm,
        **values,
        "models": {name: one.summary() for name, one in found.items()},
        "by_split": {name: one.by_split for name, one in found.items()},
        "comparisons": dict(comparisons),
        "targets": targets,
        "targets_met": {
            name: None if values[name] is None else values[name] >= target
            for name, target in targets.items()
        },
        "honesty_assessment": assess_run(
            found,
            data,
            overlap_threshold=config.data.overlap_threshold,
            seed=config.training.seed,
        ),
        "stages": dict(records),
        "data": list(data.lines),
    }


def write_results(
    workspace: Workspace,
    algorithm: str,
    found: Mapping[str, PolicyEvaluation],
    *,
    records: Mapping[str, Any],
    models: Mapping[str, str],
) -> dict[str, Any]:
    """Write results, samples, plots and page from the evaluations; print the table.

    Returns:
        The content of training_results.json.
    """
    config, data, root = workspace.config, workspace.data, workspace.artifacts.root
    comparisons = paired_differences(config, found, splits=data.evaluation.splits)
    results = training_results(config, algorithm, found, comparisons, records, data)
    hacking = results["honesty_assessment"].get("reward_hacking", {}).get("evidence", {})
    for alarm in hacking.get("alarms", ()):
        workspace.say(f"reward hacking: {alarm}")
    write_json(root / "training_results.json", results, SCHEMA)
    write_json(
        root / "pipeline_results.json",
        {
            "success": True,
            "stages": dict(records),
            "comparisons": comparisons,
            "by_split": {name: one.by_split for name, one in found.items()},
            "data": data.lines,
            "leaks": data.leaks,
            "models": dict(models),
        },
        SCHEMA,
    )
    write_run_samples(root / "samples.md", data.evaluation, found)
    files = build_report(root)
    if workspace.progress:
        print(closing_table(results))
        print(
            f"everything is in {root}: training_results.json, samples.md, report.html, "
            f"{len(list(files))} plots and pages"
        )
    return results


def assess_run(
    found: Mapping[str, PolicyEvaluation], data: RunData, *, overlap_threshold: float, seed: int
) -> dict[str, Any]:
    """The honesty checks on this run's evaluations."""
    rows = data.demonstrations
    learned = [*rows, *data.prompts, *data.pairs, *data.ratings, *data.labels]
    return dict(
        assess(
            reports_by_model={name: one.report for name, one in found.items()},
            train_prompts=[prompt_of(item) for item in learned],
            train_answers=[answer_of(item) for item in learned],
            eval_prompts=data.evaluation.prompts,
            eval_references=data.evaluation.references,
            baselines=trivial_baselines(
                ((row.prompt, row.response) for row in rows), data.evaluation.prompts
            ),
            is_conala=data.evaluation.is_conala,
            reward_by_model={
                name: one.extra["reward"]["value"]
                for name, one in found.items()
                if "reward" in one.extra
            },
            hack_watch_by_model={name: one.hack_watch for name, one in found.items()},
            overlap_threshold=overlap_threshold,
            seed=seed,
        )
    )


def write_run_samples(
    path: Path, items: EvaluationSet, found: Mapping[str, PolicyEvaluation]
) -> None:
    """The same evaluation prompts answered by every model, evenly spread over the set."""
    stride = max(1, len(items) // SHOWN_SAMPLES)
    rows: list[dict[str, Any]] = []
    for index in range(0, len(items), stride):
        row: dict[str, Any] = {"prompt": items.prompts[index], "reference": items.references[index]}
        for name, one in found.items():
            rate = one.report["pass_at_1"].per_item[index] if "pass_at_1" in one.report else None
            verdict = None if rate is None else "passes its tests" if rate == 1 else "fails"
            row[name] = {"text": one.answers[index], "verdict": verdict}
        rows.append(row)
    write_samples(path, rows[:SHOWN_SAMPLES])
