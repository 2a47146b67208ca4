"""The same work here and in TRL, one after the other, on this machine: how much faster?

    python -m benchmarks.versus_trl [--jobs sft grpo dpo] [--rounds 3] [--device cpu]

Three jobs on the embedded model and tasks, each with equal data, batch sizes, learning rate, lengths,
bf16 autocast, threads and number of updates; every measurement is a process of its own, and the two take
turns. Only `train()` is timed, so neither pays for imports or loading. GRPO starts from the model that
this project's SFT job left and gets the same reward function; both sample at temperature 1, so the
answers differ but their mean length is printed. Writes `versus_trl.json` and prints a table.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from modern_rlhf.utils.atomic import write_json

JOBS = ("sft", "grpo", "dpo")
BATCH, DEMONSTRATIONS, PAIRS = 16, 1200, 320
MAX_PROMPT, MAX_RESPONSE = 128, 96
GROUP, ROLLOUT, ROLLOUTS = 8, 384, 3
RATE, KL = 1e-4, 0.005


def reward(completions: list[str], **_: Any) -> list[float]:
    """Shorter is better, and a `return` is better still: cheap, so that it weighs on neither."""
    return [float("return" in text) - len(text) / 400 for text in completions]


def data(model: str) -> tuple[list[dict[str, str]], list[str]]:
    """Rendered prompts with answers, and other rendered prompts, of the embedded tasks. Rendering is
    idempotent, so both libraries read the same text."""
    from modern_rlhf.data_loader.template import render_prompt
    from modern_rlhf.models.loading import load_tokenizer

    tokenizer = load_tokenizer(model)
    folder = Path(__file__).resolve().parents[1] / "datasets_for_training"
    lines = (folder / "tasks.jsonl").read_text().splitlines()
    tasks = [json.loads(line) for line in lines]
    rows = [
        {"prompt": render_prompt(tokenizer, task["text"]), "completion": task["code"]}
        for task in tasks
    ]
    return rows[:DEMONSTRATIONS], [row["prompt"] for row in rows[DEMONSTRATIONS:]]


def pairs(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """The reference is chosen, another task's reference is rejected."""
    return [
        {"prompt": row["prompt"], "chosen": row["completion"], "rejected": other["completion"]}
        for row, other in zip(rows[:PAIRS], rows[1 : PAIRS + 1], strict=True)
    ]


def ours(job: str, model: str, save: Path, device: str) -> dict[str, float]:
    """One job with this package."""
    from modern_rlhf.config.sections import ModelConfig
    from modern_rlhf.config.training import TrainingConfig
    from modern_rlhf.trainer.dpo import DPOTrainer
    from modern_rlhf.trainer.policy_gradient import PolicyGradientTrainer
    from modern_rlhf.trainer.runtime import Runtime
    from modern_rlhf.trainer.sft import SFTTrainer

    rows, prompts = data(model)
    lengths: list[float] = []

    def measured_reward(prompts: list[str], responses: list[str], **_: Any) -> list[float]:
        lengths.extend(len(text) for text in responses)
        return reward(responses)

    training = TrainingConfig(
        algorithm="dpo" if job == "dpo" else "grpo",
        batch_size=BATCH,
        learning_rate=RATE,
        sft_learning_rate=RATE,
        sft_epochs=1,
        tokens_per_micro_batch=2048,
        max_prompt_tokens=MAX_PROMPT,
        max_response_tokens=MAX_RESPONSE,
        temperature=1.0,
        rollout_batch_size=ROLLOUT,
        samples_per_prompt=GROUP,
        ppo_epochs=1,
        ppo_mini_batches=2,
        ppo_kl_penalty=KL,
        total_steps=2 * ROLLOUTS if job == "grpo" else None,
        rlhf_epochs=1,
    )
    common: dict[str, Any] = {
        "config": training,
        "runtime": Runtime(dtype="bf16", device=device),
        "model_config": ModelConfig(prompt_style="plain"),
    }
    trainer: Any
    if job == "sft":
        trainer = SFTTrainer(model, train_data=rows, **common)
    elif job == "dpo":
        trainer = DPOTrainer(model, train_data=pairs(rows), **common)
    else:
        trainer = PolicyGradientTrainer(model, prompts=prompts, reward=measured_reward, **common)
    began = time.perf_counter()
    result = trainer.train()
    seconds = time.perf_counter() - began
    if job == "sft":
        trainer.save_model(save)
    updates = trainer.loop.updater.optimizer_steps if job == "grpo" else result.steps
    return {"seconds": seconds, "steps": updates, "length": statistics.fmean(lengths or [0])}


