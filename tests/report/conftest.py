"""A made-up run: the numbers are invented for the tests and are named so in the files."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modern_rlhf.evaluation.evaluator import PERIODIC_METRICS
from modern_rlhf.report.samples import write_samples
from modern_rlhf.tracking import RunTracker
from modern_rlhf.utils.atomic import write_json

TARGETS = {"bertscore": 0.7, "codebleu": 0.6, "bleu": 0.4, "rouge": 0.5, "ruby": 0.3}
FINAL = {
    "pass_at_1": 0.61,
    "bleu": 0.44,
    "chrf": 0.58,
    "rouge": 0.63,
    "codebleu": 0.56,
    "ruby": 0.55,
}
START = {"pass_at_1": 0.03, "bleu": 0.06, "chrf": 0.2, "rouge": 0.18, "codebleu": 0.15, "ruby": 0.2}


def _entry(value: float, width: float = 0.04) -> dict[str, Any]:
    return {"value": value, "low": value - width, "high": value + width, "n": 164, "reason": None}


def _gap(value: float, width: float) -> dict[str, Any]:
    return {
        "difference": value,
        "low": value - width,
        "high": value + width,
        "p_value": 0.001 if abs(value) > width else 0.4,
        "n": 164,
    }


def _results() -> dict[str, Any]:
    missing = {
        "value": None,
        "low": None,
        "high": None,
        "n": 0,
        "reason": "no encoder on this machine",
    }
    models: dict[str, dict[str, Any]] = {}
    for name, share in (("base", 0.0), ("sft", 0.6), ("rlhf", 1.0)):
        models[name] = {k: _entry(START[k] + share * (FINAL[k] - START[k])) for k in FINAL}
        models[name]["bertscore"] = dict(missing)
        models[name]["reward"] = _entry(-0.4 + 1.7 * share, 0.1)
        models[name]["syntax_valid"] = _entry(0.5 + 0.48 * share, 0.02)
    models["rlhf"]["kl"] = _entry(6.3, 0.8)
    final = models["rlhf"]
    return {
        "seed": 42,
        "algorithm": "ppo",
        **{key: final[key]["value"] for key in TARGETS},
        "models": models,
        "targets": TARGETS,
        "targets_met": {
            key: None if final[key]["value"] is None else final[key]["value"] >= target
            for key, target in TARGETS.items()
        },
        "comparisons": {
            "sft - base": {"bleu": _gap(0.228, 0.03), "pass_at_1/eval_seen": _gap(0.3, 0.1)},
            "rlhf - sft": {"bleu": _gap(0.152, 0.03), "syntax_valid": _gap(-0.01, 0.02)},
        },
        "by_split": {
            name: {
                "eval_seen": {"pass_at_1": _entry(0.7 * share + 0.1)},
                "eval_unseen": {"pass_at_1": _entry(0.4 * share + 0.1)},
            }
            for name, share in (("base", 0.0), ("sft", 0.6), ("rlhf", 1.0))
        },
        "honesty_assessment": {
            "train_eval_prompt_overlap": {
                "flag": False,
                "evidence": {"exact": 0, "near_duplicate": 1, "n": 164},
            },
            "reward_hacking": {
                "flag": True,
                "evidence": {"reward_gain": 1.7, "pass_at_1_gain": 0.02},
            },
            "trivial_baseline_as_good": {
                "flag": False,
                "evidence": {
                    "bleu": {"empty": 0.0, "echo": 0.158, "model": 0.44},
                    "worst": ["a", "b"],
                },
            },
            "codebleu_implausibly_high_for_conala": {"flag": None, "evidence": {"set": "made up"}},
        },
        "stages": {
            "sft": {"seconds": 310.5, "peak_memory_mb": 1210.0, "tokens_per_second": 5230.0},
            "reward": {"seconds": 95.2, "peak_memory_mb": 1530.0, "tokens_per_second": 7010.0},
            "ppo": {"seconds": 4210.0, "peak_memory_mb": 2410.0, "tokens_per_second": 812.0},
        },
    }


def _train(tracker: RunTracker, chance: random.Random, steps: int) -> None:
    def noise(scale: float) -> float:
        return chance.gauss(0, scale)

    for step in range(1, steps + 1):
        at = step / steps
        loss = 0.7 + 2.3 * math.exp(-3 * at) + noise(0.08)
        values = {
            "loss": loss,
            "learning_rate": 5e-5 * (1 - at),
            "gradient_norm": 1 + noise(0.1),
            "log_perplexity": loss - 0.05,
        }
        tracker.log("sft", step, values, epoch=at)
        tracker.log_timing("sft", step, {"seconds": 1.0, "tokens_per_second": 5200 + noise(150)})
        if step % (steps // 4) == 0:
            tracker.log("sft", step, _scores(0.6 * at), epoch=at, kind="eval")
    for step in range(1, steps // 2 + 1):
        at = 2 * step / steps
        accuracy = 0.5 + 0.3 * (1 - math.exp(-3 * at)) + noise(0.03)
        values = {
            "loss": 0.7 - 0.25 * at + noise(0.03),
            "pair_accuracy": accuracy,
            "pointwise_loss": 0.4 - 0.1 * at,
            "rating_absolute_error": 0.9 - 0.3 * at,
            "gradient_norm": 1 + noise(0.1),
            "learning_rate": 1e-5,
        }
        tracker.log("reward", step, values, epoch=2 * at)
    for step in range(1, steps + 1):
        at = step / steps
        passed = 0.35 + 0.3 * at + noise(0.03)
        crash = 0.4 - 0.2 * at + noise(0.02)
        values = {
            "reward": 0.2 + 1.1 * at + noise(0.1),
            "reward_std": 0.5 - 0.2 * at,
            "score": 0.1 + 0.9 * at + noise(0.1),
            "reward_syntax": 0.8 + 0.19 * at,
            "reward_execution": passed,
            "reward_human_preference": 0.5 * at + noise(0.1),
            "kl": 6.5 * (1 - math.exp(-2.5 * at)) + noise(0.2),
            "kl_k3_per_token": 0.09 * at,
            "approx_kl": 0.004 + noise(0.001),
            "entropy": 1.2 - 0.4 * at + noise(0.02),
            "clip_fraction": 0.12 + noise(0.01),
            "clip_fraction_low": 0.05,
            "clip_fraction_high": 0.07,
            "value_loss": 0.6 * math.exp(-3 * at) + 0.05,
            "explained_variance": float("nan") if step == 3 else 0.8 * (1 - math.exp(-3 * at)),
            "policy_loss": noise(0.02),
            "response_length": 42 + 10 * at + noise(2),
            "finished_share": 0.9 + 0.08 * at,
            "unscorable_share": 0.0,
            "verdict_pass": passed,
            "verdict_fail": 1 - passed - crash,
            "verdict_syntax_error": crash,
            "kl_coefficient": 0.02 + 0.01 * at,
            "learning_rate": 1e-5 * (1 - at),
            "gradient_norm": 0.8 + noise(0.1),
            "ratio_mean": 1 + noise(0.002),
            "optimizer_steps": 4.0 * step,
        }
        tracker.log("ppo", step, values, epoch=3 * at)
        verdicts = {"pass": passed, "fail": 1 - passed - crash, "syntax_error": crash}
        rows = [
            {
                "stage": "ppo",
                "step": step,
                "prompt": "p",
                "text": "t",
                "reward": 0.5,
                "verdict": verdict,
            }
            for verdict in chance.choices(list(verdicts), list(verdicts.values()), k=8)
        ]
        tracker.log_rollouts(rows)
        if step % (steps // 6) == 0:
            values = _scores(0.6 + 0.4 * at)
            tracker.log("ppo", step, values, epoch=3 * at, kind="eval")
    tracker.status(state="done", stage="ppo", step=steps, total_steps=steps, epoch=3.0)


def _scores(share: float) -> dict[str, float]:
    values: dict[str, float] = {}
    for key in FINAL.keys() & PERIODIC_METRICS:
        value = START[key] + share * (FINAL[key] - START[key])
        values |= {key: value, f"{key}_low": value - 0.04, f"{key}_high": value + 0.04}
    return {**values, "score": values["pass_at_1"]}


SAMPLES = [
    {
        "prompt": "MADE-UP TEST DATA. Write a function that adds two numbers.",
        "reference": "def add(a, b):\n    return a + b",
        "base": {"text": "add the numbers together and the", "verdict": "syntax_error"},
        "sft": {"text": "def add(a, b):\n    return a - b", "verdict": "fail"},
        "rlhf": {"text": "def add(a, b):\n    return a + b", "verdict": "pass"},
    },
    {
        "prompt": "A hostile <script>alert(1)</script> & ```prompt```",
        "base": "````\n<img src=http://example.org/x.png>\n````",
        "sft": "",
        "rlhf": "print('é\u2028\x0c')",
    },
]


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Path]:
    """`make_run(folder, steps=60)`: the files of a finished run, as the package leaves them."""

    def make(folder: Path, steps: int = 60) -> Path:
        chance = random.Random(0)
        with RunTracker(folder) as tracker:
            _train(tracker, chance, steps)
        note = "made-up numbers for tests, measured on nothing"
        write_json(folder / "training_results.json", {"note": note, **_results()}, 1)
        config = {
            "note": note,
            "config": {
                "model": {"base_model_name": "builtin:tiny-code-lm"},
                "training": {"seed": 42, "learning_rate": 1e-5},
            },
            "versions": {"git": {"commit": "0123abc", "modified": False}},
            "seed": 42,
        }
        write_json(folder / "config.json", config, 1)
        write_samples(folder / "samples.md", SAMPLES)
        certainty = [0.53, 0.58, 0.63, 0.68, 0.73, 0.78, 0.83, 0.88, 0.93, 0.98]
        evaluation = {
            "judges": {"pairs": "people", "ratings": None},
            "accuracy": {"value": 0.78, "low": 0.73, "high": 0.83, "n": 300},
            "scores_chosen": [chance.gauss(0.5, 1) for _ in range(300)],
            "scores_rejected": [chance.gauss(-0.6, 1) for _ in range(300)],
            "calibration": {
                "probability": certainty,
                "accuracy": [p - 0.02 + chance.gauss(0, 0.03) for p in certainty],
                "count": [12, 18, 22, 28, 30, 36, 40, 42, 40, 32],
            },
            "expected_calibration_error": 0.031,
            "baselines": {"longer_wins": {"value": 0.41, "low": 0.35, "high": 0.47, "n": 300}},
            "synthetic_rater": {
                "model": "made <up>",
                "agreement": {"pearson": 0.29, "low": 0.04, "high": 0.51, "n": 60, "reason": None},
            },
        }
        write_json(folder / "reward_model" / "evaluation.json", evaluation, 1)
        return folder

    return make


@pytest.fixture(scope="session")
def finished_run(make_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One made-up run that tests only read; its metrics.jsonl ends in a torn line."""
    folder = make_run(tmp_path_factory.mktemp("finished") / "run", steps=32)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"torn')
    return folder


@pytest.fixture(scope="session")
def reported(finished_run: Path) -> list[Path]:
    """What `build_report` wrote for the finished run."""
    pytest.importorskip("matplotlib")
    from modern_rlhf.report.build import build_report

    return build_report(finished_run)


@pytest.fixture
def samples() -> list[dict[str, Any]]:
    """Answers of three models to two prompts, hostile text among them."""
    return json.loads(json.dumps(SAMPLES))
