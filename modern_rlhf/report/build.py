"""Make plots/ and report.html from the files of a run. Reads files only, never a live trainer."""

from __future__ import annotations

from pathlib import Path

from modern_rlhf.report.curves import evaluation_curves, stage_spans
from modern_rlhf.report.html import Picture, render
from modern_rlhf.report.inputs import RunFiles, read_run, rlhf_stage
from modern_rlhf.report.plots import all_metrics_by_epoch, metrics_by_epoch, target_achievement
from modern_rlhf.report.training_plots import (
    reward_plot,
    rlhf_details_plot,
    rlhf_plot,
    sft_plot,
)
from modern_rlhf.utils.atomic import write_bytes, write_text


def build_report(output_dir: Path) -> list[Path]:
    """Write every plot the run has data for, and report.html; the paths written, the page last.

    Safe to call while the run goes on, and as often as wanted: files are replaced atomically.

    Raises:
        OutputError: the folder holds no run, or cannot be written.
    """
    run = read_run(Path(output_dir))
    pictures = _draw(run)
    paths = []
    for picture in pictures:
        paths.append(run.folder / "plots" / picture.name)
        write_bytes(paths[-1], picture.png)
    paths.append(run.folder / "report.html")
    write_text(paths[-1], render(run, pictures))
    return paths


def _draw(run: RunFiles) -> list[Picture]:
    curves, spans = evaluation_curves(run.metrics), stage_spans(run.metrics)
    models = run.results.get("models", {})
    targets = {
        name: float(value)
        for name, value in run.results.get("targets", {}).items()
        if isinstance(value, int | float)
    }
    stage = rlhf_stage(run)
    drawn = [
        (
            "target_achievement.png",
            "Bars of the last model's metrics against their targets",
            target_achievement(models, targets),
        ),
        (
            "evaluation_metrics_by_epoch.png",
            "One panel a metric over passes, with intervals and targets",
            metrics_by_epoch(curves, spans, targets, models.get("base", {})),
        ),
        (
            "all_evaluation_metrics_by_epoch.png",
            "All metrics between 0 and 1 over passes",
            all_metrics_by_epoch(curves, spans, targets, models.get("base", {})),
        ),
        (
            "rlhf_training_metrics.png",
            "Reward, KL, entropy, losses and lengths over rollouts or optimiser steps",
            rlhf_plot(run.metrics, stage) if stage else None,
        ),
        (
            "rlhf_training_details.png",
            "All other values logged by the RLHF stage",
            rlhf_details_plot(run.metrics, stage) if stage else None,
        ),
        (
            "reward_model.png",
            "Loss, accuracy, score distributions and calibration of the reward model",
            reward_plot(run.metrics, run.reward_evaluation),
        ),
        (
            "sft_training.png",
            "Loss, learning rate and speed of supervised fine-tuning",
            sft_plot(run.metrics, run.timings),
        ),
    ]
    return [Picture(name, alternative, png) for name, alternative, png in drawn if png is not None]
