"""Plots of what the training loops log: SFT, the RLHF stage, and the reward model.

A panel shows the keys it knows and is left out when none of them was logged; whatever was logged
and has no panel of its own goes to a figure of details, so that nothing logged stays invisible.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from modern_rlhf.report.curves import Curve, Rows, logged_keys, smoothed, training_curve
from modern_rlhf.report.labels import REWARD_STAGES, stage_label, unit
from modern_rlhf.report.style import (
    BLUE,
    COLOURS,
    DASHES,
    GREY,
    SKY,
    finish,
    grid,
    house_style,
    plain_small_numbers,
    whole_steps,
)


@dataclass(frozen=True)
class Panel:
    """One panel: the logged keys (as regular expressions) that share an axis and its unit."""

    title: str
    keys: tuple[str, ...]
    label: str
    unit_scale: bool = False
    """The values are shares between 0 and 1."""


RLHF_PANELS = (
    Panel("Reward", ("reward", "score"), "reward per answer"),
    Panel("Reward components", (r"reward_(?!std$).+",), "component per answer"),
    Panel("KL to the reference", ("kl",), "nats per answer"),
    Panel("KL, per token", ("kl_k3_per_token", "approx_kl"), "nats per token"),
    Panel("Entropy", ("entropy",), "nats per token"),
    Panel("Clip fraction", (r"(value_)?clip_fraction(_low|_high)?",), "share of tokens"),
    Panel("Value loss", ("value_loss", "value_error"), "squared reward"),
    Panel("Explained variance", ("explained_variance",), "share of return variance"),
    Panel("Loss", ("loss", "policy_loss"), "loss as optimised"),
    Panel("Implicit reward margin", ("rewards_margin", "rewards_(un)?desirable"), "beta x nats"),
    Panel("Preference accuracy", ("rewards_accuracy",), "share of pairs", True),
    Panel("Response length", ("response_length",), "tokens"),
    Panel(
        "Finished and unscorable", ("finished_share", "unscorable_share"), "share of answers", True
    ),
    Panel("Verdicts", (r"verdict_.+",), "share of answers", True),
    Panel("KL coefficient", ("kl_coefficient",), "weight of the KL in the reward"),
    Panel("Learning rate", ("learning_rate",), "per optimiser step"),
    Panel("Gradient norm", ("gradient_norm",), "L2 norm before clipping"),
)
SFT_PANELS = (
    Panel("Loss", ("loss",), "nats per token"),
    Panel("Log perplexity of the answers", ("log_perplexity",), "nats per token"),
    Panel("Learning rate", ("learning_rate",), "per optimiser step"),
    Panel("Gradient norm", ("gradient_norm",), "L2 norm before clipping"),
)


def rlhf_plot(rows: Rows, stage: str) -> bytes | None:
    """`rlhf_training_metrics.png`; None when the stage logged nothing that has a panel."""
    caption = (
        "Faint lines are single steps, strong lines a running mean; the band around the reward is "
        "one standard deviation over the answers of a step."
    )
    panels = _filled(RLHF_PANELS, logged_keys(rows, stage))
    return _panels_plot(rows, stage, panels, f"{stage_label(stage)} training", caption)


def rlhf_details_plot(rows: Rows, stage: str, limit: int = 24) -> bytes | None:
    """Every value of the RLHF stage that `rlhf_plot` does not show; None when there is none."""
    keys = logged_keys(rows, stage)
    shown = {key for panel in _filled(RLHF_PANELS, keys) for key in panel.keys}
    rest = [key for key in keys if key not in shown][:limit]
    panels = [Panel(key.replace("_", " "), (key,), unit(key)) for key in rest]
    title = f"{stage_label(stage)} training: all other logged values"
    return _panels_plot(rows, stage, panels, title, "Explained key by key in docs/metrics.md.")


def sft_plot(rows: Rows, timings: Rows) -> bytes | None:
    """`sft_training.png`; None when SFT logged nothing."""
    panels = _filled(SFT_PANELS, logged_keys(rows, "sft"))
    caption = "Faint lines are single steps, strong lines a running mean."
    return _panels_plot(rows, "sft", panels, "SFT training", caption, timings)


def reward_plot(rows: Rows, evaluation: Mapping[str, Any]) -> bytes | None:
    """`reward_model.png`: training curves, and from evaluation.json scores and calibration."""
    stage = next((name for name in REWARD_STAGES if logged_keys(rows, name)), REWARD_STAGES[0])
    panels = _filled(
        (
            Panel("Loss", ("loss",), "loss as optimised"),
            Panel("Accuracy on training pairs", ("pair_accuracy",), "share of pairs", True),
            Panel("Error on training ratings", (".*absolute_error",), "rating levels"),
        ),
        logged_keys(rows, stage),
    )
    scores = bool(evaluation.get("scores_chosen")) and bool(evaluation.get("scores_rejected"))
    bins = (evaluation.get("calibration") or {}).get("probability")
    count = len(panels) + scores + bool(bins)
    if not count:
        return None
    with house_style():
        figure, axes = grid(count, columns=2)
        for axis, panel in zip(axes, panels, strict=False):
            _draw_panel(axis, rows, stage, panel)
        if scores:
            _draw_scores(axes[len(panels)], evaluation)
        if bins:
            _draw_calibration(axes[-1], evaluation)
        caption = (
            "Calibration: held-out pairs binned by the model's "
            "certainty; the area of a dot is its number of pairs; on the dashed line it is right as "
            "often as it claims."
        )
        return finish(figure, title="Reward model", caption=caption)


def _filled(panels: Sequence[Panel], keys: Sequence[str]) -> list[Panel]:
    """The panels with their patterns replaced by the keys that were logged; empty ones dropped."""
    filled = []
    for panel in panels:
        found = tuple(key for pattern in panel.keys for key in keys if re.fullmatch(pattern, key))
        if found:
            filled.append(
                Panel(panel.title, tuple(dict.fromkeys(found)), panel.label, panel.unit_scale)
            )
    return filled


def _panels_plot(
    rows: Rows, stage: str, panels: Sequence[Panel], title: str, caption: str, timings: Rows = ()
) -> bytes | None:
    speed = [row for row in timings if row.get("stage") == stage and row.get("tokens_per_second")]
    if not panels:
        return None
    with house_style():
        figure, axes = grid(len(panels) + bool(speed), columns=3 if len(panels) > 4 else 2)
        for axis, panel in zip(axes, panels, strict=False):
            _draw_panel(axis, rows, stage, panel)
        if speed:
            axes[-1].plot(
                [row["step"] for row in speed],
                [row["tokens_per_second"] for row in speed],
                color=BLUE,
            )
            axes[-1].set(title="Speed", ylabel="tokens per second", xlabel=step_name(rows, stage))
            axes[-1].set_ylim(bottom=0)
            whole_steps(axes[-1])
        return finish(figure, title=title, caption=caption)


def step_name(rows: Rows, stage: str) -> str:
    """What a logged step of the stage is: an online algorithm logs once a rollout."""
    online = "optimizer_steps" in logged_keys(rows, stage)
    return "rollout" if online else "optimiser step"


def _draw_panel(axis: Axes, rows: Rows, stage: str, panel: Panel) -> None:
    several = len(panel.keys) > 1
    for index, key in enumerate(panel.keys):
        colour = COLOURS[index % len(COLOURS)]
        name = _short(key, panel.keys) if several else "training"
        curve = training_curve(rows, stage, key)
        if len(curve):
            _draw_curve(axis, curve, colour, DASHES[index // len(COLOURS) % len(DASHES)], name)
    axis.set(title=panel.title, ylabel=panel.label, xlabel=step_name(rows, stage))
    whole_steps(axis)
    if panel.unit_scale:
        axis.set_ylim(-0.03, 1.03)
    elif panel.title == "Clip fraction":
        axis.set_ylim(bottom=0)
    plain_small_numbers(axis)
    handles = axis.get_legend_handles_labels()[0]
    if len(handles) > 1:
        axis.legend(ncols=2 if len(handles) > 4 else 1, handlelength=1.6, columnspacing=1.0)


def _draw_curve(axis: Axes, curve: Curve, colour: str, dash: Any, name: str) -> None:
    few = len(curve) <= 30
    if few:
        axis.plot(curve.x, curve.y, color=colour, linestyle=dash, marker=".", label=name)
    else:
        axis.plot(curve.x, curve.y, color=colour, alpha=0.3, linewidth=0.8)
        mean = smoothed(curve.y, max(3, len(curve) // 25))
        axis.plot(curve.x, mean, color=colour, linestyle=dash, label=name)
    if any(math.isfinite(value) for value in curve.low):
        axis.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.12, linewidth=0)


def _short(key: str, keys: Sequence[str]) -> str:
    """The key without the prefix that all keys of the panel share (`verdict_pass` -> `pass`)."""
    prefix = key.split("_")[0] + "_"
    if len(keys) > 1 and all(other.startswith(prefix) for other in keys):
        key = key.removeprefix(prefix)
    return key.replace("_", " ")


def _draw_scores(axis: Axes, evaluation: Mapping[str, Any]) -> None:
    chosen = [value for value in evaluation["scores_chosen"] if value is not None]
    rejected = [value for value in evaluation["scores_rejected"] if value is not None]
    low, high = min(chosen + rejected), max(chosen + rejected)
    width = (high - low) / 30 or 1.0
    edges = [low + index * width for index in range(31)]
    for values, colour, name, hatch in (
        (rejected, GREY, "rejected", "////"),
        (chosen, SKY, "chosen", ""),
    ):
        axis.hist(
            values, bins=edges, color=colour, alpha=0.6, label=name, hatch=hatch, edgecolor="white"
        )
    accuracy = (evaluation.get("accuracy") or {}).get("value")
    told = f"chosen scores higher\nin {accuracy:.0%} of pairs" if accuracy is not None else None
    axis.set(title="Held-out scores", xlabel="score", ylabel="answers")
    axis.legend(title=told, title_fontsize=8.5)


def _draw_calibration(axis: Axes, evaluation: Mapping[str, Any]) -> None:
    table = evaluation["calibration"]
    counts = table.get("count") or [1] * len(table["probability"])
    sizes = [30 + 270 * count / max(counts) for count in counts]
    left = min(0.5, *table["probability"])  # of the answer it prefers: never below one half
    axis.plot([left, 1], [left, 1], color=GREY, linestyle=(0, (4, 3)), linewidth=1.2)
    axis.plot(table["probability"], table["accuracy"], color=BLUE, linewidth=1)
    axis.scatter(table["probability"], table["accuracy"], s=sizes, color=BLUE, alpha=0.6)
    error = evaluation.get("expected_calibration_error")
    found = "" if error is None else f", expected error {error:.3f}"
    axis.set(title=f"Calibration{found}", xlabel="claimed certainty", ylabel="share right")
    axis.set_xlim(left - 0.03, 1.03)
    axis.set_ylim(min(left, *table["accuracy"]) - 0.06, 1.06)
