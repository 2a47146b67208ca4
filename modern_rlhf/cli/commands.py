"""The commands beside training: a table of name, summary, flags and the one call each makes.

A command's room is imported when it runs, so `--help` stays instant and no command needs another's
packages.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from modern_rlhf.cli.flags import at_least, device_and_seed
from modern_rlhf.cli.measure import correlate, correlate_arguments, evaluate, evaluate_arguments
from modern_rlhf.cli.parser import OneLineParser
from modern_rlhf.errors import ConfigError

OUTPUT = "./modern_outputs"
RATINGS = "./evaluation_results_server"
MODEL = "builtin:tiny-code-lm"


@dataclass(frozen=True)
class Command:
    """A command: its line in `--help`, the flags it takes, and what it does (returns the exit code)."""

    summary: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def run_command(arguments: Sequence[str]) -> int:
    """Parse and run `[name, flags...]`; the name is one of `COMMANDS`.

    Raises:
        ModernRLHFError: a wrong flag, or whatever the command fails with.
    """
    name = arguments[0]
    command = COMMANDS[name]
    parser = OneLineParser(
        prog=f"modern-rlhf {name}", description=command.summary, allow_abbrev=False
    )
    command.configure(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return command.run(parser.parse_args(arguments[1:]))


def epilog() -> str:
    """The list of commands under the training command's help."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "other commands (modern-rlhf NAME --help):\n" + "\n".join(lines)


def _output_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "output_dir", nargs="?", default=OUTPUT, help=f"output folder of a run (default: {OUTPUT})"
    )


def _generate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompts", nargs="*", metavar="PROMPT", help="what to answer")
    parser.add_argument("--prompts-file", metavar="F", help="JSONL, CSV or text file of prompts")
    parser.add_argument("--model", default=MODEL, help=f"default: {MODEL}")
    parser.add_argument("--output", metavar="F.jsonl", help="write the answers here, for `rate`")
    _sampling_arguments(parser)
    device_and_seed(parser)


def _sampling_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--samples", type=int, default=1, metavar="N", help="answers a prompt")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 answers greedily")
    parser.add_argument("--max-new-tokens", type=int, default=128, metavar="N")


def _check_sampling(args: argparse.Namespace) -> None:
    at_least(1, args, "samples", "max_new_tokens")
    at_least(0, args, "temperature")
    if args.samples > 1 and args.temperature == 0:
        raise ConfigError(
            f"--samples {args.samples} greedy answers would all be the same; add --temperature 1"
        )


def _generate(args: argparse.Namespace) -> int:
    _check_sampling(args)
    if bool(args.prompts) == (args.prompts_file is not None):
        raise ConfigError(
            "give prompts as words after the flags, or --prompts-file, one of the two"
        )
    if not all(prompt.strip() for prompt in args.prompts):
        raise ConfigError("a prompt is empty: give what to answer in quotes")
    from modern_rlhf.cli.models import generate_command
    from modern_rlhf.data_loader.prompts import load_prompts

    prompts = args.prompts
    if args.prompts_file is not None:
        prompts = [item.prompt for item in load_prompts(args.prompts_file).items]
    text = generate_command(
        model=args.model,
        prompts=prompts,
        output=args.output,
        samples=args.samples,
        temperature=args.temperature,
        max_new_tokens=args.max_new_tokens,
        device=args.device,
        seed=args.seed,
    )
    print(text)
    return 0


def _rate_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("what is rated", "one of the two")
    what.add_argument(
        "--answers", metavar="F.jsonl", help="answers, as `generate --output` writes them"
    )
    what.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME",
        help="a model that answers --prompts first; give it twice to compare two",
    )
    parser.add_argument("--prompts", metavar="F", help="JSONL, CSV or text file of prompts")
    _sampling_arguments(parser)
    parser.add_argument(
        "--folder", default=RATINGS, help=f"where ratings are kept (default: {RATINGS})"
    )
    parser.add_argument(
        "--summary", action="store_true", help="show what the folder holds, and end"
    )
    parser.add_argument("--mode", default="compare", choices=("compare", "single"))
    parser.add_argument("--host", default="127.0.0.1", help="default: this machine only")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    parser.add_argument("--raters-per-item", type=int, default=2, metavar="N")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: auto)")
    parser.add_argument("--seed", type=int, default=0, help="of sampling, the order and the sides")


