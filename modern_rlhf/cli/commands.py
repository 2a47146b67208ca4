"""The commands beside training: a table of name, summary, flags and the one call each makes.

A command's room is imported when it runs, so `--help` stays instant and no command needs another's
packages.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from modern_rlhf.cli.parser import OneLineParser

OUTPUT = "./modern_outputs"


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


def _report(args: argparse.Namespace) -> int:
    from modern_rlhf.report.build import build_report

    print(build_report(Path(args.output_dir)))
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
    "report": Command(
        "build report.html and the plots from a run's files", _output_argument, _report
    ),
    "status": Command("say where a run is", _output_argument, _status),
    "doctor": Command("say what this machine and environment offer", lambda parser: None, _doctor),
    "fetch-model": Command(
        "install a real pretrained model through the package index", _fetch_arguments, _fetch
    ),
}
