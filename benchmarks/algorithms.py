"""Does every online algorithm raise the reward and keep near the reference? The same budget, seeds 0-2.

    python -m benchmarks.algorithms --out algorithm_runs [--seeds 0 1 2] [--passes 7] [--prompts 96]

For every seed the model is fine-tuned once (preset `cpu-test`, without a learned reward); from there PPO,
REINFORCE, RLOO, GRPO and Dr. GRPO sample as many answers to the same prompts, in the same order, several
passes over them. The reward is the preset's composite of syntax, execution and similarity. Reported: mean
reward of the first and of the last pass (fresh samples of the policy as it is then) and their difference,
paired by prompt, with a 95% bootstrap interval over prompts; the mean KL to the fine-tuned model in the last
pass and its largest value in any rollout, nats a response. These are the prompts that are trained on: what
carries over to others is `benchmarks.learning`'s question. Writes `algorithms.json`, `algorithms.md` and
`algorithms.png`. A command that was interrupted goes on where it stopped when it is given again.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modern_rlhf.config.io import apply_overrides
from modern_rlhf.config.presets import get_preset
from modern_rlhf.config.sections import ModernRLHFConfig
from modern_rlhf.pipeline.pipeline import ModernRLHFPipeline
from modern_rlhf.report.style import COLOURS, DASHES, finish, grid, house_style, whole_steps
from modern_rlhf.tracking import read_metrics, read_rollouts
from modern_rlhf.utils.atomic import write_bytes, write_json, write_text

RUNS = {
    "ppo": ["training.algorithm=ppo"],
    "reinforce": ["training.algorithm=reinforce"],
    "rloo": ["training.algorithm=rloo"],
    "grpo": ["training.algorithm=grpo"],
    "dr_grpo": ["training.algorithm=grpo", "training.grpo_normalization=dr_grpo"],
}
BOUND = 10.0
"""Nats a response that the KL must stay below to be called bounded."""
SAMPLES_PER_PROMPT = 8
ROLLOUT = 24
"""Prompts of a rollout."""
SAMPLES = 2000


def configured(options: argparse.Namespace, seed: int, folder: Path, more: Sequence[str]) -> Any:
    rollouts = -(-options.passes * options.prompts // ROLLOUT)
    settings = [
        f"training.seed={seed}",
        f"data.output_path={folder}",
        "reward.use_custom_reward=false",
        f"data.max_prompts={options.prompts}",
        "data.validation_fraction=0",  # every prompt is trained on
        f"training.rlhf_epochs={options.passes}",
        f"training.samples_per_prompt={SAMPLES_PER_PROMPT}",
        f"training.rollout_batch_size={ROLLOUT * SAMPLES_PER_PROMPT}",
        "training.self_imitation_steps=0",  # the algorithms themselves are compared
        f"training.total_steps={2 * rollouts}",  # the preset has two mini-batches a rollout
        "training.save_steps=6",
        "training.eval_steps=0",
    ]
    config: ModernRLHFConfig = apply_overrides(
        get_preset("cpu-test"), [*settings, *options.set, *more]
    )
    return config


def run(options: argparse.Namespace, seed: int) -> None:
    """SFT of one seed, then every algorithm from it; finished stages are kept."""
    root = options.out / f"seed-{seed}"
    sft = configured(options, seed, root / "sft", [])
    ModernRLHFPipeline(sft, resume=True, stage="sft").run_full_pipeline()
    for name, more in RUNS.items():
        if name not in options.algorithms:
            continue
        folder = root / name
        if not (folder / "sft").is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copytree(root / "sft" / "sft", folder / "copying", dirs_exist_ok=True)
            (folder / "copying").rename(folder / "sft")
        config = configured(options, seed, folder, more)
        ModernRLHFPipeline(config, resume=True, stage="rlhf").run_full_pipeline()


def curves(folder: Path) -> dict[str, list[float]]:
    lines = [line for line in read_metrics(folder / "metrics.jsonl") if line["kind"] == "train"]
    lines = [line for line in lines if line["stage"] != "sft"]
    return {name: [float(line[name]) for line in lines] for name in ("reward", "kl")}


def ends(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Mean reward of each prompt when it was sampled for the first and for the last time, paired."""
    by_prompt: dict[str, dict[int, list[float]]] = {}
    for row in read_rollouts(folder / "rollouts.jsonl"):
        if row["reward"] is not None:
            by_prompt.setdefault(row["prompt"], {}).setdefault(row["step"], []).append(
                row["reward"]
            )
    again = [steps for steps in by_prompt.values() if len(steps) > 1]
    first, last = (np.array([np.mean(one[end(one)]) for one in again]) for end in (min, max))
    return first, last


