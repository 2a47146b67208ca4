"""The command line: parse -> configuration -> one call.

    python -m modern_rlhf.main --mode cpu-test        train (also: modern-rlhf, python modern_rlhf/main.py)
    python -m modern_rlhf.main evaluate --help        one of the other commands

Does no work of its own: flags become a configuration in `cli.parser`, errors become lines in
`cli.errors`, the other commands stand in `cli.commands`. torch is loaded only once the command is known
to need it, so `--help` and mistakes answer at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__" and not __package__:
    # Run as a file: Python put this folder first on the path, where `config`, `ops`, ... would shadow
    # other packages' modules and `modern_rlhf` itself can't be found. Put its parent there instead.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from modern_rlhf.cli.commands import COMMANDS, epilog, run_command
from modern_rlhf.cli.errors import guarded, resume_command
from modern_rlhf.cli.parser import build_config, train_parser
from modern_rlhf.config.fields import nearest
from modern_rlhf.errors import ConfigError
from modern_rlhf.utils.stop import StopFlag


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code (0 good, 1 failure, 2 usage, 130 stopped)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    if arguments and arguments[0] in COMMANDS:
        return guarded(lambda: run_command(arguments), debug=debug)
    go_on = resume_command(arguments, sys.argv[0])
    return guarded(lambda: train(arguments), debug=debug, go_on=go_on)


def train(arguments: Sequence[str]) -> int:
    """The training command: SFT, reward model, RLHF, evaluation, or the stage asked for.

    Raises:
        ModernRLHFError: whatever stops the run, as one line.
    """
    if arguments and not arguments[0].startswith("-"):
        raise ConfigError(f"unknown command {arguments[0]!r}{nearest(arguments[0], COMMANDS)}")
    args = train_parser("modern-rlhf", epilog()).parse_args(arguments)
    config = build_config(args)

    # A run that can't have its device stops here, before anything large is imported or written.
    from modern_rlhf.utils.device import resolve_device

    resolve_device(config.hardware, mixed_precision=config.training.mixed_precision)

    from modern_rlhf.pipeline.pipeline import ModernRLHFPipeline

    with StopFlag() as stop:
        pipeline = ModernRLHFPipeline(
            config, resume=args.resume, overwrite=args.overwrite, stage=args.stage, stop=stop
        )
        if args.dry_run:
            print(pipeline.dry_run())
            return 0
        results = pipeline.run_full_pipeline()
    return 0 if results.success else 1


if __name__ == "__main__":
    sys.exit(main())
