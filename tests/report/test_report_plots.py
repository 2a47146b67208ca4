"""The plots exist, are not blank, say what they show, and show the numbers of the files."""

from __future__ import annotations

import io
import math
import sys
from pathlib import Path
from typing import Any

import pytest

matplotlib = pytest.importorskip("matplotlib")
pytest.importorskip("PIL")

from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from PIL import Image  # noqa: E402

from modern_rlhf.errors import OutputError  # noqa: E402
from modern_rlhf.report import plots, style, training_plots  # noqa: E402
from modern_rlhf.report.build import build_report  # noqa: E402
from modern_rlhf.report.curves import evaluation_curves, stage_spans  # noqa: E402
from modern_rlhf.report.inputs import read_run  # noqa: E402
from modern_rlhf.tracking import RunTracker  # noqa: E402

NAMES = {
    "evaluation_metrics_by_epoch.png",
    "all_evaluation_metrics_by_epoch.png",
    "rlhf_training_metrics.png",
    "rlhf_training_details.png",
    "sft_training.png",
    "target_achievement.png",
    "reward_model.png",
}


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures drawn by a test; they do not become pixels, which takes long."""
    drawn: list[Figure] = []

    def keep(figure: Figure, *, title: str, caption: str) -> bytes:
        assert title and caption.endswith(".")
        drawn.append(figure)
        return b"not a PNG"

    for module in (plots, training_plots):
        monkeypatch.setattr(module, "finish", keep)
    return drawn


def test_every_plot_and_the_page_are_written(reported: list[Path]) -> None:
    assert {path.name for path in reported} == NAMES | {"report.html"}
    assert reported[-1].name == "report.html"
    assert all(path.parent.name == "plots" for path in reported[:-1])


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_plot_is_not_blank(reported: list[Path], name: str) -> None:
    path = next(path for path in reported if path.name == name)
    image = Image.open(io.BytesIO(path.read_bytes())).convert("L")
    assert image.width >= 900 and image.height >= 400
    histogram = image.histogram()
    inked = sum(histogram[:200]) / sum(histogram)
    assert 0.002 < inked < 0.5
    # something is drawn in each third of the width: no panel has been pushed out of the picture
    for third in range(3):
        box = (third * image.width // 3, 0, (third + 1) * image.width // 3, image.height)
        assert sum(image.crop(box).histogram()[:200]) > 200, third


def labelled(axis: Axes) -> bool:
    return bool(axis.get_title(loc="left") and axis.get_xlabel() and axis.get_ylabel())


def test_every_panel_has_a_title_and_units(finished_run: Path, figures: list[Figure]) -> None:
    run = read_run(finished_run)
    curves, spans = evaluation_curves(run.metrics), stage_spans(run.metrics)
    plots.metrics_by_epoch(curves, spans, run.results["targets"], run.results["models"]["base"])
    training_plots.rlhf_plot(run.metrics, "ppo")
    training_plots.rlhf_details_plot(run.metrics, "ppo")
    training_plots.sft_plot(run.metrics, run.timings)
    training_plots.reward_plot(run.metrics, run.reward_evaluation)
    assert len(figures) == 5
    for figure in figures:
        for axis in figure.axes:
            assert labelled(axis), axis.get_title(loc="left")


def panel(figure: Figure, title: str) -> Axes:
    return next(axis for axis in figure.axes if axis.get_title(loc="left") == title)


def lines(axis: Axes) -> dict[str, tuple[list[float], list[float]]]:
    return {
        str(line.get_label()): (list(line.get_xdata()), list(line.get_ydata()))
        for line in axis.get_lines()
    }


def test_the_evaluation_panel_shows_values_bands_targets_and_the_base(
    figures: list[Figure],
) -> None:
    rows: list[dict[str, Any]] = [
        {"stage": "sft", "kind": "eval", "step": 5, "epoch": 1.0, "bleu": 0.2},
        {"stage": "ppo", "kind": "eval", "step": 5, "epoch": 0.5, "bleu": 0.3},
        {"stage": "ppo", "kind": "eval", "step": 9, "epoch": 1.0, "bleu": 0.4},
    ]
    for row in rows:
        row |= {"bleu_low": row["bleu"] - 0.05, "bleu_high": row["bleu"] + 0.05}
    plots.metrics_by_epoch(
        evaluation_curves(rows), stage_spans(rows), {"bleu": 0.35}, {"bleu": {"value": 0.1}}
    )
    axis = panel(figures[0], "BLEU")
    shown = lines(axis)
    assert shown["SFT"] == ([1.0], [0.2])
    assert shown["PPO"] == ([1.5, 2.0], [0.3, 0.4])  # after SFT's one pass
    assert shown["target"][1] == [0.35, 0.35] and shown["base model"][1] == [0.1, 0.1]
    bands = [path.vertices for item in axis.collections for path in item.get_paths()]
    heights = sorted({round(float(y), 3) for band in bands for _, y in band})
    assert heights == pytest.approx([0.15, 0.25, 0.35, 0.45])


def test_targets_say_met_missed_and_why_not(figures: list[Figure]) -> None:
    models = {
        "rlhf": {
            "bleu": {"value": 0.5, "low": 0.45, "high": 0.55},
            "ruby": {"value": 0.2},
            "bertscore": {"value": None, "reason": "no encoder"},
        }
    }
    plots.target_achievement(models, {"bleu": 0.4, "ruby": 0.3, "bertscore": 0.7})
    texts = [text.get_text() for text in figures[0].axes[0].texts]
    assert sorted(texts) == [
        "0.200, target 0.30: missed",
        "0.500, target 0.40: met",
        "n/a: no encoder",
    ]


def test_reward_components_and_reward_spread_are_told_apart(figures: list[Figure]) -> None:
    rows = [
        {
            "stage": "ppo",
            "kind": "train",
            "step": step,
            "reward": 1.0,
            "reward_std": 0.5,
            "reward_syntax": 0.9,
            "reward_execution": 0.1,
        }
        for step in range(3)
    ]
    training_plots.rlhf_plot(rows, "ppo")
    assert set(lines(panel(figures[0], "Reward components"))) == {"syntax", "execution"}
    reward = panel(figures[0], "Reward")
    assert set(lines(reward)) == {"training"}
    (band,) = reward.collections
    assert {round(float(y), 3) for _, y in band.get_paths()[0].vertices} == {0.5, 1.5}


def test_whatever_is_logged_is_shown_somewhere(finished_run: Path, figures: list[Figure]) -> None:
    run = read_run(finished_run)
    training_plots.rlhf_plot(run.metrics, "ppo")
    training_plots.rlhf_details_plot(run.metrics, "ppo")
    titles = {axis.get_title(loc="left") for axis in figures[1].axes}
    assert titles == {"ratio mean", "optimizer steps"}
    known = {axis.get_title(loc="left") for axis in figures[0].axes}
    wanted = {"Reward", "Reward components", "KL to the reference", "Entropy", "Clip fraction"}
    wanted |= {"Value loss", "Explained variance", "Response length", "Learning rate", "Verdicts"}
    assert wanted <= known
    assert {axis.get_xlabel() for axis in figures[0].axes} == {"rollout"}


def test_preference_training_gets_its_own_panels(figures: list[Figure]) -> None:
    values = {"loss": 0.6, "rewards_margin": 0.2, "rewards_accuracy": 0.7, "learning_rate": 1e-6}
    rows = [{"stage": "dpo", "kind": "train", "step": step, **values} for step in (1, 2)]
    training_plots.rlhf_plot(rows, "dpo")
    titles = [axis.get_title(loc="left") for axis in figures[0].axes]
    assert titles == ["Loss", "Implicit reward margin", "Preference accuracy", "Learning rate"]
    assert {axis.get_xlabel() for axis in figures[0].axes} == {"optimiser step"}


def test_reward_panels_show_one_kind_of_value_each(figures: list[Figure]) -> None:
    values = {"loss": 2.0, "pair_accuracy": 0.7, "pair_loss": 0.5, "ordinal_accuracy": 0.4}
    values |= {"rating_absolute_error": 0.8, "ordinal_absolute_error": 0.9}
    rows = [{"stage": "reward", "kind": "train", "step": step, **values} for step in (1, 2)]
    training_plots.reward_plot(rows, {})
    shown = {axis.get_title(loc="left"): set(lines(axis)) for axis in figures[0].axes}
    assert shown == {
        "Loss": {"training"},
        "Accuracy on training pairs": {"training"},
        "Error on training ratings": {"rating absolute error", "ordinal absolute error"},
    }


def test_the_score_of_an_evaluation_is_no_reward(figures: list[Figure]) -> None:
    rows = [
        {"stage": "ppo", "kind": "train", "step": 1, "reward": 1.0, "score": 1.0},
        {"stage": "ppo", "kind": "eval", "step": 1, "score": 0.25},  # a pass rate, to rank by
    ]
    training_plots.rlhf_plot(rows, "ppo")
    assert set(lines(panel(figures[0], "Reward"))) == {"reward", "score"}


def test_one_point_nan_and_constant_values_can_be_drawn() -> None:
    rows = [{"stage": "ppo", "kind": "train", "step": 1, "reward": None, "kl": 0.0}]
    assert training_plots.rlhf_plot(rows, "ppo")
    evaluation = {"scores_chosen": [1.0], "scores_rejected": [1.0], "accuracy": {"value": None}}
    assert training_plots.reward_plot([], evaluation)
    rows = [{"stage": "ppo", "kind": "eval", "step": 0, "epoch": 0.0, "bleu": 0.1}]
    curves, spans = evaluation_curves(rows), stage_spans(rows)
    assert plots.metrics_by_epoch(curves, spans, {}, {})
    assert plots.all_metrics_by_epoch(curves, spans, {}, {})


def test_nothing_to_draw_is_none() -> None:
    assert plots.metrics_by_epoch({}, [], {}, {}) is None
    assert plots.all_metrics_by_epoch({}, [], {}, {}) is None
    assert plots.target_achievement({}, {"bleu": 0.4}) is None
    assert plots.target_achievement({"base": {}}, {}) is None
    assert training_plots.rlhf_plot([], "ppo") is None
    assert training_plots.rlhf_details_plot([], "ppo") is None
    assert training_plots.sft_plot([], []) is None
    assert training_plots.reward_plot([], {}) is None


def test_colours_are_told_apart_without_red_and_green() -> None:
    """The colours keep a distance also as a deuteranope sees them (Vienot 1999, linear RGB)."""

    def seen(colour: str) -> tuple[float, float, float]:
        r, g, b = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        r, g, b = r**2.2, g**2.2, b**2.2
        yellow = 0.29275 * r + 0.70725 * g
        return yellow, yellow, -0.02234 * r + 0.02234 * g + b

    points = [seen(colour) for colour in style.COLOURS]
    for index, one in enumerate(points):
        for other in points[index + 1 :]:
            assert math.dist(one, other) > 0.05


def test_drawing_touches_no_global_state(finished_run: Path) -> None:
    before = dict(matplotlib.rcParams)
    run = read_run(finished_run)
    training_plots.sft_plot(run.metrics, run.timings)
    assert dict(matplotlib.rcParams) == before
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []


def test_a_young_run_gets_what_there_is(tmp_path: Path) -> None:
    with RunTracker(tmp_path) as tracker:
        tracker.log("sft", 1, {"loss": 2.0})
    assert [path.name for path in build_report(tmp_path)] == ["sft_training.png", "report.html"]


def test_a_folder_without_a_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="nothing to report"):
        build_report(tmp_path)
    with pytest.raises(OutputError, match="is not a folder"):
        build_report(tmp_path / "none")
    assert list(tmp_path.iterdir()) == []