def _rate(args: argparse.Namespace) -> int:
    if args.summary:
        from modern_rlhf.feedback.agreement import summary

        print(summary(args.folder))
        return 0
    if (args.answers is None) == (not args.model):
        raise ConfigError(
            "give --answers F.jsonl, or --model A --model B --prompts F, one of the two, or --summary"
        )
    if args.prompts is not None and not args.model:
        raise ConfigError("--prompts are for --model to answer: give --model A --model B too")
    at_least(1, args, "raters_per_item")
    if not 0 <= args.port <= 65535:
        raise ConfigError(f"--port {args.port}: expected 0 to 65535")
    from modern_rlhf.feedback.server import serve

    serve(
        args.answers or _answers_of_models(args),
        args.folder,
        host=args.host,
        port=args.port,
        mode=args.mode,
        raters_per_item=args.raters_per_item,
        seed=args.seed,
    )
    return 0


def _answers_of_models(args: argparse.Namespace) -> str:
    """Check the flags of `rate --model`, make the answers, and name their file."""
    _check_sampling(args)
    if args.prompts is None:
        raise ConfigError("--model answers the prompts of a file: give --prompts F")
    if args.mode == "compare" and len(args.model) * args.samples < 2:
        raise ConfigError(
            "one answer a prompt leaves nothing to compare: give --model twice, --samples 2 "
            "--temperature 1, or --mode single"
        )
    if len(set(args.model)) < len(args.model) and args.temperature == 0:
        raise ConfigError(
            "the same model twice answers the same greedily: add --temperature 1, or name two models"
        )
    from modern_rlhf.cli.models import answers_to_rate
    from modern_rlhf.feedback.server import prepare

    return answers_to_rate(
        models=args.model,
        prompts=args.prompts,
        folder=prepare(args.folder),
        samples=args.samples,
        temperature=args.temperature,
        max_new_tokens=args.max_new_tokens,
        device=args.device,
        seed=args.seed,
    )


def _report(args: argparse.Namespace) -> int:
    from modern_rlhf.report.build import build_report

    for path in build_report(Path(args.output_dir)):
        print(path)
    return 0


def _status(args: argparse.Namespace) -> int:
    from modern_rlhf.report.status import status_text

    print(status_text(Path(args.output_dir)))
    return 0


def _doctor(args: argparse.Namespace) -> int:
    from modern_rlhf.cli.doctor import doctor_lines

    for line in doctor_lines():
        print(line, flush=True)
    return 0


def _fetch_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="smollm2-135m (chat model) or minilm (sentence encoder)")


def _fetch(args: argparse.Namespace) -> int:
    from modern_rlhf.models.fetch import fetch_model

    folder = fetch_model(args.name)
    print(f"{folder}\nuse it by name: --model-name {args.name}")
    return 0


COMMANDS: dict[str, Command] = {
    "evaluate": Command(
        "answer an evaluation set with one or more models and measure",
        evaluate_arguments,
        evaluate,
    ),
    "generate": Command("answer prompts with a model", _generate_arguments, _generate),
    "rate": Command("rate answers on a web page, or summarise ratings", _rate_arguments, _rate),
    "correlate": Command(
        "compare metrics, or a reward model, with human grades",
        correlate_arguments,
        correlate,
    ),
    "report": Command(
        "build report.html and the plots from a run's files", _output_argument, _report
    ),
    "status": Command("say where a run is", _output_argument, _status),
    "doctor": Command("say what this machine and environment offer", lambda parser: None, _doctor),
    "fetch-model": Command(
        "install a real pretrained model through the package index", _fetch_arguments, _fetch
    ),
}
