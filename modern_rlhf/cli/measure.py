"""The flags of `evaluate` and `correlate`, and the one call that each makes."""

from __future__ import annotations

import argparse

from modern_rlhf.cli.flags import at_least, device_and_seed
from modern_rlhf.errors import ConfigError

OUTPUT = "./evaluation"
DATA = "builtin:datasets_for_eval/tasks.jsonl"


def evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME",
        help="folder, hub id or builtin: name; once for each model, the first is compared with",
    )
    parser.add_argument(
        "--data",
        default=DATA,
        metavar="F",
        help="tasks (MBPP, HumanEval, ODEX or the project's), CoNaLa, or prompts with references "
        f"(default: {DATA})",
    )
    parser.add_argument("--output-dir", default=OUTPUT, help=f"default: {OUTPUT}")
    parser.add_argument(
        "--max-items", type=int, metavar="N", help="a fixed random part of the data"
    )
    parser.add_argument(
        "--samples",
        type=int,
        default=1,
        metavar="K",
        help="answers an item at temperature 1 beside the greedy one, for pass@1 and pass@K "
        "(default: 1)",
    )
    parser.add_argument("--metrics", metavar="A,B,...", help="default: all of them")
    parser.add_argument("--bertscore-model", metavar="NAME", help="encoder of BERTScore")
    parser.add_argument("--max-new-tokens", type=int, default=256, metavar="N")
    parser.add_argument(
        "--bootstrap-samples", type=int, default=1000, metavar="N", help="default: 1000"
    )
    device_and_seed(parser)


def evaluate(args: argparse.Namespace) -> int:
    if not args.model:
        raise ConfigError("name a model to evaluate: --model A, and --model B to compare with")
    at_least(1, args, "max_items", "max_new_tokens")
    at_least(0, args, "samples", "bootstrap_samples")
    from modern_rlhf.cli.evaluate import EvaluationSettings, evaluate_command
    from modern_rlhf.evaluation.evaluator import METRICS

    text = evaluate_command(
        models=args.model,
        data=args.data,
        output_dir=args.output_dir,
        max_items=args.max_items,
        device=args.device,
        settings=EvaluationSettings(
            metrics=tuple(name for name in args.metrics.split(",") if name)
            if args.metrics
            else METRICS,
            samples=args.samples,
            max_new_tokens=args.max_new_tokens,
            bertscore_model=args.bertscore_model,
            bootstrap_samples=args.bootstrap_samples,
            seed=args.seed,
        ),
    )
    print(text)
    return 0


def correlate_arguments(parser: argparse.ArgumentParser) -> None:
    from modern_rlhf.cli.correlate import METRICS

    parser.add_argument(
        "graded", help="JSONL of graded answers with references, or a folder of human feedback"
    )
    parser.add_argument(
        "--metrics", default=",".join(METRICS), metavar="A,B,...", help="default: %(default)s"
    )
    parser.add_argument(
        "--reward-model", metavar="DIR", help="also a trained reward model's scores"
    )
    parser.add_argument("--bertscore-model", metavar="NAME", help="encoder of BERTScore")
    parser.add_argument(
        "--bootstrap-samples", type=int, default=1000, metavar="N", help="default: 1000"
    )
    parser.add_argument(
        "--output-dir", metavar="DIR", help="write agreement.json, .csv and .png here"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the resampling")


def correlate(args: argparse.Namespace) -> int:
    at_least(0, args, "bootstrap_samples")
    from modern_rlhf.cli.correlate import correlate_command

    metrics = [name for name in args.metrics.split(",") if name]
    if not metrics and args.reward_model is None:
        raise ConfigError("--metrics names none: leave it out for all, or give --reward-model")
    text = correlate_command(
        args.graded,
        metrics=metrics,
        reward_model=args.reward_model,
        bertscore_model=args.bertscore_model,
        output_dir=args.output_dir,
        samples=args.bootstrap_samples,
        seed=args.seed,
    )
    print(text)
    return 0
