"""Does the main job learn, and is RLHF more than more training? Seeds 0, 1, 2 with a control.

    python -m benchmarks.learning --out learning_runs [--seeds 0 1 2] [--preset cpu-test]

First the whole job runs for every seed (base, SFT, reward model, PPO), then the controls: the SFT model
trained on with its own loss for as many epochs as fit the time of the RLHF stage, evaluated on the same
items. Timings are noisy, so every control gets the largest ratio of RLHF time to SFT time among the seeds.
Differences are paired over items with a bootstrap 95% interval. Writes `learning.json`, `learning.md` and
`learning.png`; finished seeds are kept when it is run again. `--plot FILE` only draws a `learning.json` again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

from modern_rlhf.config import get_preset
from modern_rlhf.config.io import apply_overrides
from modern_rlhf.evaluation.results import PolicyEvaluation, compare, read_evaluation
from modern_rlhf.models.loading import load_causal_lm, load_tokenizer
from modern_rlhf.pipeline import stages
from modern_rlhf.pipeline.pipeline import ModernRLHFPipeline
from modern_rlhf.pipeline.workspace import Workspace
from modern_rlhf.report.style import GREEN, MODEL_COLOURS, finish, grid, house_style
from modern_rlhf.trainer.sft import SFTTrainer
from modern_rlhf.utils.atomic import write_bytes, write_json, write_text

SHOWN = {"base": "base", "sft": "SFT", "rlhf": "RLHF", "control": "SFT continued (control)"}


def continue_sft(
    pipeline: ModernRLHFPipeline, workspace: Workspace, *, ratio: float
) -> PolicyEvaluation:
    """SFT alone for `ratio` times its epochs: same data, the SFT peak rate, decayed to 0 again."""
    config = workspace.config
    source = stages.sft_or_base(workspace.artifacts, workspace.config)
    epochs = max(1.0, config.training.sft_epochs * ratio)
    lm, tokenizer = load_causal_lm(source), load_tokenizer(source)
    began = time.monotonic()
    SFTTrainer(
        lm,
        tokenizer,
        train_data=workspace.data.demonstrations,
        config=dataclasses.replace(config.training, sft_epochs=epochs),
        runtime=dataclasses.replace(workspace.runtime(), progress=True),
        model_config=config.model,
    ).train()
    print(f"control: {epochs:.1f} more epochs of SFT in {time.monotonic() - began:.0f} s")
    evaluator = workspace.evaluator()
    return evaluator.evaluate_policy(lm, tokenizer, workspace.data.evaluation, sampled=True)


def pipeline_of(preset: str, seed: int, out: Path, overrides: list[str]) -> ModernRLHFPipeline:
    """One seed's whole job, on all evaluation items, going on where an earlier call stopped."""
    own = [
        f"training.seed={seed}",
        f"data.output_path={out / f'seed-{seed}'}",
        "evaluation.eval_samples=null",
    ]
    config = apply_overrides(get_preset(preset), [*own, *overrides])
    return ModernRLHFPipeline(config, resume=True)


def time_ratio(pipeline: ModernRLHFPipeline) -> float:
    """Seconds of the RLHF stage for each second of SFT."""
    sft, rlhf = (pipeline.artifacts.done(name) for name in ("sft", pipeline.algorithm))
    assert sft is not None and rlhf is not None
    return float(rlhf["seconds"] / sft["seconds"])


def run_control(pipeline: ModernRLHFPipeline, ratio: float) -> None:
    """The seed's control, unless it has been run."""
    path = pipeline.artifacts.evaluation("control")
    if path.is_file():
        return
    with pipeline._session() as workspace:
        control = continue_sft(pipeline, workspace, ratio=ratio)
        write_json(path, control.to_dict(), 1)


def measured(pipeline: ModernRLHFPipeline) -> dict[str, Any]:
    """What one seed's runs found, with paired differences."""
    names = ("base", "sft", "rlhf", "control")
    found = {name: read_evaluation(pipeline.artifacts.evaluation(name)) for name in names}
    splits = pipeline.load_data().evaluation.splits
    stages_done = {name: pipeline.artifacts.done(name) for name in ("sft", pipeline.algorithm)}
    return {
        "seed": pipeline.config.training.seed,
        "stages": {name: done and done["seconds"] for name, done in stages_done.items()},
        "by_split": {
            name: {split: _passes(values) for split, values in one.by_split.items()}
            for name, one in found.items()
        },
        "differences": {
            f"{after} - {before}": _passes(compare(found[before], found[after], splits=splits))
            for before, after in (
                ("base", "sft"),
                ("sft", "rlhf"),
                ("sft", "control"),
                ("control", "rlhf"),
            )
        },
    }