def means(values: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """(SAMPLES,) bootstrap means."""
    picked = generator.integers(len(values), size=(SAMPLES, len(values)))
    drawn: np.ndarray = values[picked].mean(1)
    return drawn


def measured(out: Path, name: str, seed: int) -> dict[str, Any]:
    """One run's figures; the bootstrap is over prompts, the unit that was drawn."""
    folder = out / f"seed-{seed}" / name
    curve = curves(folder)
    first, last = ends(folder)
    window = -(-len(first) // ROLLOUT)  # rollouts of a pass
    gain = means(last - first, np.random.default_rng(seed))
    return {
        "algorithm": name,
        "seed": seed,
        "prompts": len(first),
        "first": float(first.mean()),
        "last": float(last.mean()),
        "gain": float(last.mean() - first.mean()),
        "gain_samples": gain.tolist(),
        "kl_last": float(np.mean(curve["kl"][-window:])),
        "kl_max": float(np.max(curve["kl"])),
        "curves": curve,
    }


def interval(samples: Any) -> str:
    low, high = np.quantile(np.asarray(samples), [0.025, 0.975])
    return f"[{low:+.3f}, {high:+.3f}]"


def table(runs: list[dict[str, Any]]) -> str:
    lines = [
        "| algorithm | seed | reward, first pass | last pass | gain [95%] | KL last | KL max |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in RUNS:
        mine = [run for run in runs if run["algorithm"] == name]
        for one in mine:
            lines.append(
                f"| {name} | {one['seed']} | {one['first']:.3f} | {one['last']:.3f} | "
                f"{one['gain']:+.3f} {interval(one['gain_samples'])} | {one['kl_last']:.2f} | "
                f"{one['kl_max']:.2f} |"
            )
        if mine:
            pooled = np.mean([one["gain_samples"] for one in mine], axis=0)
            low = float(np.quantile(pooled, 0.025))
            worst = max(one["kl_max"] for one in mine)
            verdict = "up" if low > 0 else "not shown to be up"
            bounded = "bounded" if worst < BOUND else "not bounded"
            lines.append(
                f"| **{name}** | all | {np.mean([o['first'] for o in mine]):.3f} | "
                f"{np.mean([o['last'] for o in mine]):.3f} | "
                f"{np.mean([o['gain'] for o in mine]):+.3f} {interval(pooled)}: {verdict} | "
                f"{np.mean([o['kl_last'] for o in mine]):.2f} | {worst:.2f}: {bounded} |"
            )
    return "\n".join(lines) + f"\n\nBounded: KL below {BOUND:g} nats a response in every rollout.\n"


def plot(runs: list[dict[str, Any]]) -> bytes:
    """PNG: reward and KL by rollout, a line an algorithm, the band from the lowest to the highest seed."""
    panels = {
        "reward": ("Reward of sampled answers", "mean reward, 0 to 1"),
        "kl": ("KL to the SFT model", "nats a response"),
    }
    with house_style():
        figure, axes = grid(2, panel=(5.4, 3.4), columns=2)
        for axis, (key, (title, label)) in zip(axes, panels.items(), strict=True):
            for place, name in enumerate(RUNS):
                mine = [run["curves"][key] for run in runs if run["algorithm"] == name]
                if mine:
                    length = min(map(len, mine))
                    stacked = np.array([curve[:length] for curve in mine])
                    steps = np.arange(1, length + 1)
                    colour = COLOURS[place]
                    dash = DASHES[place % len(DASHES)]
                    axis.plot(steps, stacked.mean(0), color=colour, linestyle=dash, label=name)
                    low, high = stacked.min(0), stacked.max(0)
                    axis.fill_between(steps, low, high, color=colour, alpha=0.1, linewidth=0)
            axis.set(title=title, ylabel=label, xlabel="rollout")
            whole_steps(axis)
        axes[0].legend()
        caption = "Lines: mean of the seeds; bands: lowest and highest seed. Each rollout has other prompts of the same set."
        return finish(figure, title="Online algorithms, equal budgets", caption=caption)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("algorithm_runs"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--algorithms", nargs="+", default=list(RUNS), choices=list(RUNS))
    parser.add_argument("--passes", type=int, default=7)
    parser.add_argument(
        "--prompts", type=int, default=96, help="tasks read; those SFT has seen are left out"
    )
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.FIELD=VALUE")
    options = parser.parse_args()
    for seed in options.seeds:
        run(options, seed)
    runs = [
        measured(options.out, name, seed) for name in options.algorithms for seed in options.seeds
    ]
    write_json(options.out / "algorithms.json", {"runs": runs}, 1)
    text = table(runs)
    write_text(options.out / "algorithms.md", text)
    write_bytes(options.out / "algorithms.png", plot(runs))
    print(text)


if __name__ == "__main__":
    main()