def theirs(job: str, model: str, save: Path, device: str) -> dict[str, float]:
    """The same job with TRL."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

    from modern_rlhf.models.loading import load_causal_lm, load_tokenizer

    rows, prompts = data(model)
    lm, tokenizer = load_causal_lm(model), load_tokenizer(model)
    lengths: list[float] = []

    def measured_reward(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
        lengths.extend(len(text) for text in completions)
        return reward(completions)

    common: dict[str, Any] = {
        "output_dir": str(save),
        "learning_rate": RATE,
        "bf16": True,
        "use_cpu": device == "cpu",
        "gradient_checkpointing": False,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "dataloader_pin_memory": device != "cpu",
        "seed": 0,
    }
    trainer: Any
    if job == "sft":
        trainer = SFTTrainer(
            model=lm,
            processing_class=tokenizer,
            train_dataset=Dataset.from_list(rows),
            args=SFTConfig(
                per_device_train_batch_size=BATCH,
                num_train_epochs=1,
                max_length=MAX_PROMPT + MAX_RESPONSE,
                **common,
            ),
        )
    elif job == "dpo":
        trainer = DPOTrainer(
            model=lm,
            processing_class=tokenizer,
            train_dataset=Dataset.from_list(pairs(rows)),
            args=DPOConfig(
                per_device_train_batch_size=BATCH,
                num_train_epochs=1,
                max_length=MAX_PROMPT + MAX_RESPONSE,
                **common,
            ),
        )
    else:
        # Two updates of half a rollout each, in micro-batches of 32 sequences.
        micro = 32
        trainer = GRPOTrainer(
            model=lm,
            processing_class=tokenizer,
            reward_funcs=measured_reward,
            train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in prompts]),
            args=GRPOConfig(
                per_device_train_batch_size=micro,
                gradient_accumulation_steps=ROLLOUT // 2 // micro,
                steps_per_generation=ROLLOUT // micro,
                max_steps=2 * ROLLOUTS,
                num_generations=GROUP,
                max_completion_length=MAX_RESPONSE,
                temperature=1.0,
                beta=KL,
                loss_type="grpo",
                **common,
            ),
        )
    began = time.perf_counter()
    steps = trainer.train().global_step
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "steps": steps, "length": statistics.fmean(lengths or [0])}


def measure(who: str, job: str, model: str, save: Path, device: str) -> dict[str, float]:
    """One job in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.versus_trl", "--worker", who, "--jobs", job]
    command += ["--model", model, "--out", str(save), "--device", device]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{who} failed at {job}; its message is above")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(f"{job} {who}: {found['seconds']:.1f} s, {found['steps']} updates", file=sys.stderr)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="builtin:tiny-code-lm")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("versus_trl"))
    parser.add_argument("--worker", choices=["ours", "trl"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        os.environ["HF_HUB_OFFLINE"] = "1"
        job = ours if args.worker == "ours" else theirs
        print(json.dumps(job(args.jobs[0], args.model, args.out, args.device)))
        return
    trained = args.out / "sft" / "final_model"
    if not (trained / "config.json").is_file():
        measure("ours", "sft", args.model, trained.parent, args.device)
    found: dict[str, Any] = {}
    for job in args.jobs:
        model = args.model if job == "sft" else str(trained)
        runs: dict[str, list[dict[str, float]]] = {"ours": [], "trl": []}
        for number in range(args.rounds):
            for who in ("ours", "trl") if number % 2 == 0 else ("trl", "ours"):
                runs[who].append(measure(who, job, model, args.out / "scratch", args.device))
        found[job] = runs
        write_json(args.out / "versus_trl.json", found, 1)
    print(table(found))


def table(found: dict[str, Any]) -> str:
    """Medians, and the ratios' range over the rounds."""
    lines = [
        "| job | updates | here, s | TRL, s | TRL / here | of each round | answer length |",
        "|---|---|---|---|---|---|---|",
    ]
    for job, runs in found.items():
        seconds = {who: [run["seconds"] for run in runs[who]] for who in runs}
        ratios = [b / a for a, b in zip(seconds["ours"], seconds["trl"], strict=True)]
        here, there = (statistics.median(seconds[who]) for who in ("ours", "trl"))
        (updates,) = {run["steps"] for who in runs for run in runs[who]}
        length = " / ".join(
            f"{statistics.fmean(run['length'] for run in runs[who]):.0f}" for who in ("ours", "trl")
        )
        lines.append(
            f"| {job} | {updates:.0f} | {here:.1f} | {there:.1f} | {statistics.median(ratios):.2f} | "
            f"{min(ratios):.2f} to {max(ratios):.2f} | {length if job == 'grpo' else '-'} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