def _passes(metrics: dict[str, Any]) -> dict[str, Any]:
    """Only pass rates: the other metrics stay in each run's own files."""
    return {name: value for name, value in metrics.items() if name.startswith("pass_at_1")}


def points(entry: dict[str, Any], key: str = "value") -> str:
    value, low, high = entry[key], entry["low"], entry["high"]
    if value is None:
        return "n/a"
    return f"{100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def table(runs: list[dict[str, Any]]) -> str:
    lines = []
    for split in ("eval_seen", "eval_unseen"):
        for metric in ("pass_at_1", "pass_at_1_sampled"):
            lines += [
                f"\n`{split}`, {metric} in percent with 95% intervals\n",
                "| seed | base | SFT | RLHF | SFT continued (control) |",
                "|---|---|---|---|---|",
            ]
            for run in runs:
                cells = [
                    points(run["by_split"][name][split][metric])
                    for name in ("base", "sft", "rlhf", "control")
                ]
                lines.append(f"| {run['seed']} | {' | '.join(cells)} |")
    lines += [
        "\nPaired differences of greedy pass@1 on `eval_seen`, points\n",
        "| seed | SFT - base | RLHF - SFT | control - SFT | RLHF - control |",
        "|---|---|---|---|---|",
    ]
    for run in runs:
        cells = [
            points(run["differences"][name]["pass_at_1/eval_seen"], "difference")
            for name in ("sft - base", "rlhf - sft", "control - sft", "rlhf - control")
        ]
        lines.append(f"| {run['seed']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def plot(runs: list[dict[str, Any]]) -> bytes:
    """PNG: pass rates with their intervals, a group a seed; greedy and sampled, seen and unseen."""
    panels = [
        (s, m) for s in ("eval_seen", "eval_unseen") for m in ("pass_at_1", "pass_at_1_sampled")
    ]
    titles = {"eval_seen": "unseen parameters", "eval_unseen": "unseen families"}
    ways = {"pass_at_1": "greedy", "pass_at_1_sampled": "sampled at temperature 1"}
    with house_style():
        figure, axes = grid(len(panels), panel=(5.0, 3.2), columns=2)
        for axis, (split, metric) in zip(axes, panels, strict=True):
            for place, (name, label) in enumerate(SHOWN.items()):
                found = [run["by_split"][name][split][metric] for run in runs]
                value, low, high = (
                    [100 * one[k] for one in found] for k in ("value", "low", "high")
                )
                across = [group + 0.2 * (place - 1.5) for group in range(len(runs))]
                axis.bar(across, value, 0.18, label=label, color=MODEL_COLOURS.get(name, GREEN))
                for x, below, above in zip(across, low, high, strict=True):
                    axis.plot([x, x], [below, above], color="black", linewidth=1.2)
            axis.set_xticks(range(len(runs)), [f"seed {run['seed']}" for run in runs])
            axis.set(
                title=f"{titles[split]}, {ways[metric]}", ylabel="tasks solved, %", ylim=(0, 80)
            )
        axes[-1].legend(ncols=2)
        return finish(
            figure,
            title="pass@1 by execution",
            caption="Lines: 95% bootstrap intervals over tasks.",
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("learning_runs"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--preset", default="cpu-test")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.FIELD=VALUE")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="only draw this learning.json")
    args = parser.parse_args()
    if args.plot is not None:
        runs = json.loads(args.plot.read_text(encoding="utf-8"))["runs"]
        write_bytes(args.plot.with_suffix(".png"), plot(runs))
        return
    pipelines = [pipeline_of(args.preset, seed, args.out, args.set) for seed in args.seeds]
    for pipeline in pipelines:
        pipeline.run_full_pipeline()
    ratio = max(time_ratio(pipeline) for pipeline in pipelines)
    for pipeline in pipelines:
        run_control(pipeline, ratio)
    runs = [measured(pipeline) for pipeline in pipelines]
    write_json(args.out / "learning.json", {"runs": runs}, 1)
    text = table(runs)
    write_text(args.out / "learning.md", text)
    write_bytes(args.out / "learning.png", plot(runs))
    print(text)
    print(json.dumps([run["stages"] for run in runs]))


if __name__ == "__main__":
    main()
