"""Write the shipped comparison forms: a simulated rater over real samples of the SFT model.

    python scripts/make_feedback.py --model OUT/sft/final_model --out evaluation_results_server

There are no human raters here, and the files say so: every form is marked `"synthetic": true` and its
rater is called `simulated-<n>`. What is real is the text: both answers are samples of the SFT model at
temperature 1 on training tasks (never evaluation tasks). The rater is documented here and nowhere
else pretends to be a person:

* it looks at an answer the way a person with a Python prompt would: does it parse, does it define the
  function that was asked for with the right number of arguments, how many of the task's tests pass;
* `consistent` is about the form (name, arguments, parses), `correct` about the tests, `useful` is
  the mean of both, minus one where the answer is much longer than needed;
* each of five raters has a fixed bias (lenient or strict), and rounds with noise; one form in eight
  gets a slip of one level, and the slider follows the difference of the sums with noise of its own.

Deterministic for a given model, seed and machine.
"""

from __future__ import annotations

import argparse
import ast
import random
from datetime import datetime, timedelta
from pathlib import Path

import torch

from modern_rlhf.data_loader.encoding import encode_prompts
from modern_rlhf.data_loader.tasks import load_tasks
from modern_rlhf.feedback.forms import ComparisonForm, Side
from modern_rlhf.feedback.writing import write_form
from modern_rlhf.models.loading import load_causal_lm, load_tokenizer
from modern_rlhf.records import Task
from modern_rlhf.rollout.collect import decode_response
from modern_rlhf.rollout.sampling import sampling_engine
from modern_rlhf.sandbox.executor import SandboxExecutor
from modern_rlhf.sandbox.types import Program

RATERS = {
    "simulated-1": 0.0,
    "simulated-2": 0.3,
    "simulated-3": -0.3,
    "simulated-4": 0.15,
    "simulated-5": -0.15,
}
START = datetime(2024, 3, 1, 9, 0, 0)


def arguments_of(code: str, name: str) -> int | None:
    """How many arguments the function `name` takes, or None when the code does not define it."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError):
        return None
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return len(node.args.args)
    return None


def parses(code: str) -> bool:
    try:
        ast.parse(code)
    except (SyntaxError, ValueError, RecursionError):
        return False
    return True


def opinion(task: Task, code: str, share: float) -> dict[str, float]:
    """What the rater thinks before bias and noise, each on -2..2."""
    assert task.entry_point is not None
    wanted = arguments_of(task.reference, task.entry_point)
    got = arguments_of(code, task.entry_point)
    if not parses(code):
        form = -2.0
    elif got is None:
        form = -1.0
    else:
        form = 2.0 if got == wanted else 0.0
    correct = 2.0 if share == 1.0 else -2.0 + 3.0 * share
    verbose = len(code) > 2 * len(task.reference) + 40
    return {
        "consistent": form,
        "correct": correct,
        "useful": (form + 2 * correct) / 3 - (1.0 if verbose else 0.0),
    }


def rate(thought: dict[str, float], bias: float, rng: random.Random) -> dict[str, int]:
    """Opinions as scale positions: bias, a little noise, rounding, the ends of the scale."""
    slip = rng.random() < 0.125
    scores = {}
    for aspect, value in thought.items():
        noisy = value + bias + rng.gauss(0.0, 0.35) + (rng.choice((-1, 1)) if slip else 0)
        scores[aspect] = max(-2, min(2, round(noisy)))
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="the SFT model's folder")
    parser.add_argument("--tasks", default="datasets_for_training/tasks.jsonl")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--forms", type=int, default=240)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    rng = random.Random(args.seed)
    tasks = load_tasks(args.tasks).items
    rng.shuffle(tasks)
    lm, tokenizer = load_causal_lm(args.model), load_tokenizer(args.model)
    engine = sampling_engine(lm, tokenizer)
    candidates = tasks[: 3 * args.forms]
    encoded = encode_prompts(tokenizer, [t.prompt for t in candidates], max_length=256)
    drawn = engine.generate(
        encoded.input_ids,
        samples_per_prompt=2,
        max_new_tokens=128,
        temperature=1.0,
        generator=torch.Generator().manual_seed(args.seed),
    )
    texts = [decode_response(tokenizer, generation) for generation in drawn]
    kept = [candidates[i] for i in encoded.indices]
    programs = [
        Program(code=text, tests=task.tests, entry_point=task.entry_point)
        for task, pair in zip(kept, zip(texts[::2], texts[1::2], strict=True), strict=True)
        for text in pair
    ]
    with SandboxExecutor() as executor:
        verdicts = executor.run(programs)

    if args.out.exists():
        for old in args.out.glob("*-simulated-*.json"):
            old.unlink()
    args.out.mkdir(parents=True, exist_ok=True)
    written, when = 0, START
    for index, task in enumerate(kept):
        if written == args.forms:
            break
        pair = texts[2 * index : 2 * index + 2]
        if pair[0].strip() == pair[1].strip():
            continue  # nobody compares an answer with itself
        rater = rng.choice(sorted(RATERS))
        scores = []
        for side in range(2):
            result = verdicts[2 * index + side]
            share = result.tests_passed / max(1, result.tests_run)
            scores.append(rate(opinion(task, pair[side], share), RATERS[rater], rng))
        gap = sum(scores[1].values()) - sum(scores[0].values())
        slider = max(-2, min(2, round(gap / 3 + rng.gauss(0.0, 0.4))))
        when += timedelta(seconds=rng.randrange(40, 240))
        sides = [
            Side(
                question=task.prompt,
                answer=pair[side],
                question_id=task.task_id,
                model_tag="SFT",
                csv_path="sampled",
                level_0=2 * index + side,
                index=index,
            )
            for side in range(2)
        ]
        write_form(
            args.out,
            ComparisonForm(
                rater=rater,
                time=when.strftime("%Y-%m-%d %H:%M:%S"),
                left=sides[0],
                right=sides[1],
                slider=slider,
                left_scores=scores[0],
                right_scores=scores[1],
                synthetic=True,
            ),
        )
        written += 1
    print(f"{written} synthetic forms by {len(RATERS)} simulated raters in {args.out}")


if __name__ == "__main__":
    main()
